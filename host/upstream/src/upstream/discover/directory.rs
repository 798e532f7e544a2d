//! What is a source of endpoints?

use std::{future::Future, pin::Pin};

use super::error::DirectoryError;
use crate::config;

/// Something that knows the endpoints of an upstream.
pub(super) trait Directory: Send {
    /// Waits until the list may be another than the one before; the first time there is nothing to wait for.
    /// After an error it begins anew.
    fn next(&mut self) -> Next<'_>;
}

/// A whole list, or why there is none.
pub(super) type Next<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<config::Endpoint>, DirectoryError>> + Send + 'a>>;

/// The endpoints of a list, without what is none: one of them that is written wrong does not take the others along.
/// It is logged when that is another than `before`.
pub(super) fn listed(
    source: &str,
    understood: Vec<Result<config::Endpoint, String>>,
    before: &mut Vec<String>,
) -> Vec<config::Endpoint> {
    let (mut endpoints, mut not_understood) = (Vec::new(), Vec::new());
    for one in understood {
        match one {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => not_understood.push(error),
        }
    }
    if not_understood != *before {
        for error in &not_understood {
            tracing::warn!(source, error, "not an endpoint, left out");
        }
        *before = not_understood;
    }
    endpoints
}

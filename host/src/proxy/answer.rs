//! What is the response, before response hooks have seen it?

use http::{HeaderValue, Response};
use hyper::body::Incoming;

use super::sent::Sent;
use crate::{body::Content, cache::encoded::Kept};

/// What an upstream has answered, or what is stored in its place.
pub(super) struct Answer {
    pub response: Response<Content>,
    /// How it was brought; none for what is stored.
    pub sent: Option<Sent>,
    /// The endpoint that answered, where `sent` is needed elsewhere.
    pub endpoint: Option<HeaderValue>,
    pub from_cache: bool,
    /// What is stored of it, on routes that may want it encoded.
    pub kept: Option<Kept>,
}

impl Answer {
    pub fn from_cache(response: Response<Content>) -> Self {
        Self { response, sent: None, endpoint: None, from_cache: true, kept: None }
    }

    pub fn from_upstream(response: Response<Incoming>, sent: Sent) -> Self {
        Self {
            response: response.map(Content::Streaming),
            sent: Some(sent),
            endpoint: None,
            from_cache: false,
            kept: None,
        }
    }
}

//! Which encoded forms of a stored body are there, and which are being made?

use std::sync::{Arc, Mutex, OnceLock};

use super::{body::StoredBody, stream::Stream};
use crate::config::Encoding;

/// The encoded forms of one body.
#[derive(Debug, Default)]
pub struct Encoded([Form; Encoding::ALL.len()]);

#[derive(Debug, Default)]
pub(super) struct Form {
    pub made: OnceLock<StoredBody>,
    pub coming: Mutex<Option<Arc<Stream>>>,
}

impl Encoded {
    /// Bytes that the forms take in memory.
    pub fn size(&self) -> usize {
        let made = self.0.iter().filter_map(|form| form.made.get());
        made.map(|body| body.len() as usize + body.pieces().len() * 64).sum()
    }

    pub(super) fn form(&self, encoding: Encoding) -> &Form {
        let index = match encoding {
            Encoding::Gzip => 0,
            Encoding::Deflate => 1,
            Encoding::Brotli => 2,
            Encoding::Zstd => 3,
        };
        &self.0[index]
    }
}

//! What has been read of a response's body before it goes to the client?

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Begun, Content, Unread};

/// The body of a response before it goes to the client.
#[derive(Debug)]
pub enum Leaving {
    Untouched(Content),
    /// Somebody has begun to read it.
    Begun(Box<Begun<Content>>),
}

impl Leaving {
    /// Reads it as [`Begun::poll_whole`] does.
    pub fn poll_whole(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Bytes, Unread>> {
        let mut begun = match std::mem::replace(self, Self::Untouched(Content::Whole(Bytes::new()))) {
            Self::Untouched(content) => Box::new(Begun::new(content)),
            Self::Begun(begun) => begun,
        };
        let polled = begun.poll_whole(most, false, cx);
        *self = Self::Begun(begun);
        polled
    }

    /// Whether all of it has been read.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Untouched(_) => false,
            Self::Begun(begun) => begun.is_whole(),
        }
    }

    /// As it goes on.
    pub fn into_content(self) -> Content {
        match self {
            Self::Untouched(content) => content,
            Self::Begun(begun) => match begun.into_whole() {
                Ok(whole) => Content::Whole(whole),
                Err(begun) => Content::Changed(Box::new(begun)),
            },
        }
    }
}

//! What has come of a request's body before it is sent?

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Begun, ClientBody, Error, Unread};

/// The body of a request, as far as it has come before it is sent.
#[derive(Debug)]
pub enum Arriving {
    Untouched(ClientBody),
    /// Somebody has begun to read it.
    Begun(Box<Begun<ClientBody>>),
    /// Another has been put in its place.
    Made {
        content: Bytes,
        /// Of the one that the client has.
        client: Asked,
    },
}

/// Whether a client was asked for its body, which it may have waited for (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was not, and nobody is going to.
    Never,
    /// It is as soon as somebody reads. That is so where no client has come, and the request is only explained.
    OnceRead,
    Yes,
}

impl Asked {
    fn once_read(self) -> Self {
        match self {
            Self::Never => Self::Never,
            Self::OnceRead | Self::Yes => Self::Yes,
        }
    }
}

impl Arriving {
    /// Stands in its place while it is looked at.
    const NOTHING: Self = Self::Made { content: Bytes::new(), client: Asked::Never };

    /// Reads it as [`Begun::poll_whole`] does.
    pub fn poll_whole(
        &mut self,
        most: usize,
        says_end: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Unread>> {
        match std::mem::replace(self, Self::NOTHING) {
            Self::Untouched(incoming) => {
                let mut begun = Box::new(Begun::new(incoming));
                let polled = begun.poll_whole(most, says_end, cx);
                *self = Self::Begun(begun);
                polled
            }
            Self::Begun(mut begun) => {
                let polled = begun.poll_whole(most, says_end, cx);
                *self = Self::Begun(begun);
                polled
            }
            Self::Made { content, client } => {
                *self = Self::Made { content: content.clone(), client: client.once_read() };
                Poll::Ready(Ok(content))
            }
        }
    }

    /// Reads it to its end, of which it tells, and keeps it. An error if it is longer than `most` bytes or breaks off.
    pub async fn read(&mut self, most: usize, call: impl FnOnce(&[u8])) -> Result<(), Error> {
        match std::future::poll_fn(|cx| self.poll_whole(most, true, cx)).await {
            Ok(whole) => {
                call(&whole);
                Ok(())
            }
            Err(Unread::TooLarge) => Err(Error::TooLarge),
            Err(Unread::Broken(error)) => Err(error),
        }
    }

    /// Waits for the first of it, and says whether it has none. In HTTP/2 only what comes behind the head tells.
    pub async fn is_empty(&mut self) -> Result<bool, Error> {
        let mut begun = match std::mem::replace(self, Self::NOTHING) {
            Self::Untouched(incoming) => Box::new(Begun::new(incoming)),
            Self::Begun(begun) => begun,
            Self::Made { content, client } => {
                let is_empty = content.is_empty();
                *self = Self::Made { content, client: client.once_read() };
                return Ok(is_empty);
            }
        };
        let is_empty = std::future::poll_fn(|cx| begun.poll_empty(true, cx)).await;
        *self = Self::Begun(begun);
        is_empty
    }

    /// Puts another in its place.
    pub fn make(&mut self, content: Bytes) {
        let client = if self.was_read() { Asked::Yes } else { Asked::Never };
        *self = Self::Made { content, client };
    }

    /// Whether the client has been asked for it.
    pub fn was_read(&self) -> bool {
        match self {
            Self::Untouched(_) => false,
            Self::Begun(begun) => begun.was_asked(),
            Self::Made { client, .. } => *client == Asked::Yes,
        }
    }

    /// Whether the client may still send what nobody is going to read.
    pub fn leaves_body(&self) -> bool {
        matches!(self, Self::Made { client: Asked::Never, .. })
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Untouched(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Error::from)))
            }
            Self::Begun(begun) => Pin::new(begun).poll_frame(cx),
            Self::Made { content, .. } if content.is_empty() => Poll::Ready(None),
            Self::Made { content, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(content))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Untouched(incoming) => incoming.is_end_stream(),
            Self::Begun(begun) => begun.is_end_stream(),
            Self::Made { content, .. } => content.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Untouched(incoming) => incoming.size_hint(),
            Self::Begun(begun) => begun.size_hint(),
            Self::Made { content, .. } => SizeHint::with_exact(content.len() as u64),
        }
    }
}

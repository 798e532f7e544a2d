//! What if a client still sends what nobody is going to read?
//!
//! In HTTP/2 a stream that is let go before its request has ended is reset (RFC 9113, section 8.1), and some clients
//! read nothing of a response with which a reset comes (curl before 8.0). So the rest of a body goes to the listener,
//! which reads on for a moment.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a client's request, as it comes.
#[derive(Debug)]
pub struct ClientBody {
    /// None once it has been dropped.
    incoming: Option<Incoming>,
    unread: Option<Unwanted>,
}

/// Takes what nobody has read of the bodies on a connection.
#[derive(Clone)]
pub struct Unwanted(Rc<dyn Fn(Incoming)>);

impl Unwanted {
    pub fn new(take: impl Fn(Incoming) + 'static) -> Self {
        Self(Rc::new(take))
    }
}

impl fmt::Debug for Unwanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unwanted")
    }
}

impl ClientBody {
    /// `unwanted` gets the rest of it if it is not read to its end.
    pub fn new(incoming: Incoming, unwanted: Option<Unwanted>) -> Self {
        Self { incoming: Some(incoming), unread: unwanted }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
            && let Some(Unwanted(take)) = &self.unread
        {
            take(incoming);
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

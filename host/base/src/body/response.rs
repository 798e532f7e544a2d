//! What becomes of the body of a response on its way to a client?

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Content, Error, trailers};

/// The body of a response on its way to a client.
#[derive(Debug)]
pub struct ResponseBody<O: Observer> {
    content: Content,
    /// Bytes that are still to come, if the head says how many there are.
    left: Option<u64>,
    /// The error that it ends with, kept back for one turn: with an error hyper drops what it has not written yet, which may
    /// be all of the response.
    error: Option<Error>,
    /// Whether hyper has had a turn to write what it has got so far.
    is_written: bool,
    observer: Option<O>,
}

/// Is told what becomes of a response's body.
pub trait Observer: Unpin {
    /// A piece of this many bytes goes to the client.
    fn passed(&mut self, bytes: usize);

    /// Nothing has come from the upstream for now. Ready when that has lasted too long, with trailers if the client is
    /// told so by them.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>>;

    /// Nothing more will come.
    fn ended(self, end: End<'_>);
}

/// How a response's body ended.
#[derive(Debug)]
pub enum End<'a> {
    Complete,
    /// The upstream was silent for too long.
    Stalled,
    Broken(&'a Error),
    /// Nobody asks for the rest: the client is gone, was given up, or the process ends.
    Dropped,
}

impl<O: Observer> ResponseBody<O> {
    /// `length` is what the head of the response says of it. Whatever it comes from, a body of another length breaks
    /// off: the client would take what follows it for its end, or its end for what follows.
    pub fn new(content: Content, length: Option<u64>, observer: O) -> Self {
        Self { content, left: length, error: None, is_written: false, observer: Some(observer) }
    }

    /// One that nobody need be told of.
    pub fn empty() -> Self {
        Self {
            content: Content::Whole(Bytes::new()),
            left: None,
            error: None,
            is_written: false,
            observer: None,
        }
    }

    /// Breaks off, since there is more or less than the head says.
    fn misstated(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.end(End::Broken(&Error::Misstated));
        self.content = Content::Whole(Bytes::new());
        self.left = None;
        self.fail(Error::Misstated, cx)
    }

    /// Ends with an error, once what came before it has been written.
    fn fail(&mut self, error: Error, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_written {
            return Poll::Ready(Some(Err(error)));
        }
        self.error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, end: End<'_>) {
        if let Some(observer) = self.observer.take() {
            observer.ended(end);
        }
    }
}

impl<O: Observer> http_body::Body for ResponseBody<O> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.get_mut();
        if let Some(error) = body.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match Pin::new(&mut body.content).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                body.is_written = true;
                let stalled = body.observer.as_mut().map(|observer| observer.poll_stalled(cx));
                let Some(Poll::Ready(trailers)) = stalled else { return Poll::Pending };
                body.end(End::Stalled);
                // The upstream is told that it need not go on.
                body.content = Content::Whole(Bytes::new());
                body.left = None;
                return Poll::Ready(Some(trailers.map(Frame::trailers).ok_or(Error::Stalled)));
            }
        };
        match frame {
            Some(Ok(mut frame)) => {
                frame.trailers_mut().map(trailers::clean);
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(left) = &mut body.left {
                    match left.checked_sub(bytes as u64) {
                        Some(rest) => *left = rest,
                        None => return body.misstated(cx),
                    }
                }
                body.is_written = false;
                if let Some(observer) = &mut body.observer {
                    observer.passed(bytes);
                }
                // hyper does not come back for the end of a body that says it has ended.
                if http_body::Body::is_end_stream(body) {
                    body.end(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                body.end(End::Broken(&error));
                body.fail(error, cx)
            }
            None if body.left.is_some_and(|left| left > 0) => body.misstated(cx),
            None => {
                body.end(End::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream() && self.left.is_none_or(|left| left == 0) && self.error.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl<O: Observer> Drop for ResponseBody<O> {
    fn drop(&mut self) {
        let is_complete = http_body::Body::is_end_stream(self);
        self.end(if is_complete { End::Complete } else { End::Dropped });
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::VecDeque, rc::Rc, task::Waker};

    use http_body::Body;

    use super::*;

    /// Gives these pieces.
    #[derive(Debug)]
    struct Pieces(VecDeque<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.get_mut().0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// Notes how it ended.
    struct Noted(Rc<Cell<Option<bool>>>);

    impl Observer for Noted {
        fn passed(&mut self, _: usize) {}

        fn poll_stalled(&mut self, _: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
            Poll::Pending
        }

        fn ended(self, end: End<'_>) {
            self.0.set(Some(matches!(end, End::Complete)));
        }
    }

    /// What passes, whether it breaks off, and what is noted.
    fn pass(pieces: &[&'static str], length: Option<u64>) -> (String, bool, Option<bool>) {
        let end = Rc::new(Cell::new(None));
        let content = Content::Changed(Box::new(Pieces(pieces.iter().copied().collect())));
        let mut body = ResponseBody::new(content, length, Noted(end.clone()));
        let (mut passed, mut is_broken, mut is_written) = (String::new(), false, false);
        // As hyper does, which does not ask for what has said that it has ended.
        while !body.is_end_stream() && !is_broken {
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => {
                    passed.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
                    is_written = false;
                }
                Poll::Ready(Some(Err(_))) => {
                    assert!(is_written, "hyper drops what it has not had a turn to write");
                    is_broken = true;
                }
                Poll::Ready(None) => break,
                Poll::Pending => {
                    assert!(!is_written, "nothing is waited for");
                    is_written = true;
                }
            }
        }
        drop(body);
        (passed, is_broken, end.get())
    }

    #[test]
    fn a_body_of_another_length_than_its_head_says_breaks_off() {
        for (pieces, length, expected) in [
            (&["ab", "cd"][..], None, ("abcd", false, Some(true))),
            (&["ab", "cd"], Some(4), ("abcd", false, Some(true))),
            (&["ab", "cd"], Some(5), ("abcd", true, Some(false))),
            (&["ab", "cd"], Some(3), ("ab", true, Some(false))),
            (&["ab", "cd"], Some(2), ("ab", true, Some(false))),
            (&[], Some(1), ("", true, Some(false))),
            (&[], Some(0), ("", false, Some(true))),
        ] {
            let (passed, is_broken, end) = pass(pieces, length);
            assert_eq!((&passed[..], is_broken, end), expected, "{pieces:?} {length:?}");
        }
    }
}

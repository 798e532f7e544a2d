//! What if somebody wants to see it first?
//!
//! A body whose beginning has been read, up to a length or to its end. It goes on as it came: first what has been
//! read, then the rest, so that whoever read it has changed nothing but its time.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Error;

/// A body, as far as it has been read, and the rest of it.
#[derive(Debug)]
pub struct Begun<B> {
    read: Read,
    trailers: Option<HeaderMap>,
    /// What has not been read; none after its end.
    rest: Option<B>,
    /// Whether anything of it was waited for.
    was_asked: bool,
}

#[derive(Debug)]
enum Read {
    Pieces(BytesMut),
    /// All there was.
    Whole(Bytes),
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum Unread {
    /// It is longer than that.
    TooLarge,
    Broken(Error),
}

impl<B: Body<Data = Bytes> + Unpin> Begun<B>
where
    B::Error: Into<Error>,
{
    pub fn new(body: B) -> Self {
        Self { read: Read::Pieces(BytesMut::new()), trailers: None, rest: Some(body), was_asked: false }
    }

    /// Reads to the end, or until there are more than `most` bytes. What has been read stays, whatever comes of it,
    /// and so it does if this is not polled again.
    ///
    /// `says_end` is for bodies that tell when they have ended, so that one that gives nothing more and does not
    /// tell has been cut short.
    pub fn poll_whole(
        &mut self,
        most: usize,
        says_end: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Unread>> {
        while let Some(rest) = &mut self.rest {
            let Read::Pieces(pieces) = &mut self.read else { break };
            if pieces.len() > most || rest.size_hint().lower() > (most - pieces.len()) as u64 {
                return Poll::Ready(Err(Unread::TooLarge));
            }
            self.was_asked = true;
            match ready!(Pin::new(&mut *rest).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // The usual case: there is one piece, and no need to copy it.
                    Ok(data) if pieces.is_empty() && rest.is_end_stream() => {
                        self.read = Read::Whole(data);
                        self.rest = None;
                    }
                    Ok(data) => pieces.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Err(Unread::Broken(error.into()))),
                None if says_end && !rest.is_end_stream() => {
                    return Poll::Ready(Err(Unread::Broken(Error::CutShort)));
                }
                None => {
                    self.read = Read::Whole(std::mem::take(pieces).freeze());
                    self.rest = None;
                }
            }
        }
        let Read::Whole(whole) = &self.read else { return Poll::Ready(Ok(Bytes::new())) };
        Poll::Ready(if whole.len() > most { Err(Unread::TooLarge) } else { Ok(whole.clone()) })
    }

    /// Reads until something has come, and says whether that is the end: whether there is no content, nor anything
    /// behind it. `says_end` is as in [`Begun::poll_whole`].
    pub fn poll_empty(&mut self, says_end: bool, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        while let Some(rest) = &mut self.rest {
            let Read::Pieces(pieces) = &mut self.read else { break };
            if !pieces.is_empty() || self.trailers.is_some() {
                break;
            }
            self.was_asked = true;
            match ready!(Pin::new(&mut *rest).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => pieces.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None if says_end && !rest.is_end_stream() => return Poll::Ready(Err(Error::CutShort)),
                None => {
                    self.read = Read::Whole(Bytes::new());
                    self.rest = None;
                }
            }
        }
        Poll::Ready(Ok(self.read.len() == 0 && self.trailers.is_none()))
    }

    /// The whole, if all of it has been read and nothing follows but its end.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        match self {
            Self { read: Read::Whole(whole), trailers: None, rest: None, .. } => Ok(whole),
            other => Err(other),
        }
    }

    /// Whether its sender was asked for any of it: one that is too long by what its head says is not read at all.
    pub fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// Whether all of it has been read.
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Self::Pieces(pieces) => pieces.len(),
            Self::Whole(whole) => whole.len(),
        }
    }

    fn take(&mut self) -> Bytes {
        match self {
            Self::Pieces(pieces) => std::mem::take(pieces).freeze(),
            Self::Whole(whole) => std::mem::take(whole),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Begun<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { read, trailers, rest, .. } = self.get_mut();
        if read.len() > 0 {
            return Poll::Ready(Some(Ok(Frame::data(read.take()))));
        }
        if let Some(trailers) = trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(rest) = rest else { return Poll::Ready(None) };
        Pin::new(rest).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.read.len() == 0 && self.trailers.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(read + rest.lower());
        // What has a known length has no trailers, and nobody would ask for them (RFC 9112, section 7.1.2).
        if let Some(upper) = rest.upper().filter(|_| self.trailers.is_none()) {
            hint.set_upper(read + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use super::*;

    /// Gives these frames, and is pending in between.
    #[derive(Debug)]
    struct Frames(VecDeque<Option<Frame<Bytes>>>);

    impl Frames {
        fn new(frames: &[Option<&'static str>]) -> Self {
            let frame = |text: &Option<&'static str>| text.map(|text| Frame::data(Bytes::from(text)));
            Self(frames.iter().map(frame).collect())
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            match self.get_mut().0.pop_front() {
                Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn read(body: &mut Begun<Frames>, most: usize) -> Poll<Result<Bytes, Unread>> {
        body.poll_whole(most, true, &mut Context::from_waker(Waker::noop()))
    }

    /// All that comes, with pieces apart.
    fn passed(mut body: Begun<Frames>) -> Vec<String> {
        let mut passed = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(cx) {
            let frame = frame.expect("nothing breaks");
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => passed.push(String::from_utf8_lossy(data).into_owned()),
                (None, Some(trailers)) => passed.push(format!("{trailers:?}")),
                (None, None) => {}
            }
        }
        passed
    }

    #[test]
    fn what_was_read_goes_on_as_it_came() {
        let mut body = Begun::new(Frames::new(&[Some("ab"), None, Some("cd")]));
        assert!(read(&mut body, 4).is_pending());
        assert!(matches!(read(&mut body, 4), Poll::Ready(Ok(whole)) if whole == "abcd"));
        assert!(matches!(read(&mut body, 4), Poll::Ready(Ok(whole)) if whole == "abcd"), "and again");
        assert!(matches!(read(&mut body, 3), Poll::Ready(Err(Unread::TooLarge))));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        assert_eq!(passed(body), ["abcd"]);
    }

    #[test]
    fn what_is_too_long_goes_on_all_the_same() {
        let mut body = Begun::new(Frames::new(&[Some("ab"), Some("cd"), Some("ef")]));
        assert!(matches!(read(&mut body, 3), Poll::Ready(Err(Unread::TooLarge))));
        assert!(!body.is_whole());
        assert_eq!(passed(body), ["abcd", "ef"]);
    }

    #[test]
    fn what_was_not_waited_for_goes_on_all_the_same() {
        let mut body = Begun::new(Frames::new(&[Some("ab"), None, Some("cd")]));
        assert!(read(&mut body, 9).is_pending());
        assert_eq!(passed(body), ["ab", "cd"]);
    }

    #[test]
    fn trailers_stay_where_they_were() {
        let mut frames = Frames::new(&[Some("ab")]);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        frames.0.push_back(Some(Frame::trailers(trailers)));
        let mut body = Begun::new(frames);
        assert!(matches!(read(&mut body, 9), Poll::Ready(Ok(whole)) if whole == "ab"));
        let body = body.into_whole().expect_err("the trailers would be lost");
        assert_eq!(body.size_hint().exact(), None, "or nobody asks for them");
        assert_eq!(passed(body), ["ab", "{\"etag\": \"x\"}"]);
    }

    #[test]
    fn nothing_is_a_body_too() {
        let mut body = Begun::new(Frames::new(&[]));
        assert!(matches!(read(&mut body, 0), Poll::Ready(Ok(whole)) if whole.is_empty()));
        assert_eq!(body.into_whole().expect("there is nothing else"), "");
    }
}

//! What streams through all of this?
//!
//! Bodies pass in frames and are not collected, unless somebody asks to see one first ([`Begun`]). A request's body is counted against its cap and may be
//! held back until the upstream asks for it; a response's body tells an observer what becomes of it.

mod begun;
mod client;
mod response;
mod tape;
mod trailers;

pub use begun::{Begun, Unread};
pub use client::{ClientBody, Unwanted};
pub use response::{End, Observer, ResponseBody};

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tape::{Found, Reading, Tape};

use crate::{
    clock::{MinimumRate, Rate, Timer},
    field::Names,
};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body was given up")]
    Abandoned,
    #[error("the client took too long")]
    Silent,
    #[error("the body comes too slowly")]
    Slow,
    #[error("the body was cut short")]
    CutShort,
    #[error("the body is not as long as its head says")]
    Misstated,
    #[error("the body came to a standstill")]
    Stalled,
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// The other side was told a reason for it that is none of this side's business.
    #[error("the body broke off: {0}")]
    Reset(hyper::Error),
    #[error("the body could not be encoded or decoded")]
    Coding(#[from] std::io::Error),
    #[error("the body that was being stored broke off")]
    StoringBroke,
}

impl From<hyper::Error> for Error {
    /// hyper takes the reason for a reset of HTTP/2 from what stands at the source: that it was cancelled goes on, and
    /// everything else is an error of this proxy to the other side.
    fn from(error: hyper::Error) -> Self {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        match cause.and_then(h2::Error::reason) {
            None | Some(h2::Reason::CANCEL) => Self::Broken(error),
            Some(_) => Self::Reset(error),
        }
    }
}

/// Why the body of a request is given up; to an upstream of HTTP/2 it is cancelled.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct GivenUp {
    why: Error,
    source: h2::Error,
}

impl From<Error> for GivenUp {
    fn from(why: Error) -> Self {
        Self { why, source: h2::Reason::CANCEL.into() }
    }
}

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

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// The proxy's own.
    Whole(Bytes),
    Streaming(Streaming),
}

#[derive(Debug)]
pub struct Streaming {
    source: Source,
    upload: Rc<Upload>,
}

/// How long a client may be silent in the middle of a body, until the head of the response has come: from then on
/// it may be waiting for what it is told.
#[derive(Debug)]
pub struct Patience {
    pub timer: Timer,
    pub limit: Duration,
    /// How much has to come while it is waited for.
    pub rate: Rate,
    pub min_rate: RefCell<MinimumRate>,
}

#[derive(Debug)]
enum Source {
    Once(Arriving),
    /// Kept as it passes.
    Kept(Reading),
}

/// How far the body of a request has come, seen from the side of the response.
#[derive(Debug)]
pub struct Upload {
    /// Bytes that may still come.
    left: Cell<u64>,
    state: Cell<UploadState>,
    passed: Cell<u64>,
    /// The next of it has yet to come from the client.
    is_awaited: Cell<bool>,
    /// Its head says how long it is.
    has_length: bool,
    /// The head of the response has come.
    is_answered: Cell<bool>,
    /// Whoever waits for `state` to leave `Held`.
    waker: RefCell<Option<Waker>>,
    patience: Option<Patience>,
    /// Fields that are not the client's to send behind it.
    settled: Names,
    /// Of a body that is kept as it passes.
    tape: Option<Rc<RefCell<Tape>>>,
}

/// What may become of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Not to be read before the upstream asks (`Expect: 100-continue`).
    Held,
    Flowing,
    Complete,
    /// Larger than its cap.
    TooLarge,
    /// The client broke off, or kept the proxy waiting.
    Broken,
    /// The client kept the proxy waiting, and its connection is of use all the same.
    Silent,
    /// The client sent something now and then, and too little.
    Slow,
    /// The upstream did not want it.
    Abandoned,
}

impl RequestBody {
    /// A body of at most `cap` bytes, and the view on its progress. None for a body that is empty.
    ///
    /// Up to `kept` bytes are kept as they pass, for [`Upload::repeat`]. What comes behind it says nothing more of the
    /// fields that are `settled`.
    ///
    /// Without `patience` somebody else sees to it that the client is not silent for ever.
    pub fn new(
        incoming: Arriving,
        cap: u64,
        is_held: bool,
        kept: Option<usize>,
        settled: impl FnOnce() -> Names,
        patience: impl FnOnce() -> Option<Patience>,
    ) -> (Self, Option<Rc<Upload>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let has_length = incoming.size_hint().exact().is_some();
        let state = if is_held { UploadState::Held } else { UploadState::Flowing };
        let (source, tape) = match kept {
            None => (Source::Once(incoming), None),
            Some(room) => {
                let tape = Tape::new(incoming, room);
                (Source::Kept(Reading::begin(&tape)), Some(tape))
            }
        };
        let upload = Rc::new(Upload {
            left: Cell::new(cap),
            state: Cell::new(state),
            passed: Cell::new(0),
            is_awaited: Cell::new(false),
            has_length,
            is_answered: Cell::new(false),
            waker: RefCell::new(None),
            patience: patience(),
            settled: settled(),
            tape,
        });
        (Self::Streaming(Streaming { source, upload: upload.clone() }), Some(upload))
    }
}

impl Patience {
    /// Ready when the client has been waited for, and for too long.
    fn poll_over(&self, is_waited_for: bool, cx: &mut Context<'_>) -> Poll<()> {
        if !is_waited_for {
            self.timer.stop();
            return Poll::Pending;
        }
        self.min_rate.borrow_mut().wait(self.timer.clock());
        if !self.timer.is_running() {
            self.timer.start(self.limit);
        }
        self.timer.poll(cx)
    }

    /// Whether this much is enough for the time that it has taken.
    fn is_kept(&self, bytes: usize) -> bool {
        self.min_rate.borrow_mut().pass(bytes, self.rate, self.timer.clock())
    }
}

impl Upload {
    pub fn state(&self) -> UploadState {
        self.state.get()
    }

    /// Bytes that have passed so far.
    pub fn passed(&self) -> u64 {
        self.passed.get()
    }

    /// Whether it is the client that is waited for: whoever is to get the body has taken all that there was of it.
    pub fn is_awaited(&self) -> bool {
        self.is_awaited.get()
    }

    /// Whether there is more to come of it for certain, and the client is waited for. Without a length it may be a stream
    /// whose sender waits for an answer.
    pub fn is_owed(&self) -> bool {
        self.has_length && self.is_awaited()
    }

    /// Whether the upstream connection can be used again as far as this body is concerned.
    pub fn is_complete(&self) -> bool {
        self.state.get() == UploadState::Complete
    }

    /// The head of the response has come, and the body will not be sent again.
    pub fn set_answered(&self) {
        self.is_answered.set(true);
        if let Some(tape) = &self.tape {
            tape.borrow_mut().release(self.is_complete());
        }
    }

    /// Whether [`Upload::repeat`] can give the body once more.
    pub fn is_repeatable(&self) -> bool {
        self.tape.as_ref().is_some_and(|tape| tape.borrow().is_whole())
    }

    /// The body once more, from its beginning; whoever reads it now gets no more of it. None if it was not kept,
    /// or not all of it.
    pub fn repeat(self: &Rc<Self>) -> Option<RequestBody> {
        let tape = self.tape.as_ref().filter(|_| self.is_repeatable())?;
        let source = Source::Kept(Reading::begin(tape));
        self.is_answered.set(false);
        if self.state.get() == UploadState::Complete {
            self.state.set(UploadState::Flowing);
        }
        Some(RequestBody::Streaming(Streaming { source, upload: self.clone() }))
    }

    /// Lets a body that was held back flow.
    pub fn release(&self) {
        self.leave_held(UploadState::Flowing);
    }

    /// Ends a body that was held back and that nobody asked for.
    pub fn abandon(&self) {
        self.leave_held(UploadState::Abandoned);
    }

    fn leave_held(&self, state: UploadState) {
        if self.state.get() == UploadState::Held {
            self.state.set(state);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn account(&self, bytes: usize) -> Result<(), Error> {
        if let Some(patience) = &self.patience {
            if self.is_answered.get() {
                patience.min_rate.take();
            } else if !patience.is_kept(bytes) {
                self.state.set(UploadState::Slow);
                return Err(Error::Slow);
            }
        }
        let bytes = bytes as u64;
        self.passed.set(self.passed.get() + bytes);
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.state.set(UploadState::TooLarge);
                Err(Error::TooLarge)
            }
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        let Streaming { source, upload } = match self.get_mut() {
            Self::Streaming(streaming) => streaming,
            Self::Whole(content) if !content.is_empty() => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(content)))));
            }
            Self::Empty | Self::Whole(_) => return Poll::Ready(None),
        };
        match upload.state.get() {
            UploadState::Held => {
                *upload.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            UploadState::Abandoned => return Poll::Ready(Some(Err(Error::Abandoned.into()))),
            _ => {}
        }
        let polled = source.poll_frame(cx);
        upload.is_awaited.set(polled.is_pending());
        if let Some(patience) = &upload.patience
            && patience.poll_over(polled.is_pending() && !upload.is_answered.get(), cx).is_ready()
        {
            upload.state.set(UploadState::Silent);
            return Poll::Ready(Some(Err(Error::Silent.into())));
        }
        Poll::Ready(match std::task::ready!(polled) {
            Some(Ok(found)) => {
                let (mut frame, accounted) = match found {
                    Found::New(frame) => {
                        let accounted = upload.account(frame.data_ref().map_or(0, Bytes::len));
                        (frame, accounted)
                    }
                    Found::Again(frame) => (frame, Ok(())),
                };
                if accounted.is_ok() && source.is_end_stream() {
                    upload.state.set(UploadState::Complete);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean_request(trailers, &upload.settled);
                }
                Some(accounted.map(|()| frame).map_err(GivenUp::from))
            }
            // Somebody else reads it now, and the state is theirs.
            Some(Err(Error::Abandoned)) => Some(Err(Error::Abandoned.into())),
            Some(Err(error)) => {
                upload.state.set(UploadState::Broken);
                Some(Err(error.into()))
            }
            // hyper takes a reset without an error for an end. From a server it may be one (RFC 9113, section 8.1).
            None if upload.patience.is_some() && source.is_cut_short() => {
                upload.state.set(UploadState::Broken);
                Some(Err(Error::CutShort.into()))
            }
            None => {
                upload.state.set(UploadState::Complete);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(content) => content.is_empty(),
            Self::Streaming(body) => body.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(content) => SizeHint::with_exact(content.len() as u64),
            Self::Streaming(body) => match &body.source {
                Source::Once(incoming) => incoming.size_hint(),
                Source::Kept(reading) => reading.size_hint(),
            },
        }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Found, Error>>> {
        match self {
            Self::Once(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map(Found::New)))
            }
            Self::Kept(reading) => reading.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(incoming) => incoming.is_end_stream(),
            Self::Kept(reading) => reading.is_at_end(),
        }
    }

    /// Whether a body of HTTP/2 that gives nothing more has not come to its end.
    fn is_cut_short(&self) -> bool {
        match self {
            Self::Once(incoming) => !incoming.is_end_stream(),
            Self::Kept(reading) => reading.is_cut_short(),
        }
    }
}

/// What a response carries.
#[derive(Debug)]
pub enum Content {
    /// Empty when it has gone.
    Whole(Bytes),
    Streaming(Incoming),
    Pieces(Pieces),
    /// Another, that becomes this on its way.
    Changed(Box<dyn Change>),
}

/// Pieces that somebody else keeps, from one byte of them to another. None of them is copied.
#[derive(Debug)]
pub struct Pieces {
    pieces: Arc<[Bytes]>,
    /// The piece that goes next.
    index: usize,
    /// Bytes of it that do not go.
    skipped: usize,
    left: u64,
}

impl Pieces {
    /// From the first byte named to before the second, which is not beyond the end.
    pub fn part(pieces: Arc<[Bytes]>, from: u64, to: u64) -> Self {
        let (mut index, mut skipped) = (0, from);
        while let Some(length) =
            pieces.get(index).map(|piece| piece.len() as u64).filter(|length| skipped >= *length)
        {
            skipped -= length;
            index += 1;
        }
        Self { pieces, index, skipped: skipped as usize, left: to.saturating_sub(from) }
    }

    /// Whether they are of these, from the first byte on.
    pub fn begin(&self, pieces: &Arc<[Bytes]>) -> bool {
        Arc::ptr_eq(&self.pieces, pieces) && self.index == 0 && self.skipped == 0
    }

    /// Bytes that are still to go.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.index).filter(|_| self.left > 0)?;
        let end = piece.len().min(self.skipped + usize::try_from(self.left).unwrap_or(usize::MAX));
        let piece = piece.slice(self.skipped..end);
        self.index += 1;
        self.skipped = 0;
        self.left -= piece.len() as u64;
        Some(piece)
    }
}

/// A body that is made of another.
pub trait Change: http_body::Body<Data = Bytes, Error = Error> + Unpin + std::fmt::Debug {}

impl<B: http_body::Body<Data = Bytes, Error = Error> + Unpin + std::fmt::Debug> Change for B {}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streaming(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Error::from)))
            }
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Changed(change) => Pin::new(change).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streaming(incoming) => incoming.is_end_stream(),
            Self::Pieces(pieces) => pieces.left == 0,
            Self::Changed(change) => change.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streaming(incoming) => incoming.size_hint(),
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.left),
            Self::Changed(change) => change.size_hint(),
        }
    }
}

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

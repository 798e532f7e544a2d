//! How does the body of a request go to the upstream, and how far has it come?
//!
//! It is counted against its cap, may be held back until the upstream asks for it, and is kept as it passes if it may
//! have to be sent again.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{
    Arriving, Error, GivenUp,
    tape::{Found, Reading, Tape},
    trailers,
};
use crate::{
    clock::{MinimumRate, Rate, Timer},
    field::Names,
};

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

//! What does an endpoint say over HTTP/2 that h2 takes for something else, or lets pass?
//!
//! Between the socket and hyper, which follows the frames of a connection.
//!
//! - RST_STREAM with NO_ERROR is the end of a response only behind one that has ended (RFC 9113, section 8.1): a server
//!   says with it that it does not want the rest of the request. hyper takes it for the end of a response wherever it
//!   comes, so that one that broke off would look finished. Where the response has not ended, the code becomes
//!   INTERNAL_ERROR before hyper sees it. The same holds for GOAWAY with NO_ERROR that leaves out a stream whose
//!   response has begun.
//! - A server that offers push has not understood its part (section 6.5.2).

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, ReadBuf};

use super::connections::EndpointStream;
use crate::{
    clock::{Clock, Tick},
    frames::{Frames, Kind, PREFACE, Part},
};

/// SentHead to read into, one for all connections of a worker.
pub(super) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// The size of a worker's [`Scratch`]: a frame, and its header.
const SCRATCH: usize = 32 << 10;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u8 = 2;

pub(super) fn scratch() -> Scratch {
    Rc::new(vec![0; SCRATCH].into_boxed_slice().into())
}

/// A connection to an endpoint on which HTTP/2 is spoken.
pub(super) struct Line {
    stream: TokioIo<EndpointStream>,
    scratch: Scratch,
    heard: Heard,
    watch: Watch,
}

/// When something has last come from an endpoint.
pub(super) type Heard = Rc<Cell<Tick>>;

impl Line {
    pub fn new(stream: EndpointStream, scratch: Scratch, heard: Heard, clock: Clock) -> Self {
        Self { stream: TokioIo::new(stream), scratch, heard, watch: Watch::new(clock) }
    }
}

/// What is known of a connection by its frames.
pub struct Watch {
    clock: Clock,
    incoming: Frames,
    outgoing: Frames,
    /// Bytes of the preface that have still to be written.
    preface: usize,
    /// Streams whose response has not ended, and whether it has begun. None that this side has reset, of which more may come.
    open: FxHashMap<u32, bool>,
    /// The last stream that this side has opened.
    newest: u32,
    settings: Settings,
}

impl Watch {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            incoming: Frames::default(),
            outgoing: Frames::default(),
            preface: PREFACE.len(),
            open: FxHashMap::default(),
            newest: 0,
            settings: Settings::default(),
        }
    }

    /// Follows what has come, and changes what hyper would take for something else.
    pub fn came(&mut self, bytes: &mut [u8]) -> Result<(), &'static str> {
        let Self { incoming, open, settings, .. } = self;
        // Where a code has to become another: its last byte is among those that have just come.
        let mut changed = SmallVec::<[usize; 4]>::new();
        incoming.follow_whole(bytes, |part| match part {
            Part::Frame { frame, passed } => match frame.kind {
                // h2 ends the connection at it. What it has for a code does not end where its beginning does.
                _ if frame.is_of_wrong_size() => {}
                Kind::Headers | Kind::Data if frame.ends_stream() => drop(open.remove(&frame.stream)),
                Kind::Headers => {
                    if let Some(has_begun) = open.get_mut(&frame.stream) {
                        *has_begun = true;
                    }
                }
                Kind::Reset if open.remove(&frame.stream) == Some(true) && frame.error_code() == NO_ERROR => {
                    changed.push(passed - 1);
                }
                Kind::GoAway
                    if frame.error_code() == NO_ERROR
                        && open
                            .iter()
                            .any(|(stream, has_begun)| *has_begun && *stream > frame.last_stream()) =>
                {
                    changed.push(passed - 1);
                }
                Kind::Settings => settings.begin(frame.opening()),
                Kind::Reset
                | Kind::Data
                | Kind::Priority
                | Kind::PushPromise
                | Kind::Ping
                | Kind::GoAway
                | Kind::WindowUpdate
                | Kind::Continuation
                | Kind::Other => {}
            },
            Part::Payload { kind: Kind::Settings, bytes } => settings.read(bytes),
            Part::Payload { .. } => {}
        });
        for index in changed {
            bytes[index] = INTERNAL_ERROR;
        }
        if settings.offers_push { Err("the endpoint offers push, which is not for servers") } else { Ok(()) }
    }

    /// Follows the first `written` bytes of these: which streams this side opens, and which it resets.
    pub fn went(&mut self, pieces: &[IoSlice<'_>], mut written: usize) {
        let Self { outgoing, open, newest, preface, .. } = self;
        for piece in pieces {
            let went = &piece[..piece.len().min(written)];
            written -= went.len();
            let skipped = went.len().min(*preface);
            *preface -= skipped;
            outgoing.follow(&went[skipped..], |frame| match frame.kind {
                // Others are trailers.
                Kind::Headers if frame.stream > *newest => {
                    *newest = frame.stream;
                    open.insert(frame.stream, false);
                }
                Kind::Reset => drop(open.remove(&frame.stream)),
                Kind::Headers
                | Kind::Data
                | Kind::Priority
                | Kind::Settings
                | Kind::PushPromise
                | Kind::Ping
                | Kind::GoAway
                | Kind::WindowUpdate
                | Kind::Continuation
                | Kind::Other => {}
            });
        }
    }
}

/// Reads the settings of an endpoint.
#[derive(Default)]
struct Settings {
    /// A setting that has not come whole.
    begun: SmallVec<[u8; 16]>,
    offers_push: bool,
}

impl Settings {
    /// Reads those of another frame.
    fn begin(&mut self, opening: &[u8]) {
        self.begun.clear();
        self.read(opening);
    }

    fn read(&mut self, bytes: &[u8]) {
        /// Of one setting: what it is, and its value (RFC 9113, section 6.5.1).
        const LENGTH: usize = 6;
        const ENABLE_PUSH: [u8; LENGTH] = [0, 2, 0, 0, 0, 1];
        for byte in bytes {
            self.begun.push(*byte);
            if self.begun.len() == LENGTH {
                self.offers_push |= self.begun[..] == ENABLE_PUSH;
                self.begun.clear();
            }
        }
    }
}

impl Read for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, scratch, heard, watch, .. } = self.get_mut();
        let mut scratch = scratch.borrow_mut();
        let size = scratch.len().min(buffer.remaining());
        let mut came = ReadBuf::new(&mut scratch[..size]);
        ready!(Pin::new(stream.inner_mut()).poll_read(cx, &mut came))?;
        heard.set(watch.clock.now());
        let came = came.filled_mut();
        watch.came(came).map_err(io::Error::other)?;
        buffer.put_slice(came);
        Poll::Ready(Ok(()))
    }
}

impl Write for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, watch, .. } = self.get_mut();
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, pieces))?;
        watch.went(pieces, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        frame
    }

    /// What hyper gets of these frames, in pieces of this size.
    fn passed(watch: &mut Watch, frames: &[Vec<u8>], size: usize) -> Result<Vec<u8>, &'static str> {
        let mut all = frames.concat();
        all.chunks_mut(size).try_for_each(|piece| watch.came(piece)).map(|()| all)
    }

    /// Streams 1 and 3 have been opened.
    fn watch() -> Watch {
        let mut watch = Watch::new(Clock::default());
        let went =
            [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 4, 1, b"head"), &frame(1, 5, 3, b"head")].concat();
        watch.went(&[IoSlice::new(&went)], went.len());
        watch
    }

    #[test]
    fn only_a_response_that_has_ended_is_reset_without_an_error() {
        let reset = |stream, code| frame(3, 0, stream, &[0, 0, 0, code]);
        let go_away = |last, code| frame(7, 0, 0, &[0, 0, 0, last, 0, 0, 0, code]);
        let cases = [
            (
                "in mid-response",
                vec![frame(1, 4, 1, b"head"), frame(0, 0, 1, b"data"), reset(1, 0)],
                INTERNAL_ERROR,
            ),
            ("behind an interim response", vec![frame(1, 4, 1, b"103"), reset(1, 0)], INTERNAL_ERROR),
            ("behind its last data", vec![frame(1, 4, 1, b"head"), frame(0, 1, 1, b""), reset(1, 0)], 0),
            ("behind its trailers", vec![frame(1, 4, 1, b"head"), frame(1, 5, 1, b"x"), reset(1, 0)], 0),
            ("behind a head that is all", vec![frame(1, 5, 1, b"head"), reset(1, 0)], 0),
            ("of another stream", vec![frame(1, 4, 1, b"head"), frame(1, 5, 3, b"x"), reset(3, 0)], 0),
            ("with an error", vec![frame(1, 4, 1, b"head"), reset(1, 8)], 8),
            ("GOAWAY that leaves it out", vec![frame(1, 4, 3, b"head"), go_away(1, 0)], INTERNAL_ERROR),
            ("GOAWAY that does not", vec![frame(1, 4, 3, b"head"), go_away(3, 0)], 0),
            ("RST_STREAM that is too long", vec![frame(1, 4, 1, b"head"), frame(3, 0, 1, &[0; 5])], 0),
            ("GOAWAY that is too short", vec![frame(1, 4, 3, b"head"), frame(7, 0, 0, &[0, 0, 0, 1])], 1),
            ("GOAWAY with an error", vec![frame(1, 4, 3, b"head"), go_away(1, 11)], 11),
        ];
        for (name, frames, expected) in cases {
            for size in [1, 3, 9, 13, 1000] {
                let got = passed(&mut watch(), &frames, size).unwrap();
                assert_eq!(got.last(), Some(&expected), "{name}, in pieces of {size}");
                assert_eq!(got[..got.len() - 1], frames.concat()[..got.len() - 1], "nothing else changes");
            }
        }
    }

    #[test]
    fn what_this_side_has_reset_is_not_remembered() {
        let mut watch = watch();
        passed(&mut watch, &[frame(1, 4, 1, b"head"), frame(1, 4, 3, b"head")], 5).unwrap();
        // Its trailers open nothing, nor does what comes for it later.
        let went = [frame(0, 0, 1, b"data"), frame(3, 0, 1, &[0, 0, 0, 8]), frame(1, 5, 3, b"x")].concat();
        for pieces in went.chunks(7) {
            watch.went(&[IoSlice::new(&pieces[..1]), IoSlice::new(&pieces[1..])], pieces.len());
        }
        passed(&mut watch, &[frame(1, 4, 1, b"late"), frame(1, 5, 3, b"end")], 5).unwrap();
        assert!(watch.open.is_empty());
    }

    #[test]
    fn a_server_does_not_offer_push() {
        let setting = |name: u8, value: u8| [0, name, 0, 0, 0, value];
        for (settings, is_refused) in [
            (vec![], false),
            (vec![setting(2, 0)], false),
            (vec![setting(2, 1)], true),
            (vec![setting(3, 100), setting(4, 9), setting(2, 1)], true),
            (vec![setting(3, 1), setting(2, 0), setting(1, 2)], false),
        ] {
            for size in [1, 4, 11, 100] {
                let frames = [frame(4, 0, 0, &settings.concat()), frame(6, 0, 0, &[0; 8])];
                let got = passed(&mut Watch::new(Clock::default()), &frames, size);
                assert_eq!(got.is_err(), is_refused, "{settings:?}, in pieces of {size}");
            }
        }
    }
}

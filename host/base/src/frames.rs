//! What do the frames of HTTP/2 say, and are there too many that say nothing?
//!
//! Frames are followed through bytes that come in any pieces (RFC 9113, section 4.1); what they mean is for hyper.
//! A client that sends control frames without end costs the proxy work and gives it none to do: each is paid
//! for from an [`Allowance`], which what is answered refills.

use crate::clock::{Clock, Tick};

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    flags: u8,
    pub stream: u32,
    /// Of the payload.
    length: usize,
    /// The first bytes of the payload; zeros where it has fewer.
    payload: [u8; 8],
}

/// Why a connection ends (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    ProtocolError = 1,
    FrameSizeError = 6,
    EnhanceYourCalm = 11,
}

/// What a frame is for (RFC 9113, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Other,
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }
}

impl Frame {
    /// The first bytes of the payload, up to eight.
    pub fn opening(&self) -> &[u8] {
        &self.payload[..self.length.min(self.payload.len())]
    }

    /// Whether it is an answer to one of the same kind.
    fn is_acknowledgement(&self) -> bool {
        matches!(self.kind, Kind::Settings | Kind::Ping) && self.flags & 1 != 0
    }

    fn ends_headers(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation) && self.flags & 4 != 0
    }

    /// The code of an error (sections 6.4 and 6.8).
    pub fn error_code(&self) -> u32 {
        let [a, b, c, d, last @ ..] = self.payload;
        u32::from_be_bytes(if self.kind == Kind::GoAway { last } else { [a, b, c, d] })
    }

    /// The last stream that whoever goes away has looked at (section 6.8).
    pub fn last_stream(&self) -> u32 {
        let [a, b, c, d, ..] = self.payload;
        u32::from_be_bytes([a & 0x7f, b, c, d])
    }

    /// Whether these fields are the last of their stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Data) && self.flags & 1 != 0
    }

    /// Whether it belongs to fields that an earlier one has begun.
    pub fn continues_head(&self) -> bool {
        self.kind == Kind::Continuation
    }

    /// Whether the payload has a length that frames of its kind never have (sections 6.3 to 6.9). h2 refuses these, too, with
    /// a code that says less.
    pub fn is_of_wrong_size(&self) -> bool {
        match self.kind {
            Kind::Priority => self.length != 5,
            Kind::Reset | Kind::WindowUpdate => self.length != 4,
            Kind::Settings if self.is_acknowledgement() => self.length != 0,
            Kind::Settings => !self.length.is_multiple_of(6),
            Kind::Ping => self.length != 8,
            Kind::GoAway => self.length < 8,
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::Other => false,
        }
    }

    /// Whether a client may begin with it: SETTINGS of its own (section 3.4).
    pub fn may_be_first(&self) -> bool {
        self.kind == Kind::Settings && !self.is_acknowledgement()
    }

    /// GOAWAY (section 6.8). `last` is a stream that may have been answered.
    pub fn go_away(last: u32, code: Code) -> [u8; 17] {
        let [a, b, c, d] = last.to_be_bytes();
        [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, code as u8]
    }
}

/// A part of what has come.
#[derive(Debug)]
pub enum Part<'a> {
    /// The header of a frame, and the first eight bytes of its payload or all of it. Of the bytes that have just come, so
    /// many had passed by then.
    Frame { frame: Frame, passed: usize },
    /// Of the payload of a frame of this kind, what comes behind those.
    Payload { kind: Kind, bytes: &'a [u8] },
}

/// What HTTP/2 begins with (section 3.4). No request of HTTP/1 does.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    /// The header of a frame and the first bytes of its payload, as far as they have come.
    opening: [u8; HEADER + 8],
    seen: usize,
    /// Bytes of the payload that come after those.
    left: usize,
    /// What the frame is that is not at its end.
    open: Option<Kind>,
    /// The fields of a message have begun and not ended.
    is_inside_head: bool,
    /// The last stream that fields were for.
    last_stream: u32,
}

/// Length, kind, flags and stream.
const HEADER: usize = 9;

impl Frames {
    /// Follows these bytes, and tells of each frame once its beginning is there.
    pub fn follow(&mut self, bytes: &[u8], mut each: impl FnMut(Frame)) {
        self.follow_whole(bytes, |part| {
            if let Part::Frame { frame, .. } = part {
                each(frame);
            }
        });
    }

    /// The same, with what comes of each frame behind its beginning.
    pub fn follow_whole<'a>(&mut self, all: &'a [u8], mut each: impl FnMut(Part<'a>)) {
        let mut bytes = all;
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                if let Some(kind) = self.open {
                    each(Part::Payload { kind, bytes: &bytes[..passed] });
                }
                bytes = &bytes[passed..];
            } else {
                let passed = (self.wanted() - self.seen).min(bytes.len());
                self.opening[self.seen..self.seen + passed].copy_from_slice(&bytes[..passed]);
                self.seen += passed;
                bytes = &bytes[passed..];
                if self.seen < HEADER || self.seen < self.wanted() {
                    continue;
                }
                let frame = self.frame();
                self.left = self.length() - (self.seen - HEADER);
                self.seen = 0;
                self.open = Some(frame.kind);
                if matches!(frame.kind, Kind::Headers | Kind::Continuation) {
                    self.is_inside_head = !frame.ends_headers();
                    self.last_stream = self.last_stream.max(frame.stream);
                }
                each(Part::Frame { frame, passed: all.len() - bytes.len() });
            }
            if self.left == 0 && self.seen == 0 {
                self.open = None;
            }
        }
    }

    pub fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    /// Whether something has begun that nobody can make use of before it has come whole. A body is not
    /// counted: it has a time-out of its own.
    pub fn is_inside(&self) -> bool {
        self.is_inside_head || self.seen > 0 || self.open.is_some_and(|kind| kind != Kind::Data)
    }

    /// How much of a frame is looked at; known once its header is there.
    fn wanted(&self) -> usize {
        if self.seen < HEADER { HEADER } else { HEADER + self.length().min(8) }
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.opening;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn frame(&self) -> Frame {
        let mut payload = [0; 8];
        let there = self.seen - HEADER;
        payload[..there].copy_from_slice(&self.opening[HEADER..self.seen]);
        let [_, _, _, kind, flags, a, b, c, d, ..] = self.opening;
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        Frame { kind: Kind::from(kind), flags, stream, length: self.length(), payload }
    }
}

/// How many control frames a client may still send.
#[derive(Debug)]
pub struct Allowance {
    left: u32,
    since: Tick,
}

impl Allowance {
    /// At once.
    const MOST: u32 = 2000;
    /// Each second, whatever else happens.
    const EACH_SECOND: u32 = 200;
    /// For each frame with which something is answered: what a client says to it is to open windows, to measure
    /// the way by a ping, and to order its requests.
    const FOR_AN_ANSWER: u32 = 4;

    pub fn new(clock: &Clock) -> Self {
        Self { left: Self::MOST, since: clock.now() }
    }

    /// A frame has come. False if it is one too many.
    ///
    /// What h2 bounds by itself is not counted: frames of data, and those that continue a head.
    pub fn take(&mut self, frame: Frame, clock: &Clock) -> bool {
        let is_counted = match frame.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => false,
            Kind::Settings | Kind::Ping => !frame.is_acknowledgement(),
            Kind::Priority
            | Kind::Reset
            | Kind::PushPromise
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Other => true,
        };
        if !is_counted {
            return true;
        }
        if self.left == 0 {
            self.refill(clock);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// A frame has been sent.
    pub fn answered(&mut self, frame: Frame) {
        if matches!(frame.kind, Kind::Data | Kind::Headers) {
            self.left = (self.left + Self::FOR_AN_ANSWER).min(Self::MOST);
        }
    }

    /// Looks at the clock only when there is nothing left.
    fn refill(&mut self, clock: &Clock) {
        let gained = clock.since(self.since).as_millis() * u128::from(Self::EACH_SECOND) / 1000;
        self.left = u32::try_from(gained).unwrap_or(Self::MOST).min(Self::MOST);
        self.since = clock.now();
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

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut() {
        let all = [
            frame(4, 0, 0, &[]),
            frame(1, 0, 1, &[7; 20]),
            frame(9, 4, 1, &[7; 3]),
            frame(0, 1, 1, &[0; 100]),
            frame(6, 1, 0, &[1, 2, 3, 4, 5, 6, 7, 8]),
            frame(0xfa, 0, 0, &[1]),
        ]
        .concat();
        for size in [1, 2, 5, 9, 17, 60, all.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in all.chunks(size) {
                frames.follow(piece, |frame| seen.push(frame));
            }
            let kinds: Vec<_> = seen.iter().map(|frame| frame.kind).collect();
            let expected =
                [Kind::Settings, Kind::Headers, Kind::Continuation, Kind::Data, Kind::Ping, Kind::Other];
            assert_eq!(kinds, expected, "in pieces of {size}");
            assert!(seen[4].is_acknowledgement());
            assert!(frames.is_between() && !frames.is_inside());
            assert_eq!(frames.last_stream(), 1);
        }
    }

    #[test]
    fn what_has_begun_is_known_until_it_has_ended() {
        let head = frame(1, 0, 1, &[7; 20]);
        let rest = frame(9, 4, 1, &[7; 3]);
        let data = frame(0, 0, 1, &[0; 50]);
        let all = [head, rest, data].concat();
        let mut frames = Frames::default();
        for (index, byte) in all.iter().enumerate() {
            frames.follow(&[*byte], |_| {});
            let is_inside_head = index + 1 < 29 + 12;
            let is_inside_header = (29 + 12..29 + 12 + 9 + 8 - 1).contains(&index);
            assert_eq!(frames.is_inside(), is_inside_head || is_inside_header, "after byte {index}");
        }
    }

    #[test]
    fn frames_of_one_length_only_have_that() {
        for (kind, flags, length, is_wrong) in [
            (Kind::Priority, 0, 5, false),
            (Kind::Priority, 0, 4, true),
            (Kind::Reset, 0, 4, false),
            (Kind::Reset, 0, 5, true),
            (Kind::Settings, 0, 0, false),
            (Kind::Settings, 0, 12, false),
            (Kind::Settings, 0, 7, true),
            (Kind::Settings, 1, 0, false),
            (Kind::Settings, 1, 6, true),
            (Kind::Ping, 0, 8, false),
            (Kind::Ping, 1, 7, true),
            (Kind::GoAway, 0, 8, false),
            (Kind::GoAway, 0, 7, true),
            (Kind::WindowUpdate, 0, 4, false),
            (Kind::WindowUpdate, 0, 3, true),
            (Kind::Data, 0, 3, false),
            (Kind::Other, 0, 3, false),
        ] {
            let frame = Frame { kind, flags, stream: 0, length, payload: [0; 8] };
            assert_eq!(frame.is_of_wrong_size(), is_wrong, "{frame:?}");
        }
    }

    #[test]
    fn control_frames_are_paid_for_and_answers_refill() {
        let clock = Clock::default();
        let mut allowance = Allowance::new(&clock);
        let of = |kind, flags| Frame { kind, flags, stream: 0, length: 8, payload: [0; 8] };
        for _ in 0..10 * Allowance::MOST {
            assert!(allowance.take(of(Kind::Data, 0), &clock) && allowance.take(of(Kind::Ping, 1), &clock));
        }
        for _ in 0..Allowance::MOST {
            assert!(allowance.take(of(Kind::Ping, 0), &clock));
        }
        assert!(!allowance.take(of(Kind::Ping, 0), &clock));
        allowance.answered(of(Kind::Headers, 0));
        for _ in 0..Allowance::FOR_AN_ANSWER {
            assert!(allowance.take(of(Kind::WindowUpdate, 0), &clock));
        }
        assert!(!allowance.take(of(Kind::WindowUpdate, 0), &clock));
    }
}

//! It does not matter how the bytes of an HTTP/2 connection are cut: the same frames are seen in them, as a reader sees
//! them that has all of it, and of what an endpoint sends nothing changes but codes of errors that are none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::fuzzing::{Allowance, EndpointFrames, Frame, Frames, Part};

const HEADER: usize = 9;
/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const OTHER: u8 = 10;

/// A frame as RFC 9113, section 4.1, has it, as far as it has come.
struct Whole<'a> {
    start: usize,
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Whole<'_> {
    /// Where it is told of.
    fn told(&self) -> usize {
        self.start + HEADER + self.length.min(8)
    }

    fn end(&self) -> usize {
        self.start + HEADER + self.length
    }

    fn is_acknowledgement(&self) -> bool {
        matches!(self.kind, SETTINGS | PING) && self.flags & 1 != 0
    }

    /// Whether its length is one that frames of its type have (sections 6.3 to 6.9).
    fn is_of_right_size(&self) -> bool {
        match self.kind {
            PRIORITY => self.length == 5,
            RESET | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.is_acknowledgement() => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GO_AWAY => self.length >= 8,
            _ => true,
        }
    }

    /// Where the code of an error stands in its payload, if it has one.
    fn code(&self) -> Option<usize> {
        match self.kind {
            RESET if self.is_of_right_size() => Some(0),
            GO_AWAY if self.is_of_right_size() => Some(4),
            _ => None,
        }
    }

    fn number(&self, place: usize) -> u32 {
        let byte = |place| u32::from(self.payload.get(place).copied().unwrap_or(0));
        (place..place + 4).fold(0, |number, place| number << 8 | byte(place))
    }
}

/// What is known once so many bytes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    is_between: bool,
    is_inside: bool,
    last_stream: u32,
}

// The first byte says how the others are cut.
fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let wholes = split(bytes);
    let states = states(&wholes, bytes.len());
    let sizes = [usize::from(cut & 15) + 1, usize::from(cut >> 4) + 1];
    follow(bytes, sizes, &wholes, &states);
    follow(bytes, [1, 1], &wholes, &states);
    let seen = follow(bytes, [usize::MAX; 2], &wholes, &states);
    budget(&seen);
    endpoint(bytes, sizes, &wholes);
});

fn split(bytes: &[u8]) -> Vec<Whole<'_>> {
    let (mut wholes, mut start) = (Vec::new(), 0);
    while let Some([a, b, c, kind, flags, d, e, f, g]) = bytes.get(start..start + HEADER) {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let stream = u32::from_be_bytes([*d, *e, *f, *g]) & u32::MAX >> 1;
        let payload = &bytes[start + HEADER..(start + HEADER + length).min(bytes.len())];
        wholes.push(Whole { start, length, kind: (*kind).min(OTHER), flags: *flags, stream, payload });
        start += HEADER + length;
    }
    wholes
}

/// By how many bytes have come.
fn states(wholes: &[Whole<'_>], length: usize) -> Vec<State> {
    let (mut states, mut is_inside_head, mut last_stream) = (Vec::new(), false, 0);
    let mut current = 0;
    for come in 0..=length {
        // A header that has not come whole belongs to no frame yet.
        let start = wholes.get(current).map(|whole| whole.start);
        let start = start.or_else(|| wholes.last().map(Whole::end)).unwrap_or(0);
        if let Some(whole) = wholes.get(current)
            && come == whole.told()
            && matches!(whole.kind, HEADERS | CONTINUATION)
        {
            is_inside_head = whole.flags & 4 == 0;
            last_stream = last_stream.max(whole.stream);
        }
        let is_at_end = wholes.get(current).is_some_and(|whole| come == whole.end());
        let is_between = is_at_end || come == start;
        let is_data = wholes.get(current).is_some_and(|whole| whole.kind == DATA && come >= whole.told());
        let is_inside = is_inside_head || (!is_between && !is_data);
        states.push(State { is_between, is_inside, last_stream });
        current += usize::from(is_at_end);
    }
    states
}

/// Follows the bytes in pieces of these sizes in turn, and compares what is seen with what is there.
fn follow(bytes: &[u8], sizes: [usize; 2], wholes: &[Whole<'_>], states: &[State]) -> Vec<Frame> {
    let mut frames = Frames::default();
    let (mut seen, mut rest) = (Vec::new(), Vec::new());
    let mut come = 0_usize;
    for size in sizes.into_iter().cycle() {
        let piece = &bytes[come..come.saturating_add(size).min(bytes.len())];
        frames.follow(piece, |part| match part {
            Part::Frame { frame, passed } => {
                let whole = &wholes[seen.len()];
                assert_eq!(come + passed, whole.told(), "{frame:?} in {bytes:?}");
                compare(frame, whole);
                seen.push(frame);
                rest.push(Vec::new());
            }
            Part::Payload { kind, bytes } => {
                assert_eq!(seen.last().map(Frame::kind), Some(kind));
                assert!(!bytes.is_empty());
                rest.last_mut().expect("a frame has begun").extend_from_slice(bytes);
            }
        });
        come += piece.len();
        let state = State {
            is_between: frames.is_between(),
            is_inside: frames.is_inside(),
            last_stream: frames.last_stream(),
        };
        assert_eq!(state, states[come], "after {come} bytes of {bytes:?}");
        if come == bytes.len() {
            break;
        }
    }
    let told = wholes.iter().filter(|whole| whole.told() <= bytes.len()).count();
    assert_eq!(seen.len(), told, "{seen:?} in {bytes:?}");
    for (whole, rest) in wholes.iter().zip(rest) {
        assert_eq!(whole.payload[whole.length.min(8)..], rest, "{bytes:?}");
    }
    seen
}

fn compare(frame: Frame, whole: &Whole<'_>) {
    assert_eq!((frame.kind(), frame.stream()), (whole.kind, whole.stream), "{frame:?}");
    assert_eq!(frame.opening(), &whole.payload[..whole.length.min(8)], "{frame:?}");
    assert_eq!(frame.is_of_wrong_size(), !whole.is_of_right_size(), "{frame:?}");
    let may_be_first = whole.kind == SETTINGS && !whole.is_acknowledgement();
    assert_eq!(frame.may_be_first(), may_be_first, "{frame:?}");
    assert_eq!(frame.continues_head(), whole.kind == CONTINUATION, "{frame:?}");
    let ends = matches!(whole.kind, DATA | HEADERS) && whole.flags & 1 != 0;
    assert_eq!(frame.ends_stream(), ends, "{frame:?}");
    if let Some(place) = whole.code() {
        assert_eq!(frame.error_code(), whole.number(place), "{frame:?}");
    }
    if whole.kind == GO_AWAY {
        assert_eq!(frame.last_stream(), whole.number(0) & u32::MAX >> 1, "{frame:?}");
    }
}

/// Of frames that a client sends again and again, no more may come than those that are free, and those that answers pay
/// for.
fn budget(seen: &[Frame]) {
    const FREE: usize = 2000;
    const FOR_AN_ANSWER: usize = 4;
    let mut allowance = Allowance::default();
    let (mut taken, mut answers) = (0, 0);
    for (number, frame) in seen.iter().cycle().take(FREE + 200).enumerate() {
        if number % 16 == 15 {
            allowance.answered(*frame);
            answers += 1;
        }
        let is_control = !matches!(frame.kind(), DATA | HEADERS | CONTINUATION);
        let may = allowance.take(*frame);
        taken += usize::from(may && is_control);
        assert!(may || (is_control && taken >= FREE), "{frame:?} is one too many after {taken}");
        assert!(taken <= FREE + FOR_AN_ANSWER * answers, "{taken} were taken: {seen:?}");
    }
}

/// The endpoint of a connection on which each of the streams of these frames carries a request.
fn asked(wholes: &[Whole<'_>]) -> EndpointFrames {
    let mut watch = EndpointFrames::default();
    watch.went(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut streams: Vec<u32> = wholes.iter().map(|whole| whole.stream).filter(|stream| *stream > 0).collect();
    streams.sort_unstable();
    streams.dedup();
    for stream in streams {
        let [a, b, c, d] = stream.to_be_bytes();
        watch.went(&[0, 0, 0, HEADERS, 4, a, b, c, d]);
    }
    watch
}

/// What is given on of what an endpoint sends.
fn endpoint(bytes: &[u8], sizes: [usize; 2], wholes: &[Whole<'_>]) {
    let pass = |watch: &mut EndpointFrames, sizes: [usize; 2]| {
        let mut passed = bytes.to_vec();
        let mut come = 0_usize;
        for size in sizes.into_iter().cycle() {
            let end = come.saturating_add(size).min(bytes.len());
            watch.came(&mut passed[come..end])?;
            come = end;
            if come == bytes.len() {
                break;
            }
        }
        Ok::<_, &str>(passed)
    };
    let passed = pass(&mut asked(wholes), [usize::MAX; 2]);
    assert_eq!(passed, pass(&mut asked(wholes), sizes), "{bytes:?} cut by {sizes:?}");
    assert_eq!(passed, pass(&mut asked(wholes), [1, 1]), "{bytes:?}");
    // Whatever this side sends, however it is cut.
    let mut watch = asked(wholes);
    bytes.chunks(sizes[0]).for_each(|piece| watch.went(piece));
    let _ = pass(&mut watch, sizes);

    let Ok(passed) = passed else { return };
    let mut expected = bytes.to_vec();
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    // At a frame of a wrong size h2 ends the connection, so that what it was about does not matter.
    let is_followed = |whole: &&Whole<'_>| whole.told() <= bytes.len() && whole.is_of_right_size();
    for whole in wholes.iter().filter(is_followed) {
        let is_begun = begun.contains(&whole.stream);
        let is_without_error = whole.code().filter(|place| whole.number(*place) == 0);
        match whole.kind {
            HEADERS | DATA if whole.flags & 1 != 0 => {
                begun.retain(|stream| *stream != whole.stream);
                ended.push(whole.stream);
            }
            // What comes for a stream that has ended begins nothing.
            HEADERS if whole.stream == 0 || ended.contains(&whole.stream) => {}
            HEADERS => begun.push(whole.stream),
            RESET => {
                begun.retain(|stream| *stream != whole.stream);
                ended.push(whole.stream);
                if let Some(place) = is_without_error.filter(|_| is_begun) {
                    expected[whole.start + HEADER + place + 3] = 2;
                }
            }
            GO_AWAY => {
                let last = whole.number(0) & u32::MAX >> 1;
                if let Some(place) = is_without_error.filter(|_| begun.iter().any(|stream| *stream > last)) {
                    expected[whole.start + HEADER + place + 3] = 2;
                }
            }
            _ => {}
        }
    }
    assert_eq!(passed, expected, "of {bytes:?}");
}

//! How does a body become another on its way?
//!
//! In pieces: no poll works through more than [`PIECE`] bytes before the worker's other tasks have had a turn,
//! and what is held is a piece of input, the codec's own window and one buffer of output. Whenever nothing more
//! is to be had for now, what has been given to an encoder is flushed: a slow stream is not held up.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_compression::{
    Level,
    codecs::{
        BrotliDecoder, BrotliEncoder, DecodeV2, DeflateDecoder, EncodeV2, GzipDecoder, GzipEncoder,
        ZlibDecoder, ZlibEncoder, ZstdDecoder, ZstdEncoder, brotli, zstd,
    },
    core::util::{PartialBuffer, WriteBuffer},
};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};

use crate::{
    body::{Content, Error},
    config::{self, Encoding, Levels},
    telemetry::{sampled, with_sources},
};

/// Bytes of input that are worked through at a time.
const PIECE: usize = 16 << 10;

/// Bytes of output that are sent at a time.
const BUFFER: usize = 16 << 10;

/// The largest window of an encoder, as a power of two: the most of what has passed that it remembers.
const WINDOW: u32 = 19;

/// The largest window of a decoder of zstd (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// What may come of a decoder whatever its ratio.
const SMALL: u64 = 1 << 20;

/// A body that is encoded or decoded as it passes.
#[derive(Debug)]
pub(super) struct Coded {
    source: Content,
    codec: Codec,
    /// What has come and not gone through yet.
    input: Bytes,
    output: Box<[u8]>,
    /// How much of `output` waits to be sent.
    filled: usize,
    /// Bytes worked through since the other tasks had a turn.
    worked: usize,
    stage: CodingState,
    /// Trailers that do not describe the bytes of the body.
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodingState {
    /// Nothing is in the codec that could be had from it.
    Flushed,
    Working,
    Flushing,
    Ending,
    Ended,
}

#[derive(Debug)]
enum Codec {
    Encoder(Encoder),
    Decoder(Decoder),
}

impl Coded {
    /// `length` is that of the source, where it is known.
    pub fn encoded(source: Content, encoding: Encoding, levels: &Levels, length: Option<u64>) -> Self {
        Self::new(source, Codec::Encoder(Encoder::new(encoding, levels, length)))
    }

    /// `route` is named in the log if the body has to be cut off.
    pub fn decoded(source: Content, encoding: Encoding, limits: &config::Decode, route: Arc<str>) -> Self {
        Self::new(source, Codec::Decoder(Decoder::new(encoding, limits, route)))
    }

    fn new(source: Content, codec: Codec) -> Self {
        Self {
            source,
            codec,
            input: Bytes::new(),
            output: vec![0; BUFFER].into(),
            filled: 0,
            worked: 0,
            stage: CodingState::Flushed,
            trailers: None,
        }
    }

    /// Brings more of the source into `input`. Ready if that has changed anything.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.source.is_end_stream() {
            self.stage = CodingState::Ending;
            return Poll::Ready(Ok(()));
        }
        match std::task::ready!(Pin::new(&mut self.source).poll_frame(cx)).transpose()? {
            None => self.stage = CodingState::Ending,
            Some(frame) => match frame.into_data() {
                Ok(data) => self.input = data,
                Err(frame) => {
                    self.stage = CodingState::Ending;
                    self.trailers = frame.into_trailers().ok().map(without_digests);
                }
            },
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a step. Whether the output is to be sent.
    fn step(&mut self) -> Result<bool, Error> {
        let mut output = WriteBuffer::new_initialized(&mut self.output[self.filled..]);
        let mut taken = 0;
        let is_done = match self.stage {
            CodingState::Flushed | CodingState::Working => {
                let piece = &self.input[..self.input.len().min(PIECE)];
                let mut piece = PartialBuffer::new(piece);
                self.codec.work(&mut piece, &mut output)?;
                taken = piece.written_len();
                self.input.advance(taken);
                self.stage = CodingState::Working;
                false
            }
            CodingState::Flushing => {
                let is_done = self.codec.flush(&mut output)?;
                if is_done {
                    self.stage = CodingState::Flushed;
                }
                is_done
            }
            CodingState::Ending => {
                let is_done = self.codec.finish(&mut output)?;
                if is_done {
                    self.stage = CodingState::Ended;
                }
                is_done
            }
            CodingState::Ended => true,
        };
        self.worked += taken.max(output.written_len());
        self.filled += output.written_len();
        Ok(self.filled > 0 && (is_done || self.filled == self.output.len()))
    }

    fn take_output(&mut self) -> Frame<Bytes> {
        let output = Bytes::copy_from_slice(&self.output[..self.filled]);
        self.filled = 0;
        Frame::data(output)
    }
}

impl Body for Coded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.get_mut();
        loop {
            if body.stage == CodingState::Ended {
                return Poll::Ready(body.trailers.take().map(Frame::trailers).map(Ok));
            }
            if body.worked >= PIECE {
                body.worked = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if body.input.is_empty() && matches!(body.stage, CodingState::Flushed | CodingState::Working) {
                match (body.poll_input(cx), body.stage) {
                    (Poll::Pending, CodingState::Working) => body.stage = CodingState::Flushing,
                    (Poll::Pending, _) => return Poll::Pending,
                    (Poll::Ready(Err(error)), _) => return Poll::Ready(Some(Err(error))),
                    (Poll::Ready(Ok(())), _) if body.input.is_empty() => continue,
                    (Poll::Ready(Ok(())), _) => {}
                }
            }
            match body.step() {
                Ok(true) => return Poll::Ready(Some(Ok(body.take_output()))),
                Ok(false) => {}
                Err(error) => {
                    body.codec.report(&error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == CodingState::Ended && self.trailers.is_none()
    }
}

impl Codec {
    fn work(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> Result<(), Error> {
        match self {
            Self::Encoder(encoder) => encoder.encode(input, output),
            Self::Decoder(decoder) => decoder.decode(input, output),
        }
    }

    /// Whether everything has come out.
    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> Result<bool, Error> {
        match self {
            Self::Encoder(Encoder(encoder)) => Ok(encoder.flush(output)?),
            Self::Decoder(decoder) => decoder.flush(output),
        }
    }

    /// The same, and the end with it.
    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> Result<bool, Error> {
        match self {
            Self::Encoder(Encoder(encoder)) => Ok(encoder.finish(output)?),
            Self::Decoder(decoder) => decoder.finish(output),
        }
    }

    fn report(&self, error: &Error) {
        match self {
            Self::Encoder(_) => {
                sampled!(warn, of: (), error = with_sources(error), "response cut off");
            }
            Self::Decoder(decoder) => {
                let error = with_sources(error);
                sampled!(
                    warn, of: decoder.route, route = %decoder.route, came = decoder.came, became = decoder.became, error,
                    "response cut off, it could not be decoded"
                );
            }
        }
    }
}

struct Encoder(Box<dyn EncodeV2>);

impl fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Encoder")
    }
}

impl Encoder {
    fn new(encoding: Encoding, levels: &Levels, length: Option<u64>) -> Self {
        let window = window(encoding, length);
        let level = |level: u8| Level::Precise(level.into());
        Self(match encoding {
            Encoding::Gzip => Box::new(GzipEncoder::new(level(levels.gzip).into())),
            Encoding::Deflate => Box::new(ZlibEncoder::new(level(levels.deflate).into())),
            Encoding::Brotli => {
                let parameters = brotli::params::EncoderParams::default().quality(level(levels.br));
                Box::new(BrotliEncoder::new(parameters.window_size(window as i32)))
            }
            Encoding::Zstd => {
                let window = zstd::params::CParameter::window_log(window);
                Box::new(ZstdEncoder::new_with_params(levels.zstd.into(), &[window]))
            }
        })
    }

    fn encode(
        &mut self,
        input: &mut PartialBuffer<&[u8]>,
        output: &mut WriteBuffer<'_>,
    ) -> Result<(), Error> {
        Ok(self.0.encode(input, output)?)
    }
}

/// The window for a body of this length, as a power of two. There is nothing to remember beyond the length; tables of
/// this size are cheaper to set up.
fn window(encoding: Encoding, length: Option<u64>) -> u32 {
    let least = match encoding {
        // With a smaller one this encoder searches in another way from level 5 on, which takes it twenty times as long.
        Encoding::Brotli => 17,
        Encoding::Gzip | Encoding::Deflate | Encoding::Zstd => 10,
    };
    length.map_or(WINDOW, |length| length.max(1).ilog2() + 1).clamp(least, WINDOW)
}

struct Decoder {
    codec: Box<dyn DecodeV2>,
    encoding: Encoding,
    limits: config::Decode,
    route: Arc<str>,
    progress: Progress,
    /// Bytes taken so far.
    came: u64,
    /// Bytes made of them.
    became: u64,
}

/// How far a decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotBegun,
    Within,
    /// At the end of what is a whole in itself.
    AtEnd,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoder").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl Decoder {
    fn new(encoding: Encoding, limits: &config::Decode, route: Arc<str>) -> Self {
        let codec: Box<dyn DecodeV2> = match encoding {
            Encoding::Gzip => Box::new(GzipDecoder::new()),
            Encoding::Deflate => Box::new(ZlibDecoder::new()),
            Encoding::Brotli => Box::new(BrotliDecoder::new()),
            Encoding::Zstd => {
                let window = zstd::params::DParameter::window_log_max(ZSTD_WINDOW);
                Box::new(ZstdDecoder::new_with_params(&[window]))
            }
        };
        let limits = limits.clone();
        Self { codec, encoding, limits, route, progress: Progress::NotBegun, came: 0, became: 0 }
    }

    fn decode(
        &mut self,
        input: &mut PartialBuffer<&[u8]>,
        output: &mut WriteBuffer<'_>,
    ) -> Result<(), Error> {
        match self.progress {
            Progress::NotBegun => {
                // What `deflate` is without a header is a mistake so common that browsers read it.
                let is_bare = input.unwritten().first().is_some_and(|first| first & 0x0f != 8);
                if self.encoding == Encoding::Deflate && is_bare {
                    self.codec = Box::new(DeflateDecoder::new());
                }
            }
            Progress::Within => {}
            // Several in a row are one (RFC 1952, section 2.2; RFC 8878, section 3.1).
            Progress::AtEnd => match self.encoding {
                Encoding::Gzip | Encoding::Zstd => self.codec.reinit()?,
                Encoding::Deflate | Encoding::Brotli => {
                    return Err(
                        io::Error::new(io::ErrorKind::InvalidData, "there is more after its end").into()
                    );
                }
            },
        }
        let (taken, made) = (input.written_len(), output.written_len());
        let is_at_end = self.codec.decode(input, output)?;
        self.progress = if is_at_end { Progress::AtEnd } else { Progress::Within };
        self.came += (input.written_len() - taken) as u64;
        self.count(output.written_len() - made)
    }

    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> Result<bool, Error> {
        if self.progress != Progress::Within {
            return Ok(true);
        }
        let made = output.written_len();
        let is_done = self.codec.flush(output)?;
        self.count(output.written_len() - made)?;
        Ok(is_done)
    }

    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> Result<bool, Error> {
        // What is left of the output first: a full buffer is no sign of the end.
        if !self.flush(output)? {
            return Ok(false);
        }
        match self.progress {
            // An empty body is empty in every encoding.
            Progress::NotBegun | Progress::AtEnd => Ok(true),
            Progress::Within => Ok(self.codec.finish(output)?),
        }
    }

    /// Counts what has come out, up to the limits.
    fn count(&mut self, made: usize) -> Result<(), Error> {
        self.became += made as u64;
        let by_ratio = self.came.saturating_mul(self.limits.ratio.get().into()).max(SMALL);
        let is_too_large = self.became > self.limits.size.get().min(by_ratio);
        if is_too_large { Err(Error::TooLarge) } else { Ok(()) }
    }
}

/// Fields that are true of the bytes as they came, and of no others (RFC 9530, RFC 3230, RFC 1864).
pub(super) static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

fn without_digests(mut trailers: HeaderMap) -> HeaderMap {
    for name in &DIGESTS {
        trailers.remove(name);
    }
    trailers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        collections::VecDeque,
        num::NonZero,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Wake, Waker},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::config::{ByteSize, Decode};

    /// A body that does as it is told; where it is told nothing, nothing comes for now.
    #[derive(Debug)]
    struct Script(VecDeque<Option<Frame<Bytes>>>);

    impl Body for Script {
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
    }

    fn script(frames: impl IntoIterator<Item = Option<Frame<Bytes>>>) -> Content {
        Content::Changed(Box::new(Script(frames.into_iter().collect())))
    }

    fn pieces(bytes: &[u8], size: usize) -> Content {
        script(bytes.chunks(size).map(|piece| Some(Frame::data(Bytes::copy_from_slice(piece)))))
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What comes of a body: up to the next pause that it does not end by itself, or to its end.
    #[derive(Debug, Default)]
    struct Drained {
        bytes: Vec<u8>,
        trailers: Option<HeaderMap>,
        error: Option<Error>,
        has_ended: bool,
        yields: usize,
    }

    fn drive(body: &mut Coded) -> Drained {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut outcome = Drained::default();
        loop {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending if woken.0.swap(0, Ordering::Relaxed) > 0 => outcome.yields += 1,
                Poll::Pending => return outcome,
                Poll::Ready(None) => {
                    outcome.has_ended = true;
                    return outcome;
                }
                Poll::Ready(Some(Err(error))) => {
                    outcome.error = Some(error);
                    return outcome;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        assert!(!data.is_empty());
                        outcome.bytes.extend_from_slice(&data);
                    }
                    Err(frame) => outcome.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn encoder(source: Content, encoding: Encoding) -> Coded {
        Coded::encoded(source, encoding, &Levels::default(), None)
    }

    fn decoder(source: Content, encoding: Encoding) -> Coded {
        Coded::decoded(source, encoding, &Decode::default(), "route".into())
    }

    fn encode(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
        drive(&mut encoder(pieces(bytes, 1 << 20), encoding)).bytes
    }

    /// Words in no order: neither all alike nor all different.
    fn text(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(1);
        let words = ["gate", "toll", "a longer word", "\n", "42", "Brücke"];
        let mut text = Vec::new();
        while text.len() < length {
            text.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        }
        text.truncate(length);
        text
    }

    #[test]
    fn windows_are_as_large_as_the_body() {
        for (encoding, length, expected) in [
            (Encoding::Zstd, Some(0), 10),
            (Encoding::Zstd, Some(65_535), 16),
            (Encoding::Zstd, Some(65_536), 17),
            (Encoding::Zstd, Some(u64::MAX), WINDOW),
            (Encoding::Zstd, None, WINDOW),
            (Encoding::Brotli, Some(0), 17),
            (Encoding::Brotli, Some(65_535), 17),
            (Encoding::Brotli, Some(1 << 18), WINDOW),
            (Encoding::Brotli, None, WINDOW),
        ] {
            assert_eq!(window(encoding, length), expected, "{encoding:?} {length:?}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        for encoding in Encoding::ALL {
            for length in [0, 1, 2, 1000, PIECE - 1, PIECE, BUFFER + 1, 300_000] {
                for size in [1, 7, 1000, PIECE, 1 << 20] {
                    if size < 1000 && length > 20_000 {
                        continue;
                    }
                    let bytes = text(length);
                    let coded = drive(&mut encoder(pieces(&bytes, size), encoding));
                    assert!(coded.has_ended, "{encoding:?} {length} {size}");
                    let plain = drive(&mut decoder(pieces(&coded.bytes, size), encoding));
                    assert!(plain.has_ended, "{encoding:?} {length} {size}: {:?}", plain.error);
                    assert!(plain.bytes == bytes, "{encoding:?} {length} {size}");
                }
            }
        }
    }

    #[test]
    fn every_level_and_every_known_length_can_be_decoded() {
        for (gzip, br, zstd) in [(1, 0, 1), (5, 2, 2), (6, 4, 3), (7, 5, 7), (9, 11, 19)] {
            let levels = Levels { gzip, deflate: gzip, br, zstd };
            for encoding in Encoding::ALL {
                for length in [1, 100, 70_000] {
                    let bytes = text(length);
                    let source = pieces(&bytes, 4096);
                    let coded = drive(&mut Coded::encoded(source, encoding, &levels, Some(length as u64)));
                    let plain = drive(&mut decoder(pieces(&coded.bytes, 4096), encoding));
                    assert!(plain.has_ended && plain.bytes == bytes, "{encoding:?} {levels:?} {length}");
                }
            }
        }
    }

    #[test]
    fn what_has_come_is_not_held_back_when_the_source_pauses() {
        for encoding in Encoding::ALL {
            let event = |text: &'static str| Some(Frame::data(Bytes::from_static(text.as_bytes())));
            let source = script([
                event("data: 1\n\n"),
                None,
                None,
                None,
                event("data: 2\n\n"),
                event("x"),
                None,
                None,
            ]);
            let mut coded = encoder(source, encoding);
            // The source is asked once more when it has been flushed. Whoever decodes has a pause where there is one.
            let mut came = VecDeque::new();
            for wanted in ["data: 1\n\n", "", "data: 2\n\nx"] {
                let outcome = drive(&mut coded);
                assert!(!outcome.has_ended);
                assert_eq!(outcome.bytes.is_empty(), wanted.is_empty(), "{encoding:?}");
                if !outcome.bytes.is_empty() {
                    came.extend([Some(Frame::data(outcome.bytes.into())), None]);
                }
                came.push_back(None);
            }
            came.push_back(Some(Frame::data(drive(&mut coded).bytes.into())));
            let mut plain = decoder(script(came), encoding);
            for wanted in ["data: 1\n\n", "", "data: 2\n\nx"] {
                assert_eq!(drive(&mut plain).bytes, wanted.as_bytes(), "{encoding:?}");
            }
            assert!(drive(&mut plain).has_ended, "{encoding:?}");
        }
    }

    #[test]
    fn others_have_their_turn_while_much_is_worked_through() {
        for encoding in Encoding::ALL {
            let bytes = text(300_000);
            let coded = drive(&mut encoder(pieces(&bytes, 1 << 20), encoding));
            assert!(coded.yields >= bytes.len() / PIECE - 1, "{encoding:?}: {}", coded.yields);
            let plain = drive(&mut decoder(pieces(&coded.bytes, 1 << 20), encoding));
            assert!(plain.yields >= bytes.len() / BUFFER / 2, "{encoding:?}: {}", plain.yields);
        }
    }

    #[test]
    fn what_breaks_off_or_is_no_such_encoding_does_not_end() {
        for encoding in Encoding::ALL {
            let coded = encode(&text(50_000), encoding);
            for length in [1, 5, coded.len() / 2, coded.len() - 1] {
                let plain = drive(&mut decoder(pieces(&coded[..length], 4096), encoding));
                assert!(plain.error.is_some() && !plain.has_ended, "{encoding:?} {length}");
            }
            let mut longer = coded.clone();
            longer.extend_from_slice(b"more");
            for bytes in [b"This is not it, and was never meant to be.".as_slice(), &longer] {
                let plain = drive(&mut decoder(pieces(bytes, 4096), encoding));
                assert!(plain.error.is_some() && !plain.has_ended, "{encoding:?}");
            }
        }
    }

    #[test]
    fn an_empty_body_is_empty_in_every_encoding() {
        for encoding in Encoding::ALL {
            let plain = drive(&mut decoder(pieces(b"", 1), encoding));
            assert!(plain.has_ended && plain.bytes.is_empty(), "{encoding:?}");
        }
    }

    #[test]
    fn several_in_a_row_are_one() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let both = [encode(b"one, ", encoding), encode(b"two", encoding)].concat();
            for size in [1, 3, 4096] {
                let plain = drive(&mut decoder(pieces(&both, size), encoding));
                assert!(plain.has_ended, "{encoding:?} {size}: {:?}", plain.error);
                assert_eq!(plain.bytes, b"one, two");
            }
        }
    }

    #[test]
    fn deflate_is_understood_without_its_header_too() {
        let bytes = text(5000);
        let coded = encode(&bytes, Encoding::Deflate);
        // Two bytes before and a checksum of four behind are all that RFC 1950 adds to RFC 1951.
        let bare = &coded[2..coded.len() - 4];
        for size in [1, 4096] {
            let plain = drive(&mut decoder(pieces(bare, size), Encoding::Deflate));
            assert!(plain.has_ended && plain.bytes == bytes, "{size}: {:?}", plain.error);
        }
    }

    #[test]
    fn a_bomb_is_cut_off() {
        let zeros = vec![0; 3 << 20];
        for encoding in Encoding::ALL {
            let bomb = encode(&zeros, encoding);
            for (ratio, size, most) in [(10, 1 << 30, SMALL), (u32::MAX, 100_000, 100_000)] {
                let limits = Decode { ratio: NonZero::new(ratio).unwrap(), size: ByteSize::bytes(size) };
                let source = pieces(&bomb, 4096);
                let plain = drive(&mut Coded::decoded(source, encoding, &limits, "route".into()));
                assert!(matches!(plain.error, Some(Error::TooLarge)), "{encoding:?} {ratio} {size}");
                assert!(plain.bytes.len() as u64 <= most, "{encoding:?} {ratio} {size}");
            }
            let limits = Decode { ratio: NonZero::<u32>::MAX, size: ByteSize::bytes(zeros.len()) };
            let plain = drive(&mut Coded::decoded(pieces(&bomb, 4096), encoding, &limits, "route".into()));
            assert!(plain.has_ended && plain.bytes.len() == zeros.len(), "{encoding:?}");
        }
    }

    #[test]
    fn trailers_follow_but_not_those_that_describe_the_bytes() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-kept", "1".parse().unwrap());
        trailers.insert("content-digest", "sha-256=:AA==:".parse().unwrap());
        let frames = [Some(Frame::data(Bytes::from_static(b"hello"))), Some(Frame::trailers(trailers))];
        let outcome = drive(&mut encoder(script(frames), Encoding::Gzip));
        let trailers = outcome.trailers.unwrap();
        assert!(outcome.has_ended && !outcome.bytes.is_empty());
        assert_eq!(trailers.len(), 1);
        assert!(trailers.contains_key("x-kept"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_decode(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            index in 0..300_usize,
            size in 1..50_usize,
        ) {
            for encoding in Encoding::ALL {
                // Nonsense, and something good with a byte of nonsense in it.
                let mut damaged = encode(&bytes, encoding);
                let index = index % damaged.len();
                damaged[index] ^= 1 + bytes.first().copied().unwrap_or_default() % 255;
                for bytes in [&bytes, &damaged] {
                    let outcome = drive(&mut decoder(pieces(bytes, size), encoding));
                    prop_assert!(outcome.has_ended || outcome.error.is_some());
                }
            }
        }
    }
}

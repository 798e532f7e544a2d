//! What do the targets in `fuzz/` reach that is private to the crate?
//!
//! Readers of bytes from outside, with what they find as plain values. No other module names this one, and it decides
//! nothing by itself.

use std::{io::IoSlice, task::Context};

use http::{HeaderMap, HeaderValue, response};

use crate::{
    clock::Clock,
    frames,
    proxy::{BadResponse, headers},
    upstream::{BadHead, Came, HeadLimits, HeadReader, Interim, Watch},
};

/// Follows the frames of one direction of an HTTP/2 connection.
#[derive(Debug, Default)]
pub struct Frames(frames::Frames);

/// A part of what has come.
#[derive(Debug)]
pub enum Part<'a> {
    /// The beginning of a frame, and how many of the bytes that have just come had passed by then.
    Frame { frame: Frame, passed: usize },
    /// More of the payload of a frame of this type.
    Payload { kind: u8, bytes: &'a [u8] },
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame(frames::Frame);

impl Frames {
    pub fn follow<'a>(&mut self, bytes: &'a [u8], mut each: impl FnMut(Part<'a>)) {
        self.0.follow_whole(bytes, |part| {
            each(match part {
                frames::Part::Frame { frame, passed } => Part::Frame { frame: Frame(frame), passed },
                frames::Part::Payload { kind, bytes } => Part::Payload { kind: kind as u8, bytes },
            });
        });
    }

    pub fn last_stream(&self) -> u32 {
        self.0.last_stream()
    }

    pub fn is_between(&self) -> bool {
        self.0.is_between()
    }

    pub fn is_inside(&self) -> bool {
        self.0.is_inside()
    }
}

impl Frame {
    /// The type (RFC 9113, section 6); 10 for any that is not one of those.
    pub fn kind(&self) -> u8 {
        self.0.kind as u8
    }

    pub fn stream(&self) -> u32 {
        self.0.stream
    }

    pub fn opening(&self) -> &[u8] {
        self.0.opening()
    }

    pub fn error_code(&self) -> u32 {
        self.0.error_code()
    }

    pub fn last_stream(&self) -> u32 {
        self.0.last_stream()
    }

    pub fn ends_stream(&self) -> bool {
        self.0.ends_stream()
    }

    pub fn continues_head(&self) -> bool {
        self.0.continues_head()
    }

    pub fn is_of_wrong_size(&self) -> bool {
        self.0.is_of_wrong_size()
    }

    pub fn may_be_first(&self) -> bool {
        self.0.may_be_first()
    }
}

/// How many control frames a client may still send, while time stands still.
#[derive(Debug)]
pub struct Allowance(frames::Allowance, Clock);

impl Default for Allowance {
    fn default() -> Self {
        let clock = Clock::default();
        Self(frames::Allowance::new(&clock), clock)
    }
}

impl Allowance {
    pub fn take(&mut self, frame: Frame) -> bool {
        self.0.take(frame.0, &self.1)
    }

    pub fn answered(&mut self, frame: Frame) {
        self.0.answered(frame.0);
    }
}

/// Changes what an endpoint sends over HTTP/2 before hyper sees it.
pub struct EndpointFrames(Watch);

impl Default for EndpointFrames {
    fn default() -> Self {
        Self(Watch::new(Clock::default()))
    }
}

impl EndpointFrames {
    pub fn came(&mut self, bytes: &mut [u8]) -> Result<(), &'static str> {
        self.0.came(bytes)
    }

    pub fn went(&mut self, bytes: &[u8]) {
        self.0.went(&[IoSlice::new(bytes)], bytes.len());
    }
}

/// Reads the head of one response of HTTP/1.
#[derive(Debug)]
pub struct ResponseHead(HeadReader);

impl ResponseHead {
    pub fn new(limits: HeadLimits) -> Self {
        let mut reader = HeadReader::default();
        reader.begin(limits);
        Self(reader)
    }

    /// Whether the final head has still to end.
    pub fn is_awaited(&self) -> bool {
        self.0.is_at_head()
    }

    /// What goes on to hyper of all that has come, once these bytes have.
    pub fn came(&mut self, bytes: &[u8]) -> Result<Vec<u8>, BadHead> {
        if !self.0.is_at_head() || self.0.take(bytes)? == Came::Plain {
            return Ok(bytes.to_vec());
        }
        let mut passed = Vec::new();
        while self.0.give(usize::MAX, |bytes| passed.extend_from_slice(bytes)) {}
        Ok(passed)
    }

    /// Fields of the final head that do not go on.
    pub fn take_further(&mut self) -> HeaderMap {
        self.0.take_further().unwrap_or_default()
    }

    pub fn take_interim(&mut self, cx: &Context<'_>) -> Vec<Interim> {
        self.0.take_interim(cx)
    }
}

/// Makes a response the proxy's own, and says whether its connection can carry another request.
pub fn accept(response: &mut response::Parts, endpoint: &HeaderValue) -> Result<bool, BadResponse> {
    headers::accept(response, endpoint, None)
}

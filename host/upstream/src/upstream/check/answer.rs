//! What is read of the answer to a check?

use std::{future::poll_fn, pin::Pin};

use http::{HeaderMap, response};
use http_body::Body;
use hyper::body::Incoming;

/// What is read of an answer's body at most.
const BODY: usize = 64 << 10;

/// An answer over HTTP/2, with the beginning of its body.
pub(super) struct Whole {
    pub head: response::Parts,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// The beginning of a body, what came after it, and whether that is all of it.
pub(super) struct Read {
    pub bytes: Vec<u8>,
    pub trailers: HeaderMap,
    pub is_whole: bool,
}

/// Reads the beginning of a body.
pub(super) async fn read(mut body: Incoming) -> Result<Read, hyper::Error> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
        if bytes.len() > BODY {
            return Ok(Read { bytes, trailers, is_whole: false });
        }
    }
    Ok(Read { bytes, trailers, is_whole: true })
}

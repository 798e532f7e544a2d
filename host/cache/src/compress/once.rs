//! How is what is stored encoded once?

use std::{future::poll_fn, pin::Pin};

use http_body::Body;

use super::coded::Coded;
use crate::{
    body::Content,
    cache::encoded::{Kept, Making, Wanted},
    config::{Encoding, Levels},
    drain::Drain,
};

/// A stored body in this encoding, and its length once that is known. If nobody has asked for it before, it is made
/// by a task of its own, to its end even if its client goes.
pub(super) fn encoded(
    kept: &Kept,
    encoding: Encoding,
    levels: &Levels,
    drain: &Drain,
) -> (Content, Option<u64>) {
    let stream = match kept.form(encoding) {
        Wanted::Made(body) => return (body.content(), Some(body.len())),
        Wanted::Coming(stream) => stream,
        Wanted::Missing(making) => {
            let stream = making.stream.clone();
            let body = &kept.stored.body;
            drain.spawn_local(make(
                making,
                Coded::encoded(body.content(), encoding, levels, Some(body.len())),
            ));
            stream
        }
    };
    (Content::Changed(Box::new(stream.reader(None))), None)
}

async fn make(making: Making, mut coded: Coded) {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut coded).poll_frame(cx)).await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(piece)) => making.stream.push(piece),
            // A stored body has no trailers.
            Ok(Err(_)) => {}
            Err(_) => return,
        }
    }
    making.finish();
}

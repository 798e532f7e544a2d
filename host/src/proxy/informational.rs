//! What does an upstream say before it answers?
//!
//! RFC 9110, section 15.2: a proxy forwards interim responses, other than those it has asked for itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};

use crate::body::RequestBody;

/// An interim response.
pub(super) enum Interim {
    /// 100: the upstream wants the body.
    Continue,
    /// Any other, as it goes on the wire.
    Other(Bytes),
}

/// Hears the interim responses to one request.
pub(super) struct Informational(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    interim: Vec<Interim>,
    waker: Option<Waker>,
}

impl Informational {
    /// Interim responses that wait at most. An upstream that sends more without end is not heard further.
    const WAITING: usize = 16;

    pub fn listen(request: &mut Request<RequestBody>) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let hears = heard.clone();
        hyper::ext::on_informational(request, move |response| {
            let mut heard = hears.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.interim.len() < Self::WAITING {
                heard.interim.push(match response.status() {
                    StatusCode::CONTINUE => Interim::Continue,
                    status => Interim::Other(on_the_wire(status, response.headers())),
                });
            }
            if let Some(waker) = heard.waker.take() {
                waker.wake();
            }
        });
        Self(heard)
    }

    /// What has been heard since the last time; if nothing, the task is woken by the next.
    pub fn take(&self, cx: &Context<'_>) -> Vec<Interim> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.interim.is_empty() {
            heard.waker = Some(cx.waker().clone());
        }
        std::mem::take(&mut heard.interim)
    }
}

/// An interim response as HTTP/1.1 has it. It has no body, and none of its fields is about the connection.
fn on_the_wire(status: StatusCode, headers: &HeaderMap) -> Bytes {
    const LEFT_OUT: [header::HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TRAILER,
        header::HeaderName::from_static("keep-alive"),
    ];
    let reason = status.canonical_reason().unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| !LEFT_OUT.contains(name)) {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire.into()
}

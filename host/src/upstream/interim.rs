//! What does an upstream say before it answers?
//!
//! RFC 9110, section 15.2: a proxy forwards interim responses, other than those it has asked for itself. hyper
//! reads them and passes over them, or calls back for each, which costs every request that might hear one five
//! allocations. Here the first bytes of an answer are looked at as they come in, which costs next to nothing.

use std::task::{Context, Waker};

use bytes::Bytes;
use http::StatusCode;

/// An interim response.
#[derive(Debug)]
pub enum Interim {
    /// 100: the upstream wants the body.
    Continue,
    /// Any other, as it goes on the wire of HTTP/1.1.
    Other(Bytes),
}

/// Hears the interim responses on one connection.
#[derive(Debug, Default)]
pub(super) struct Ear {
    is_listening: bool,
    has_heard: bool,
    /// The beginning of an answer, while it may be an interim one.
    begun: Vec<u8>,
    heard: Vec<Interim>,
    waker: Option<Waker>,
}

impl Ear {
    /// Interim responses that wait at most. An upstream that sends more without end is not heard further.
    const WAITING: usize = 16;
    /// The longest head of an interim response.
    const LONGEST: usize = 16 << 10;

    /// Listens from now on: a request has been sent.
    pub fn begin(&mut self) {
        self.is_listening = true;
        self.has_heard = false;
        self.begun.clear();
        self.heard.clear();
    }

    pub fn is_listening(&self) -> bool {
        self.is_listening
    }

    /// Whether anything has come since the request was sent.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Looks at what has come from the upstream.
    pub fn hear(&mut self, bytes: &[u8]) {
        /// The part of a status line that shows whether it is an interim one.
        const ENOUGH: usize = "HTTP/1.1 1".len();
        self.has_heard |= !bytes.is_empty();
        if self.begun.is_empty() && bytes.len() >= ENOUGH && bytes[ENOUGH - 1] != b'1' {
            self.is_listening = false;
            return;
        }
        self.begun.extend_from_slice(bytes);
        while self.begun.len() >= ENOUGH {
            if self.begun[ENOUGH - 1] != b'1' || self.begun.len() > Self::LONGEST {
                self.is_listening = false;
                self.begun = Vec::new();
                return;
            }
            let Some(end) = memchr::memmem::find(&self.begun, b"\r\n\r\n") else { return };
            let head: Vec<u8> = self.begun.drain(..end + 4).collect();
            // hyper refuses what is malformed, and the connection with it.
            if let Some(interim) = read(&head).filter(|_| self.heard.len() < Self::WAITING) {
                self.heard.push(interim);
                if let Some(waker) = self.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    /// What has been heard since the last time; the task is woken by the next.
    pub fn take(&mut self, cx: &Context<'_>) -> Vec<Interim> {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
        std::mem::take(&mut self.heard)
    }
}

/// An interim response without the fields that are about the connection. It has no body.
fn read(head: &[u8]) -> Option<Interim> {
    const LEFT_OUT: [&str; 7] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let lines = memchr::memchr_iter(b'\n', head).count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).ok().filter(httparse::Status::is_complete)?;
    let status = StatusCode::from_u16(response.code?).ok()?;
    if status == StatusCode::CONTINUE {
        return Some(Interim::Continue);
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for field in response.headers {
        if !LEFT_OUT.iter().any(|name| name.eq_ignore_ascii_case(field.name)) {
            wire.extend([field.name.as_bytes(), b": ", field.value, b"\r\n"].concat());
        }
    }
    wire.extend_from_slice(b"\r\n");
    // To switch protocols is no interim response; whoever is not asked to does not.
    (status != StatusCode::SWITCHING_PROTOCOLS).then(|| Interim::Other(wire.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut ear = Ear::default();
        ear.begin();
        pieces.iter().for_each(|piece| ear.hear(piece));
        let heard = ear.take(&Context::from_waker(Waker::noop()));
        let text = |interim| match interim {
            Interim::Continue => "100".to_owned(),
            Interim::Other(wire) => String::from_utf8_lossy(&wire).into_owned(),
        };
        (heard.into_iter().map(text).collect(), ear.is_listening())
    }

    #[test]
    fn interim_responses_are_heard_up_to_the_final_one() {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x\r\n\r\n";
        let all =
            format!("HTTP/1.1 100 Continue\r\n\r\n{hints}HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 no\r\n\r\n");
        let expected = vec!["100".to_owned(), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_owned()];
        assert_eq!(heard(&[all.as_bytes()]), (expected.clone(), false));
        let single: Vec<&[u8]> = all.as_bytes().chunks(1).collect();
        assert_eq!(heard(&single).0, expected, "also byte by byte");
    }

    #[test]
    fn what_is_no_interim_response_is_not_heard() {
        assert_eq!(heard(&[b"HTTP/1.1 200 OK\r\n\r\n"]), (vec![], false));
        assert_eq!(heard(&[b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]), (vec![], true));
        assert_eq!(heard(&[b"HTTP/1.1 1"]), (vec![], true));
        assert_eq!(heard(&[b"HTTP/1.1 1", &[b'x'; 20_000]]), (vec![], false));
        assert_eq!(heard(&[b"garbage that is no response at all"]), (vec![], false));
    }

    #[test]
    fn an_upstream_that_only_hints_is_not_heard_for_ever() {
        let (heard, _) = heard(&["HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).as_bytes()]);
        assert_eq!(heard.len(), Ear::WAITING);
    }
}

//! What is written down of a request that was refused before it became one?
//!
//! Those who look for attacks, or for clients that fail, need these lines most.

use std::net::IpAddr;

use http::StatusCode;

use crate::{address::Caller, live::Worker};

/// Bytes of a request line that are shown: the whole may be what is too long.
const SHOWN: usize = 512;

/// A refusal, and what is known of whoever got it.
#[derive(Debug)]
pub struct Refusal<'a> {
    pub client: Caller<IpAddr>,
    /// The version of TLS, if it is spoken.
    pub tls: Option<&'static str>,
    /// The version of HTTP, where the connection says it and not the request.
    pub version: Option<&'static str>,
    /// What has come of the request's head, in HTTP/1.
    pub head: &'a [u8],
    /// None of a stream of HTTP/2 that was reset.
    pub status: Option<StatusCode>,
    pub reason: &'a str,
}

impl Refusal<'_> {
    /// Writes the line in the access log, if there is one.
    pub fn write(&self, worker: &Worker) {
        if !worker.generation().snapshot.config.log.access {
            return;
        }
        let line = RequestLine::of(self.head);
        let host = host(self.head);
        tracing::info!(
            target: "access",
            client = %self.client,
            tls = self.tls,
            method = line.method.as_deref(),
            host = host.as_deref(),
            uri = line.target.as_deref(),
            version = self.version.or(line.version.as_deref()),
            status = self.status.map(|status| status.as_u16()),
            reason = self.reason,
            "refused"
        );
    }
}

/// The parts of a request line that are there; it may be anything.
#[derive(Debug, Default, PartialEq, Eq)]
struct RequestLine {
    method: Option<String>,
    target: Option<String>,
    version: Option<String>,
}

impl RequestLine {
    fn of(head: &[u8]) -> Self {
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_cut = line.len() > SHOWN;
        let line = line[..line.len().min(SHOWN)].trim_ascii_end();
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let mut next = || words.next().map(|word| String::from_utf8_lossy(word).into_owned());
        let (method, mut target, version) = (next(), next(), next());
        if let Some(target) = target.as_mut().filter(|_| is_cut && version.is_none()) {
            target.push('…');
        }
        let version = version.and_then(|version| Some(version.strip_prefix("HTTP/")?.to_owned()));
        Self { method: method.filter(|method| !method.is_empty()), target, version }
    }
}

/// The first `Host`, as it was written.
fn host(head: &[u8]) -> Option<String> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let mut fields = lines.filter_map(|line| line.split_at_checked(b"host:".len()));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"host:"))?;
    let value = value[..value.len().min(SHOWN)].trim_ascii();
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_head_as_much_is_shown_as_can_be_made_out() {
        let long = format!("GET /{} HTTP/1.1", "x".repeat(9000));
        for (head, method, target, version) in [
            ("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", Some("GET"), Some("/a?b"), Some("1.1")),
            ("\r\nGET / HTTP/3.0\r\n", Some("GET"), Some("/"), Some("3.0")),
            ("GET /a b HTTP/1.1\r\n", Some("GET"), Some("/a"), None),
            ("GET", Some("GET"), None, None),
            ("", None, None, None),
            (&long, Some("GET"), Some(&*format!("/{}…", "x".repeat(SHOWN - 5))), None),
        ] {
            let line = RequestLine::of(head.as_bytes());
            let found = (line.method.as_deref(), line.target.as_deref(), line.version.as_deref());
            assert_eq!(found, (method, target, version), "{head:.40}");
        }
        assert_eq!(
            RequestLine::of(b"\x16\x03\x01\0\xff").method.as_deref(),
            Some("\u{16}\u{3}\u{1}\0\u{fffd}")
        );
        assert_eq!(
            host(b"GET / HTTP/1.1\r\nA: b\r\nHOST:  a.test \r\nHost: b\r\n\r\n").as_deref(),
            Some("a.test")
        );
        assert_eq!(host(b"GET / HTTP/1.1\r\nHos"), None);
    }
}

//! The request in hand, and what a plugin may do to it.
//!
//! Headers are read from hyper's own types when a plugin asks for them; nothing is copied in advance. What a
//! plugin makes is checked here, at the boundary: afterwards a header is a header.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response, uri::PathAndQuery};

use super::{
    error::{Edit, InvalidReply},
    record::UnderWay,
    surroundings::Journal,
    taint::Taint,
    text::{brief, to_value},
};
use crate::{
    address::Caller,
    authority,
    field::{self, Names, OF_A_CONNECTION, OF_THE_PROXY},
    path,
    tls::ClientCertificate,
};

/// What a request is there for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// It has come from a client.
    Traffic,
    /// It is only explained. What plugins log of it is kept here, in place of the proxy's log.
    Explanation(Arc<Journal>),
}

impl Purpose {
    pub fn journal(&self) -> Option<&Journal> {
        match self {
            Self::Traffic => None,
            Self::Explanation(journal) => Some(journal),
        }
    }
}

/// One request and, once there is one, the head of its response.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// As it will be forwarded, or has been: the target in origin form and canonical, `Host` as the authority.
    pub request: request::Parts,
    pub client: Caller<IpAddr>,
    /// `http` or `https`, by which the client came.
    pub scheme: &'static str,
    /// The host that the client asked for, where a trusted proxy says that.
    pub asked_host: Option<HeaderValue>,
    /// The client's certificate, verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub response: Option<ResponseHead>,
    pub purpose: Purpose,
    /// What plugins have read and made of it, where responses may be stored.
    pub taint: Option<Box<Taint>>,
    /// How often plugins may have changed the request.
    request_edits: u32,
    notes: Vec<(String, String)>,
    /// Fields of the request that plugins have set or removed.
    settled: Names,
    /// Headers that plugins want on the response, each name once.
    response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of headers that plugins may still add.
    room: usize,
    /// What plugins have read or made of the bodies; nothing as long as none has.
    bodies: Option<Box<Bodies>>,
    /// What is recorded of it.
    pub(super) recorded: UnderWay,
}

#[derive(Debug, Clone, Default)]
struct Bodies {
    request: Option<Known>,
    response: Option<Known>,
    /// As they were read, whatever has been put in their place since.
    request_came: Option<Bytes>,
    response_came: Option<Bytes>,
}

/// A body that a plugin has read or made.
#[derive(Debug, Clone)]
enum Known {
    Read(Bytes),
    /// And it is still to be put in the place of the one that is there.
    Made(Bytes),
}

impl Known {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Read(bytes) | Self::Made(bytes) => bytes,
        }
    }

    /// What is to be put in place; once.
    fn take_made(&mut self) -> Option<Bytes> {
        let Self::Made(bytes) = self else { return None };
        let bytes = bytes.clone();
        *self = Self::Read(bytes.clone());
        Some(bytes)
    }
}

/// The exchange while a request is on its way: here, or lent to the hook that runs.
#[derive(Debug)]
pub struct ExchangeSlot(Option<Box<Exchange>>);

impl ExchangeSlot {
    pub fn new(exchange: Exchange) -> Self {
        Self(Some(Box::new(exchange)))
    }

    pub(super) fn lend<T>(&mut self, call: impl FnOnce(Box<Exchange>) -> (Box<Exchange>, T)) -> T {
        let (exchange, result) = call(self.0.take().expect(Self::RETURNED));
        self.0 = Some(exchange);
        result
    }

    /// Takes the exchange for a call that may wait, and be given up while it does.
    pub(super) fn take(&mut self) -> Box<Exchange> {
        self.0.take().expect(Self::RETURNED)
    }

    pub(super) fn put_back(&mut self, exchange: Box<Exchange>) {
        self.0 = Some(exchange);
    }

    /// The exchange, unless it is lent and was not given back.
    pub fn there(&self) -> Option<&Exchange> {
        self.0.as_deref()
    }

    const RETURNED: &str = "whoever borrows the exchange gives it back";
}

impl std::ops::Deref for ExchangeSlot {
    type Target = Exchange;

    fn deref(&self) -> &Exchange {
        self.0.as_ref().expect(Self::RETURNED)
    }
}

impl std::ops::DerefMut for ExchangeSlot {
    fn deref_mut(&mut self) -> &mut Exchange {
        self.0.as_mut().expect(Self::RETURNED)
    }
}

/// The head of a response on its way to the client.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub parts: response::Parts,
    /// The endpoint that answered.
    pub endpoint: Option<HeaderValue>,
    /// It was stored.
    pub from_cache: bool,
}

/// An answer that a plugin has made, checked.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Exchange {
    /// Bytes of headers that all plugins together may add to a request and to its response.
    const ROOM: usize = 64 << 10;
    /// Bytes of notes, names included.
    const NOTES: usize = 8 << 10;

    pub fn new(
        request: request::Parts,
        client: Caller<IpAddr>,
        scheme: &'static str,
        route: Arc<str>,
        upstream: Arc<str>,
    ) -> Self {
        Self {
            request,
            client,
            scheme,
            asked_host: None,
            certificate: None,
            route,
            upstream,
            response: None,
            purpose: Purpose::Traffic,
            taint: None,
            request_edits: 0,
            notes: Vec::new(),
            settled: Names::default(),
            response_headers: Vec::new(),
            room: Self::ROOM,
            bodies: None,
            recorded: UnderWay::default(),
        }
    }

    /// A number that is another after a plugin has changed the request.
    pub fn request_edits(&self) -> u32 {
        self.request_edits
    }

    /// Whether it has come from a client, and is not only explained.
    pub fn is_traffic(&self) -> bool {
        matches!(self.purpose, Purpose::Traffic)
    }

    /// The same once more, for whoever is to change it without effect. What others have left with the messages for
    /// themselves stays with this one.
    pub fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.request.extensions.clear();
        if let Some(response) = &mut copy.response {
            response.parts.extensions.clear();
        }
        copy
    }

    /// The body that a plugin wants in the place of the request's; once.
    pub fn take_made_request_body(&mut self) -> Option<Bytes> {
        self.bodies.as_mut()?.request.as_mut()?.take_made()
    }

    /// The same for the response's.
    pub fn take_made_response_body(&mut self) -> Option<Bytes> {
        self.bodies.as_mut()?.response.as_mut()?.take_made()
    }

    /// There is another response than the one whose body may be known.
    pub fn forget_response_body(&mut self) {
        if let Some(bodies) = &mut self.bodies {
            (bodies.response, bodies.response_came) = (None, None);
        }
    }

    pub(super) fn request_body(&self) -> Option<&Bytes> {
        self.bodies.as_ref()?.request.as_ref().map(Known::bytes)
    }

    pub(super) fn response_body(&self) -> Option<&Bytes> {
        self.bodies.as_ref()?.response.as_ref().map(Known::bytes)
    }

    /// The request's body has been read.
    pub(super) fn know_request_body(&mut self, content: Bytes) {
        let bodies = self.bodies.get_or_insert_default();
        bodies.request_came = Some(content.clone());
        bodies.request = Some(Known::Read(content));
    }

    /// The request's body as it was read, if it was.
    pub(super) fn request_as_it_came(&self) -> Option<&Bytes> {
        self.bodies.as_ref()?.request_came.as_ref()
    }

    /// The same of the response's.
    pub(super) fn response_as_it_came(&self) -> Option<&Bytes> {
        self.bodies.as_ref()?.response_came.as_ref()
    }

    /// The response's body has been read.
    pub(super) fn know_response_body(&mut self, content: Bytes) {
        let bodies = self.bodies.get_or_insert_default();
        bodies.response_came = Some(content.clone());
        bodies.response = Some(Known::Read(content));
    }

    /// Puts a body in the place of the request's. False if that has been sent already.
    pub(super) fn make_request_body(&mut self, content: Bytes) -> bool {
        if self.response.is_some() {
            return false;
        }
        self.bodies.get_or_insert_default().request = Some(Known::Made(content));
        true
    }

    /// Puts a body in the place of the response's. False if there is no response yet.
    pub(super) fn make_response_body(&mut self, content: Bytes) -> bool {
        if self.response.is_none() {
            return false;
        }
        self.bodies.get_or_insert_default().response = Some(Known::Made(content));
        true
    }

    pub fn id(&self) -> Option<&HeaderValue> {
        self.request.headers.get("x-request-id")
    }

    /// The host that the client asked for, or that a plugin has put in its place.
    pub fn authority(&self) -> Option<&HeaderValue> {
        let asked = self.asked_host.as_ref().filter(|_| !self.settled.hold("host"));
        asked.or_else(|| self.request.headers.get(header::HOST))
    }

    /// The notes of all plugins: name and value.
    pub fn notes(&self) -> &[(String, String)] {
        &self.notes
    }

    pub(super) fn note(&self, name: &str) -> Option<&str> {
        self.notes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a note, if there is room for it.
    pub fn set_note(&mut self, name: String, value: String) {
        self.notes.retain(|(key, _)| *key != name);
        let size: usize = self.notes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.notes.len() < 64 && size + name.len() + value.len() <= Self::NOTES {
            self.notes.push((name, value));
        }
    }

    /// Fields of the request that plugins have set or removed. Nobody else has a say in those.
    pub fn settled(&self) -> &Names {
        &self.settled
    }

    /// The request's headers, to be changed; not after it has been forwarded.
    pub(super) fn request_edit(&mut self) -> Result<HeaderEdit<'_>, Edit> {
        if self.response.is_some() {
            return Err(Edit::Forbidden);
        }
        self.request_edits = self.request_edits.wrapping_add(1);
        let bounds = Bounds { only_host: &OF_THE_PROXY, room: &mut self.room };
        Ok(HeaderEdit { headers: &mut self.request.headers, settled: Some(&mut self.settled), bounds })
    }

    /// The response's headers, to be changed.
    pub(super) fn response_edit(&mut self) -> Result<HeaderEdit<'_>, Edit> {
        let response = self.response.as_mut().ok_or(Edit::Forbidden)?;
        let bounds = Bounds { only_host: &OF_A_CONNECTION, room: &mut self.room };
        Ok(HeaderEdit { headers: &mut response.parts.headers, settled: None, bounds })
    }

    /// Sets a header of the response before there is one.
    pub(super) fn set_response_header(&mut self, name: &str, value: String) -> Result<(), Edit> {
        if self.response.is_some() {
            return Err(Edit::Forbidden);
        }
        let mut bounds = Bounds { only_host: &OF_A_CONNECTION, room: &mut self.room };
        let (name, value) = bounds.check(name, value)?;
        self.response_headers.retain(|(other, _)| *other != name);
        self.response_headers.push((name, value));
        Ok(())
    }

    /// What plugins want on the response, by name and in the order in which they said so.
    pub fn response_headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.response_headers
    }

    /// Puts on a response what plugins want there; once.
    pub fn apply_response_headers(&mut self, headers: &mut HeaderMap) {
        for (name, value) in std::mem::take(&mut self.response_headers) {
            // One with 32,768 headers has room for no other.
            let _ = headers.try_insert(name, value);
        }
    }

    pub(super) fn set_target(&mut self, target: &str) -> Result<(), Edit> {
        if self.response.is_some() {
            return Err(Edit::Forbidden);
        }
        self.request_edits = self.request_edits.wrapping_add(1);
        // It would be none in the end, and the way there takes the longer the longer it is.
        if target.len() > usize::from(u16::MAX) {
            return Err(Edit::InvalidValue);
        }
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = path::canonical(path).map_err(|_| Edit::InvalidValue)?;
        let query = query.map(path::canonical_query);
        let target = match &query {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path.as_ref()),
        };
        let target = target.map_err(|_| Edit::InvalidValue)?;
        // A fragment would be dropped in silence, and the target no longer be the one that was asked for.
        if target.query() != query.as_deref() {
            return Err(Edit::InvalidValue);
        }
        self.request.uri = target.into();
        Ok(())
    }
}

/// Headers that a plugin is about to change.
pub(super) struct HeaderEdit<'a> {
    headers: &'a mut HeaderMap,
    /// Of a request: which fields plugins have changed.
    settled: Option<&'a mut Names>,
    bounds: Bounds<'a>,
}

/// What a plugin may make of the headers of a message.
struct Bounds<'a> {
    only_host: &'static [&'static str],
    /// Bytes that may still be added.
    room: &'a mut usize,
}

impl HeaderEdit<'_> {
    pub fn set(&mut self, name: &str, value: String) -> Result<(), Edit> {
        let (name, value) = self.bounds.check(name, value)?;
        self.settle(&name);
        self.headers.try_insert(name, value).map(drop).map_err(|_| Edit::TooLarge)
    }

    pub fn append(&mut self, name: &str, value: String) -> Result<(), Edit> {
        let (name, value) = self.bounds.check(name, value)?;
        if name == header::HOST {
            return Err(Edit::Forbidden);
        }
        if let Some(settled) = &mut self.settled {
            settled.note(&name);
        }
        self.headers.try_append(name, value).map(drop).map_err(|_| Edit::TooLarge)
    }

    pub fn remove(&mut self, name: &str) -> Result<(), Edit> {
        if self.bounds.is_the_hosts(name) || name.eq_ignore_ascii_case("host") {
            return Err(Edit::Forbidden);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Edit::InvalidName)?;
        self.headers.remove(&name);
        self.settle(&name);
        Ok(())
    }

    /// A field of the request is as a plugin wants it, so it must not be there under another spelling.
    fn settle(&mut self, name: &HeaderName) {
        let Some(settled) = &mut self.settled else { return };
        settled.note(name);
        let is_other = |other: &&HeaderName| {
            *other != name && field::is_same_to_some_server(other.as_str(), name.as_str())
        };
        // As a rule there is none.
        while let Some(other) = self.headers.keys().find(is_other).cloned() {
            self.headers.remove(other);
        }
    }
}

impl Bounds<'_> {
    fn check(&mut self, name: &str, value: String) -> Result<(HeaderName, HeaderValue), Edit> {
        if self.is_the_hosts(name) {
            return Err(Edit::Forbidden);
        }
        // What a field costs beside its text, as HTTP/2 counts it (RFC 9113, section 10.5.1).
        let size = name.len() + value.len() + 32;
        // Before it is looked at, which takes the longer the longer it is.
        if size > Exchange::ROOM {
            return Err(Edit::TooLarge);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Edit::InvalidName)?;
        let value = to_value(value)?;
        if name == header::HOST && (value.is_empty() || !authority::is_valid(value.as_bytes())) {
            return Err(Edit::InvalidValue);
        }
        *self.room = self.room.checked_sub(size).ok_or(Edit::TooLarge)?;
        Ok((name, value))
    }

    fn is_the_hosts(&self, name: &str) -> bool {
        field::is_one_of(self.only_host, name)
    }
}

impl Reply {
    /// Checks what a plugin answered.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Result<Self, InvalidReply> {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or(InvalidReply::Status(status))?;
        let mut map = HeaderMap::with_capacity(headers.len().min(64));
        let mut room = Exchange::ROOM;
        let bounds = Bounds { only_host: &OF_A_CONNECTION, room: &mut room };
        let mut edit = HeaderEdit { headers: &mut map, settled: None, bounds };
        for (name, value) in headers {
            edit.append(&name, value)
                .map_err(|reason| InvalidReply::Header { name: brief(&name), reason })?;
        }
        Ok(Self { status, headers: map, body })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::text::joined, *};

    fn exchange() -> Exchange {
        let (parts, ()) =
            http::Request::get("/a?b").header("host", "example.com").body(()).unwrap().into_parts();
        Exchange::new(parts, Caller::Ip([127, 0, 0, 1].into()), "http", "route".into(), "upstream".into())
    }

    #[test]
    fn framing_and_hop_by_hop_fields_are_out_of_reach() {
        let mut exchange = exchange();
        let mut edit = exchange.request_edit().unwrap();
        for name in OF_THE_PROXY {
            assert_eq!(edit.set(name, "1".to_owned()), Err(Edit::Forbidden), "{name}");
            assert_eq!(edit.set(&name.to_uppercase(), "1".to_owned()), Err(Edit::Forbidden), "{name}");
            assert_eq!(edit.append(name, "1".to_owned()), Err(Edit::Forbidden), "{name}");
            assert_eq!(edit.remove(name), Err(Edit::Forbidden), "{name}");
        }
        assert_eq!(edit.remove("host"), Err(Edit::Forbidden));
        assert_eq!(edit.append("host", "b".to_owned()), Err(Edit::Forbidden));
        for name in ["x_forwarded_for", "X.Forwarded.For", "client_cert", "transfer_encoding", "X_Request_Id"]
        {
            assert_eq!(edit.set(name, "1".to_owned()), Err(Edit::Forbidden), "{name}");
            assert_eq!(edit.append(name, "1".to_owned()), Err(Edit::Forbidden), "{name}");
            assert_eq!(edit.remove(name), Err(Edit::Forbidden), "{name}");
        }
        for host in ["b/c", "u@evil", "u:p@evil", "", "a,b", "a b", ":80", "a:b"] {
            assert_eq!(edit.set("host", host.to_owned()), Err(Edit::InvalidValue), "{host}");
        }
        assert_eq!(edit.set("host", "b:81".to_owned()), Ok(()));
    }

    #[test]
    fn a_header_that_a_plugin_makes_is_a_header() {
        let mut exchange = exchange();
        let mut edit = exchange.request_edit().unwrap();
        for name in ["", " ", "a b", "a:", "ä", "a\r\nb", "a\0"] {
            assert_eq!(edit.set(name, "1".to_owned()), Err(Edit::InvalidName), "{name:?}");
        }
        for value in ["a\r\nb: c", "a\n", "\0", "\u{7f}", "€"] {
            assert_eq!(edit.set("x-a", value.to_owned()), Err(Edit::InvalidValue), "{value:?}");
        }
        assert_eq!(edit.set("x-a", "\u{e9}\ttab".to_owned()), Ok(()));
        assert_eq!(exchange.request.headers["x-a"].as_bytes(), b"\xe9\ttab");
        assert_eq!(joined(&exchange.request.headers, "x-a").as_deref(), Some("\u{e9}\ttab"));
    }

    #[test]
    fn what_a_plugin_says_stands_under_one_spelling_only() {
        let mut exchange = exchange();
        for name in ["x_consumer", "x.consumer", "x_role", "x_other"] {
            exchange.request.headers.append(name, HeaderValue::from_static("root"));
        }
        let mut edit = exchange.request_edit().unwrap();
        edit.set("X-Consumer", "alice".to_owned()).unwrap();
        edit.remove("x-role").unwrap();
        edit.append("x-list", "1".to_owned()).unwrap();
        let mut left: Vec<_> = exchange.request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-consumer", "x-list", "x_other"]);
        assert_eq!(exchange.request.headers["x-consumer"], "alice");
        for (name, is_settled) in
            [("x_consumer", true), ("x-role", true), ("x-list", true), ("x-other", false)]
        {
            assert_eq!(exchange.settled().hold(name), is_settled, "{name}");
        }
    }

    #[test]
    fn headers_cannot_be_added_without_end() {
        let mut exchange = exchange();
        let mut edit = exchange.request_edit().unwrap();
        let long = "x".repeat(10_000);
        let added = (0..100).take_while(|_| edit.append("x-long", long.clone()).is_ok()).count();
        assert_eq!(added, 6);
        assert_eq!(edit.append("x-long", long.clone()), Err(Edit::TooLarge));
        assert_eq!(exchange.set_response_header("x-long", long), Err(Edit::TooLarge));
    }

    #[test]
    fn what_is_wanted_on_the_response_is_there_once_there_is_one() {
        let mut exchange = exchange();
        for (name, value) in [("x-a", "1"), ("x-b", "2"), ("X-A", "3")] {
            assert_eq!(exchange.set_response_header(name, value.to_owned()), Ok(()));
        }
        assert_eq!(
            exchange.set_response_header("transfer-encoding", "chunked".to_owned()),
            Err(Edit::Forbidden)
        );
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("0"));
        headers.append("x-a", HeaderValue::from_static("0"));
        exchange.apply_response_headers(&mut headers);
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-a", b"3".as_slice()), ("x-b", b"2")]);
        assert_eq!(exchange.response_headers(), []);
    }

    #[test]
    fn a_target_is_made_canonical_or_refused() {
        let mut exchange = exchange();
        exchange.set_target("/a?q=é").unwrap();
        assert_eq!(exchange.request.uri, "/a?q=%C3%A9");
        exchange.set_target("/x/../y//z?q=1?2").unwrap();
        assert_eq!(exchange.request.uri, "/y/z?q=1?2");
        for target in ["", "y", "*", "http://other/", "/a%2fb", "/a?b#c", "/;/a", "/a b", "/?a\r\nb"] {
            assert_eq!(exchange.set_target(target), Err(Edit::InvalidValue), "{target:?}");
        }
        assert_eq!(exchange.request.uri, "/y/z?q=1?2");
    }

    #[test]
    fn a_reply_cannot_break_the_framing() {
        assert!(Reply::new(204, vec![], Bytes::new()).is_ok());
        assert!(Reply::new(101, vec![], Bytes::new()).is_err());
        assert!(Reply::new(600, vec![], Bytes::new()).is_err());
        for (name, value) in
            [("content-length", "5"), ("transfer-encoding", "chunked"), ("x", "a\nb"), ("a b", "")]
        {
            let headers = vec![(name.to_owned(), value.to_owned())];
            assert!(Reply::new(200, headers, Bytes::new()).is_err(), "{name}");
        }
    }

    #[test]
    fn repeated_fields_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("cookie", HeaderValue::from_static("c=1"));
        headers.append("cookie", HeaderValue::from_static("d=2"));
        assert_eq!(joined(&headers, "accept").as_deref(), Some("a, b"));
        assert_eq!(joined(&headers, "cookie").as_deref(), Some("c=1; d=2"));
        assert_eq!(joined(&headers, "x"), None);
        assert_eq!(joined(&headers, "not a name"), None);
    }

    #[test]
    fn notes_have_an_end() {
        let mut exchange = exchange();
        for number in 0..100 {
            exchange.set_note(format!("n{number}"), "v".into());
        }
        assert_eq!(exchange.notes.len(), 64);
        exchange.set_note("n1".into(), "x".repeat(9000));
        assert_eq!(exchange.note("n1"), None);
        assert_eq!(exchange.note("n2"), Some("v"));
    }
}

//! In which encoding does the client get it?
//!
//! [`negotiate`] decides by what the route wants, the client can read and the upstream has sent; it takes values
//! and returns one. [`encode`] does it: to the head at once, to the body as it passes.
//!
//! Encoded and not, a content is the same resource but not the same bytes. So a strong validator becomes a weak
//! one, digests and ranges go, and whoever stores the response is told what it depends on (RFC 9110, sections
//! 7.7, 8.8.1 and 12.5.5).

mod accept;
mod coded;
mod once;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request, response};
use http_body::Body;

use crate::{
    body::Content,
    cache::encoded::Kept,
    config::{Compress, Encoding},
    drain::Drain,
};
use accept::Accept;
use coded::Coded;

/// What a request says on encodings, on a route that has settings for them.
#[derive(Debug)]
pub struct Wishes<'a> {
    settings: &'a Compress,
    route: &'a Arc<str>,
    accept: Accept,
    /// Whether the client can tell a content that ends from one that breaks off when its length is not known
    /// before (RFC 9112, section 6.3).
    sees_end: bool,
    forbids_changes: bool,
    is_head: bool,
    /// The entity tags of what the client has got.
    known: Option<HeaderValue>,
}

/// What becomes of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It stays as it is, for any client.
    Settled,
    /// It stays as it is, for this client.
    AsIs,
    Encode(Encoding),
    Decode(Encoding),
}

impl<'a> Wishes<'a> {
    /// Reads a request before it is forwarded, and brings its preconditions into a form that the upstream can
    /// compare. `route` is the name to use in the log.
    pub fn of(settings: &'a Compress, route: &'a Arc<str>, request: &mut request::Parts) -> Self {
        let headers = &mut request.headers;
        strengthen(headers);
        Self {
            settings,
            route,
            accept: Accept::read(headers),
            sees_end: request.version > Version::HTTP_10,
            forbids_changes: has_no_transform(headers),
            is_head: request.method == Method::HEAD,
            known: headers.get(header::IF_NONE_MATCH).cloned(),
        }
    }

    /// The encoding that the client would get of a content that is worth it, if there is one that it can read.
    pub fn best(&self) -> Option<Encoding> {
        let may_change = self.sees_end && !self.forbids_changes;
        self.accept.best(&self.settings.encodings).filter(|_| may_change)
    }
}

/// Decides on a content of this many bytes; none if that is not known.
///
/// There is no 406: whoever cannot read any encoding that there is gets the content as it is (RFC 9110, section
/// 12.5.3, leaves it to the server).
pub fn negotiate(wishes: &Wishes<'_>, response: &response::Parts, length: Option<u64>) -> Decision {
    let Wishes { settings, accept, .. } = wishes;
    let headers = &response.headers;
    let has_content = !matches!(
        response.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    ) && !response.status.is_informational();
    let is_part = response.status == StatusCode::PARTIAL_CONTENT;
    let has_range = is_part || headers.contains_key(header::CONTENT_RANGE);
    if !has_content || (has_range && !is_part) || length == Some(0) || has_no_transform(headers) {
        return Decision::Settled;
    }
    if is_part {
        // It stays a part of what is not encoded, and varies as the whole would (RFC 9110, section 15.3.7).
        let depends = depends_on_client(settings, headers, range_of(headers));
        return if depends { Decision::AsIs } else { Decision::Settled };
    }
    let may_change = wishes.sees_end && !wishes.forbids_changes;
    match encoding(headers) {
        Err(Unknown) => Decision::Settled,
        Ok(Some(encoding)) if may_change && !accept.takes(encoding) && accept.takes_identity() => {
            Decision::Decode(encoding)
        }
        Ok(Some(_)) => Decision::AsIs,
        Ok(None) => {
            let is_worth_it = depends_on_client(settings, headers, length);
            match accept.best(&settings.encodings) {
                _ if !is_worth_it => Decision::Settled,
                Some(encoding) if may_change => Decision::Encode(encoding),
                _ => Decision::AsIs,
            }
        }
    }
}

/// Whether the whole of a content of this length is one thing for some clients and another for others.
fn depends_on_client(settings: &Compress, headers: &HeaderMap, length: Option<u64>) -> bool {
    match encoding(headers) {
        Err(Unknown) => false,
        Ok(Some(_)) => true,
        Ok(None) => {
            !settings.encodings.is_empty()
                && length.is_none_or(|length| length >= settings.minimum.get())
                && is_of_type(settings, headers)
        }
    }
}

/// The length of the whole that a part is of, if the part says so.
fn range_of(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.trim().parse().ok()
}

/// Brings a response into the encoding that the client wants.
///
/// The response to HEAD gets the headers that the one to GET would have (RFC 9110, section 9.3.2). What is stored, if that
/// is given, is encoded once for all clients.
pub fn encode(
    wishes: Option<&Wishes<'_>>,
    response: Response<Content>,
    kept: Option<(Kept, &Drain)>,
) -> Response<Content> {
    let Some(wishes) = wishes else { return response };
    let (mut head, content) = response.into_parts();
    let length = length(wishes, &head.headers, &content);
    let decision = negotiate(wishes, &head, length);
    let headers = &mut head.headers;
    match decision {
        Decision::Settled if head.status == StatusCode::NOT_MODIFIED => {
            revalidated(wishes, headers);
            if let Some((Kept { stored, .. }, _)) = &kept
                && depends_on_client(wishes.settings, &stored.headers, Some(stored.body.len()))
            {
                vary(headers);
            }
        }
        Decision::Settled => {}
        Decision::AsIs => vary(headers),
        Decision::Encode(encoding) => {
            changed(headers);
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        Decision::Decode(_) => {
            changed(headers);
            headers.remove(header::CONTENT_ENCODING);
        }
    }
    let Compress { levels, decode, .. } = wishes.settings;
    let content = match decision {
        Decision::Encode(encoding) if !wishes.is_head => {
            // Hooks may have put another content in its place.
            match kept.filter(|(kept, _)| kept.stored.body.is(&content)) {
                Some((kept, drain)) => {
                    let (content, length) = once::encoded(&kept, encoding, levels, drain);
                    if let Some(length) = length {
                        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                    }
                    content
                }
                None => Content::Changed(Box::new(Coded::encoded(content, encoding, levels, length))),
            }
        }
        Decision::Decode(encoding) if !wishes.is_head => {
            Content::Changed(Box::new(Coded::decoded(content, encoding, decode, wishes.route.clone())))
        }
        _ => content,
    };
    Response::from_parts(head, content)
}

/// The length of a content, or of what the content would be if it had been asked for.
fn length(wishes: &Wishes<'_>, headers: &HeaderMap, content: &Content) -> Option<u64> {
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    stated.or_else(|| content.size_hint().exact().filter(|_| !wishes.is_head))
}

/// An encoding, or several, that nobody here can read.
struct Unknown;

fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Unknown> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unknown);
    }
    match accept::named(value.as_bytes()) {
        Some(encoding) => Ok(Some(encoding)),
        None if value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(None),
        None => Err(Unknown),
    }
}

fn is_of_type(settings: &Compress, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let content_type = value.split_once(';').map_or(value, |(content_type, _)| content_type).trim();
    settings.types.iter().any(|pattern| pattern.matches(content_type))
}

/// Whether `Cache-Control` says that the content is to stay as it is (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
fn has_no_transform(headers: &HeaderMap) -> bool {
    headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let mut is_quoted = false;
        let mut directives = value.as_bytes().split(|&byte| {
            is_quoted ^= byte == b'"';
            byte == b',' && !is_quoted
        });
        directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
}

/// What the head says is no longer true of the bytes.
fn changed(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    for name in &coded::DIGESTS {
        headers.remove(name);
    }
    weaken(headers);
    vary(headers);
}

/// A client that was given a weak tag for what the upstream knows by a strong one finds that tag again in what
/// says that it is still good (RFC 9111, section 4.3.4).
fn revalidated(wishes: &Wishes<'_>, headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    let has_weak = wishes.known.as_ref().is_some_and(|known| tags(known.as_bytes()).any(|tag| tag == weak));
    if has_weak {
        weaken(headers);
        vary(headers);
    }
}

fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG) else { return };
    match tag.as_bytes() {
        [b'W', b'/', ..] => {}
        strong @ [b'"', ..] => {
            if let Ok(weak) = HeaderValue::from_maybe_shared(Bytes::from([b"W/", strong].concat())) {
                headers.insert(header::ETAG, weak);
            }
        }
        // This is no entity tag, and cannot be made a weak one.
        _ => drop(headers.remove(header::ETAG)),
    }
}

/// Says that the response depends on what the client can read.
fn vary(headers: &mut HeaderMap) {
    let is_said = headers.get_all(header::VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    });
    if !is_said {
        let _ = headers.try_append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Names a weak tag in `If-Match` by the strong one that it may have been made of. `If-Match` compares strongly,
/// where a weak tag equals nothing (RFC 9110, section 13.1.1): with it, nobody could change what they have read
/// encoded. A tag that is weak at the upstream still equals nothing there. `If-None-Match` compares weakly, and
/// goes on as it is.
fn strengthen(headers: &mut HeaderMap) {
    let http::header::Entry::Occupied(mut entry) = headers.entry(header::IF_MATCH) else { return };
    for value in entry.iter_mut() {
        if tags(value.as_bytes()).any(|tag| tag.starts_with(b"W/")) {
            let strong: Vec<_> =
                tags(value.as_bytes()).map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag)).collect();
            if let Ok(strong) = HeaderValue::from_maybe_shared(Bytes::from(strong.join(&b", "[..]))) {
                *value = strong;
            }
        }
    }
}

/// The members of a list of entity tags, which may hold commas.
fn tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let members = value.split(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == b',' && !is_quoted
    });
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use Decision::{AsIs, Decode, Encode, Settled};
    use Encoding::{Brotli, Gzip, Zstd};

    fn map(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn request(lines: &[&str]) -> request::Parts {
        let mut request = http::Request::new(()).into_parts().0;
        request.headers = map(lines);
        request
    }

    fn response(status: u16, lines: &[&str]) -> response::Parts {
        let mut response = Response::new(()).into_parts().0;
        response.status = StatusCode::from_u16(status).unwrap();
        response.headers = map(lines);
        response
    }

    fn route() -> Arc<str> {
        "route".into()
    }

    fn headers_after(asked: &[&str], status: u16, lines: &[&str]) -> Vec<String> {
        let (settings, route) = (Compress::default(), route());
        let wishes = Wishes::of(&settings, &route, &mut request(asked));
        let response = Response::from_parts(response(status, lines), Content::Whole(Bytes::new()));
        let head = encode(Some(&wishes), response, None).into_parts().0;
        let line = |(name, value): (&header::HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let mut lines: Vec<_> = head.headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    const TEXT: &str = "content-type: text/html; charset=utf-8";
    const ANY: &[&str] = &["accept-encoding: gzip, deflate, br, zstd"];
    const GZIP: &[&str] = &["accept-encoding: gzip"];
    const NONE: &[&str] = &[];

    #[test]
    fn negotiation() {
        let many = Some(5000);
        type Lines = &'static [&'static str];
        /// What is shown; the request; status, headers and length of the response.
        type Case = (&'static str, Lines, u16, Lines, Option<u64>, Decision);
        let cases: &[Case] = &[
            ("text is encoded", ANY, 200, &[TEXT], many, Encode(Zstd)),
            ("with what the client can read", GZIP, 200, &[TEXT], many, Encode(Gzip)),
            ("of whatever length", GZIP, 200, &[TEXT], None, Encode(Gzip)),
            ("whatever became of the request", GZIP, 404, &[TEXT], many, Encode(Gzip)),
            ("for those who ask", NONE, 200, &[TEXT], many, AsIs),
            ("and not for others", &["accept-encoding: identity"], 200, &[TEXT], many, AsIs),
            ("nor with what is not offered", &["accept-encoding: compress"], 200, &[TEXT], many, AsIs),
            ("what refuses all is not refused", &["accept-encoding: *;q=0"], 200, &[TEXT], many, AsIs),
            // What is the same for everybody.
            ("too short", GZIP, 200, &[TEXT], Some(1023), Settled),
            ("long enough", GZIP, 200, &[TEXT], Some(1024), Encode(Gzip)),
            ("empty", GZIP, 200, &[TEXT], Some(0), Settled),
            ("dense", GZIP, 200, &["content-type: image/png"], many, Settled),
            ("of no type", GZIP, 200, &[], many, Settled),
            ("not to be parsed", GZIP, 200, &["content-type: \u{e9}"], many, Settled),
            ("a suffix", GZIP, 200, &["content-type: application/problem+json"], many, Encode(Gzip)),
            ("a picture of text", GZIP, 200, &["content-type: Image/SVG+XML ;a=b"], many, Encode(Gzip)),
            ("events", GZIP, 200, &["content-type: text/event-stream"], None, Settled),
            ("a part", GZIP, 206, &[TEXT], many, AsIs),
            ("a part of what is short", GZIP, 206, &[TEXT, "content-range: bytes 0-1/9"], many, Settled),
            ("a part of a picture", GZIP, 206, &["content-type: image/png"], many, Settled),
            ("no satisfiable part", GZIP, 416, &[TEXT, "content-range: bytes */1"], many, Settled),
            ("no content", GZIP, 204, &[TEXT], None, Settled),
            ("reset", GZIP, 205, &[TEXT], None, Settled),
            ("not modified", GZIP, 304, &[TEXT], None, Settled),
            ("switching", GZIP, 101, &[TEXT], None, Settled),
            // Who wants it as it is.
            ("the upstream", GZIP, 200, &[TEXT, "cache-control: public, No-Transform"], many, Settled),
            (
                "in another field",
                GZIP,
                200,
                &[TEXT, "cache-control: a", "cache-control: no-transform"],
                many,
                Settled,
            ),
            (
                "not in quotes",
                GZIP,
                200,
                &[TEXT, "cache-control: x=\"a,no-transform,b\""],
                many,
                Encode(Gzip),
            ),
            (
                "the client",
                &["accept-encoding: gzip", "cache-control: no-transform"],
                200,
                &[TEXT],
                many,
                AsIs,
            ),
            // What is encoded already.
            ("never twice", GZIP, 200, &[TEXT, "content-encoding: gzip"], many, AsIs),
            ("nor anew", ANY, 200, &[TEXT, "content-encoding: gzip"], many, AsIs),
            ("by its old name", GZIP, 200, &[TEXT, "content-encoding: x-gzip"], many, AsIs),
            ("in nothing", GZIP, 200, &[TEXT, "content-encoding: identity"], many, Encode(Gzip)),
            ("decoded", GZIP, 200, &[TEXT, "content-encoding: br"], many, Decode(Brotli)),
            (
                "of any type",
                GZIP,
                200,
                &["content-type: image/png", "content-encoding: BR"],
                None,
                Decode(Brotli),
            ),
            ("of any length", GZIP, 200, &[TEXT, "content-encoding: br"], Some(1), Decode(Brotli)),
            (
                "for those who say nothing, anything will do",
                NONE,
                200,
                &[TEXT, "content-encoding: br"],
                many,
                AsIs,
            ),
            ("who can read neither", &["accept-encoding: *;q=0"], 200, &["content-encoding: br"], many, AsIs),
            ("unknown", GZIP, 200, &[TEXT, "content-encoding: compress"], many, Settled),
            ("two", GZIP, 200, &[TEXT, "content-encoding: br, zstd"], many, Settled),
            (
                "two fields",
                GZIP,
                200,
                &[TEXT, "content-encoding: br", "content-encoding: zstd"],
                many,
                Settled,
            ),
            (
                "not for the upstream",
                GZIP,
                200,
                &[TEXT, "content-encoding: br", "cache-control: no-transform"],
                many,
                Settled,
            ),
            ("not a part of it", GZIP, 206, &[TEXT, "content-encoding: br"], many, AsIs),
        ];
        let (settings, route) = (Compress::default(), route());
        for (what, asked, status, lines, length, wanted) in cases {
            let wishes = Wishes::of(&settings, &route, &mut request(asked));
            assert_eq!(negotiate(&wishes, &response(*status, lines), *length), *wanted, "{what}");
        }
    }

    #[test]
    fn a_client_that_could_not_tell_the_end_gets_what_has_a_length() {
        let (settings, route) = (Compress::default(), route());
        let mut request = request(GZIP);
        request.version = Version::HTTP_10;
        let wishes = Wishes::of(&settings, &route, &mut request);
        assert_eq!(negotiate(&wishes, &response(200, &[TEXT]), Some(5000)), AsIs);
        assert_eq!(negotiate(&wishes, &response(200, &["content-encoding: br"]), Some(5000)), AsIs);
    }

    #[test]
    fn settings_are_kept_to() {
        let settings = Compress { encodings: vec![], types: vec![], ..Compress::default() };
        let route = route();
        let wishes = Wishes::of(&settings, &route, &mut request(ANY));
        assert_eq!(negotiate(&wishes, &response(200, &[TEXT]), None), Settled);
        let wishes = Wishes::of(&settings, &route, &mut request(GZIP));
        assert_eq!(negotiate(&wishes, &response(200, &["content-encoding: br"]), None), Decode(Brotli));
    }

    #[test]
    fn the_head_is_true_of_what_is_sent() {
        let before = [
            TEXT,
            "content-length: 5000",
            "accept-ranges: bytes",
            "etag: \"1\"",
            "content-md5: x",
            "digest: x",
            "repr-digest: x",
            "content-digest: x",
            "x-kept: 1",
        ];
        let encoded = headers_after(GZIP, 200, &before);
        assert_eq!(
            encoded,
            ["content-encoding: gzip", TEXT, "etag: W/\"1\"", "vary: accept-encoding", "x-kept: 1"]
        );
        let decoded = headers_after(GZIP, 200, &[&before[..], &["content-encoding: br"]].concat());
        assert_eq!(decoded, [TEXT, "etag: W/\"1\"", "vary: accept-encoding", "x-kept: 1"]);
        // To HEAD as to GET.
        let (settings, route) = (Compress::default(), route());
        let mut head = request(GZIP);
        head.method = Method::HEAD;
        let wishes = Wishes::of(&settings, &route, &mut head);
        let response = Response::from_parts(response(200, &before), Content::Whole(Bytes::new()));
        let response = encode(Some(&wishes), response, None);
        assert_eq!(response.headers().len(), encoded.len());
        assert!(matches!(response.body(), Content::Whole(_)));
    }

    #[test]
    fn who_stores_it_is_told_what_it_depends_on() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &["vary: accept-encoding"]),
            (&["vary: *"], &["vary: *"]),
            (&["vary: origin"], &["vary: accept-encoding", "vary: origin"]),
            (&["vary: origin,Accept-Encoding"], &["vary: origin,Accept-Encoding"]),
            (&["vary: a", "vary: accept-encoding"], &["vary: a", "vary: accept-encoding"]),
        ];
        for (before, wanted) in cases {
            let lines = [&[TEXT, "content-length: 5000"], before].concat();
            for asked in [GZIP, NONE] {
                let after = headers_after(asked, 200, &lines);
                let vary: Vec<_> = after.iter().filter(|line| line.starts_with("vary")).collect();
                assert_eq!(vary, wanted, "{before:?}");
            }
        }
        let short = headers_after(GZIP, 200, &[TEXT, "content-length: 5"]);
        assert_eq!(short, ["content-length: 5", TEXT]);
    }

    #[test]
    fn a_tag_is_weak_for_what_is_encoded() {
        let cases = [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None), ("", None)];
        for (before, wanted) in cases {
            let after = headers_after(GZIP, 200, &[TEXT, "content-length: 5000", &format!("etag: {before}")]);
            let etag = after.iter().find_map(|line| line.strip_prefix("etag: "));
            assert_eq!(etag, wanted, "{before}");
        }
    }

    #[test]
    fn a_client_finds_the_tag_again_that_it_has() {
        let cases: [(&[&str], &str, &str); 8] = [
            (&["if-none-match: W/\"a\""], "\"a\"", "W/\"a\""),
            (&["if-none-match: \"b,W/\", W/\"a\""], "\"a\"", "W/\"a\""),
            (&["if-none-match: \"a\""], "\"a\"", "\"a\""),
            (&["if-none-match: W/\"b\""], "\"a\"", "\"a\""),
            (&["if-none-match: *"], "\"a\"", "\"a\""),
            (&["if-none-match: W/\"a\""], "W/\"a\"", "W/\"a\""),
            (&["if-none-match: \",W/\"a\""], "\"a\"", "\"a\""),
            (&[], "\"a\"", "\"a\""),
        ];
        for (asked, before, wanted) in cases {
            let after = headers_after(asked, 304, &[&format!("etag: {before}")]);
            assert_eq!(after[0], format!("etag: {wanted}"), "{asked:?} {before}");
        }
    }

    #[test]
    fn what_was_read_encoded_can_be_changed() {
        let cases = [
            ("W/\"a\"", "\"a\""),
            ("\"a\"", "\"a\""),
            ("*", "*"),
            ("\"b,W/\",W/\"a\" ,\"c\"", "\"b,W/\", \"a\", \"c\""),
            ("w/\"a\"", "w/\"a\""),
            ("\u{e9}W/", "\u{e9}W/"),
        ];
        let (settings, route) = (Compress::default(), route());
        for (before, wanted) in cases {
            let line = format!("if-match: {before}");
            let mut request = request(&[&line, "if-none-match: W/\"a\""]);
            Wishes::of(&settings, &route, &mut request);
            assert_eq!(request.headers["if-match"].as_bytes(), wanted.as_bytes(), "{before}");
            assert_eq!(request.headers["if-none-match"], "W/\"a\"");
        }
    }
}

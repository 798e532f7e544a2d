//! Is what somebody holds still good, and what is new about it?
//!
//! Conditions of clients answered from stored responses, conditions put to the origin, and what its answer
//! changes: RFC 9111, sections 3.2 and 4.3; RFC 9110, section 13.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Time, date::parse, members};

/// Whether the client holds what is stored, by the conditions it sent (RFC 9111, section 4.3.2).
pub fn is_not_modified(request: &HeaderMap, status: StatusCode, stored: &HeaderMap, now: Time) -> bool {
    if !status.is_success() {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let held = stored.get(header::ETAG).map(|tag| opaque(tag.as_bytes()));
        return members(request, &header::IF_NONE_MATCH)
            .any(|tag| tag == b"*" || held.is_some_and(|held| opaque(tag) == held));
    }
    let date = |headers: &HeaderMap, name: HeaderName| parse(headers.get(name)?.as_bytes(), now);
    let Some(since) = date(request, header::IF_MODIFIED_SINCE) else { return false };
    let modified = date(stored, header::LAST_MODIFIED).or_else(|| date(stored, header::DATE));
    modified.is_some_and(|modified| modified <= since)
}

/// An entity tag without its weakness, as the weak comparison looks at it (RFC 9110, section 8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a request holds conditions that only its origin can judge.
pub fn is_met_elsewhere(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// The fields of a stored response that a 304 carries (RFC 9110, section 15.4.5).
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    static NAMES: [HeaderName; 9] = [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::VARY,
        header::VIA,
        HeaderName::from_static("cdn-cache-control"),
    ];
    let mut headers = HeaderMap::new();
    for name in &NAMES {
        for value in stored.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// The conditions that ask the origin whether a stored response is still good (RFC 9111, section 4.3.1). None if
/// there is nothing to ask by.
pub fn conditional_headers(stored: &HeaderMap) -> Option<[Option<(HeaderName, HeaderValue)>; 2]> {
    let of = |from, to| Some((to, HeaderValue::clone(stored.get(from)?)));
    let conditions =
        [of(header::ETAG, header::IF_NONE_MATCH), of(header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    conditions.iter().any(Option::is_some).then_some(conditions)
}

/// Puts the conditions of the cache in the place of the client's.
pub fn with_conditions(request: &mut HeaderMap, conditions: [Option<(HeaderName, HeaderValue)>; 2]) {
    forget_conditions(request);
    for (name, value) in conditions.into_iter().flatten() {
        request.insert(name, value);
    }
}

/// Makes a request one for the whole of what is there now.
pub fn forget_conditions(request: &mut HeaderMap) {
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE] {
        request.remove(name);
    }
}

/// What a 304 means for the stored response that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Its fields from now on.
    Fields(HeaderMap),
    /// It is about another representation: nothing stored may be changed by it (section 4.3.4).
    Other,
}

impl Update {
    /// Takes the fields of a 304 over into those of a stored response (section 3.2).
    pub fn of(stored: &HeaderMap, not_modified: &HeaderMap) -> Self {
        let is_strong = |tag: &&HeaderValue| tag.as_bytes().starts_with(b"\"");
        let tag = not_modified.get(header::ETAG).filter(is_strong);
        if tag.is_some() && stored.get(header::ETAG).is_some() && tag != stored.get(header::ETAG) {
            return Self::Other;
        }
        Self::Fields(merged(stored, not_modified))
    }
}

/// The same for a 200 to HEAD (section 4.3.5). None if it is about something else than what is stored.
pub fn update_head(stored: &HeaderMap, stored_length: u64, head: &HeaderMap) -> Option<HeaderMap> {
    is_same_after_head(stored, stored_length, head).then(|| merged(stored, head))
}

/// Whether a 200 to HEAD is about what is stored: by its validators and its length.
pub fn is_same_after_head(stored: &HeaderMap, stored_length: u64, head: &HeaderMap) -> bool {
    let agrees = |name: HeaderName| head.get(&name).is_none_or(|value| stored.get(&name) == Some(value));
    let length =
        head.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    agrees(header::ETAG)
        && agrees(header::LAST_MODIFIED)
        && agrees(header::CONTENT_ENCODING)
        && length.is_none_or(|length| length == stored_length)
}

/// Replaces fields by name, but for those that belong to the stored content. What is a digest of the content is one
/// of none in a message that has none (RFC 9530, section 2).
fn merged(stored: &HeaderMap, new: &HeaderMap) -> HeaderMap {
    let is_kept = |name: &HeaderName| {
        matches!(name.as_str(), "content-digest" | "content-md5")
            || matches!(
                *name,
                header::CONTENT_LENGTH
                    | header::CONTENT_ENCODING
                    | header::CONTENT_RANGE
                    | header::TRANSFER_ENCODING
                    | header::CONNECTION
                    | header::TRAILER
            )
    };
    let mut headers = stored.clone();
    // An age that was stated is not that of what comes now.
    headers.remove(header::AGE);
    for name in new.keys().filter(|name| !is_kept(name)) {
        headers.remove(name);
        for value in new.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    #[test]
    fn conditions_of_clients_are_answered() {
        let tagged = headers(&[("etag", "\"a\""), ("last-modified", THEN)]);
        let weak = headers(&[("etag", "W/\"a\"")]);
        let dated = headers(&[("last-modified", THEN)]);
        let plain = headers(&[("date", THEN)]);
        for (request, stored, expected) in [
            (&[("if-none-match", "\"a\"")][..], &tagged, true),
            (&[("if-none-match", "W/\"a\"")], &tagged, true),
            (&[("if-none-match", "\"a\"")], &weak, true),
            (&[("if-none-match", "\"b\", \"a\"")], &tagged, true),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], &tagged, true),
            (&[("if-none-match", "\"x, \\\"a\"")], &tagged, false),
            (&[("if-none-match", "\"b\"")], &tagged, false),
            (&[("if-none-match", "*")], &tagged, true),
            (&[("if-none-match", "*")], &plain, true),
            (&[("if-none-match", "\"b\""), ("if-modified-since", LATER)], &tagged, false),
            (&[("if-none-match", "\"a\"")], &dated, false),
            (&[("if-modified-since", THEN)], &dated, true),
            (&[("if-modified-since", LATER)], &dated, true),
            (&[("if-modified-since", EARLIER)], &dated, false),
            (&[("if-modified-since", THEN)], &plain, true),
            (&[("if-modified-since", EARLIER)], &plain, false),
            (&[("if-modified-since", "x")], &dated, false),
            (&[], &tagged, false),
        ] {
            let found = is_not_modified(&headers(request), StatusCode::OK, stored, Time(0));
            assert_eq!(found, expected, "{request:?} {stored:?}");
        }
        let missing =
            is_not_modified(&headers(&[("if-none-match", "*")]), StatusCode::NOT_FOUND, &tagged, Time(0));
        assert!(!missing, "a condition is about what is there");
    }

    #[test]
    fn a_304_renews_all_but_what_belongs_to_the_content() {
        let stored = headers(&[
            ("etag", "\"a\""),
            ("x", "1"),
            ("y", "1"),
            ("y", "2"),
            ("age", "7"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-md5", "a"),
        ]);
        let new = headers(&[
            ("etag", "\"a\""),
            ("y", "3"),
            ("z", "4"),
            ("content-length", "0"),
            ("content-encoding", "br"),
            ("content-md5", "b"),
        ]);
        let expected = headers(&[
            ("etag", "\"a\""),
            ("x", "1"),
            ("y", "3"),
            ("z", "4"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-md5", "a"),
        ]);
        assert_eq!(Update::of(&stored, &new), Update::Fields(expected));
        assert_eq!(Update::of(&stored, &headers(&[("etag", "\"b\"")])), Update::Other);
        assert!(matches!(Update::of(&stored, &headers(&[("etag", "W/\"b\"")])), Update::Fields(_)));
        assert!(matches!(Update::of(&stored, &headers(&[])), Update::Fields(_)));
    }

    #[test]
    fn a_head_renews_what_it_is_about() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", THEN), ("x", "1")]);
        for (head, expected) in [
            (&[][..], true),
            (&[("etag", "\"a\"")], true),
            (&[("etag", "\"b\"")], false),
            (&[("last-modified", THEN)], true),
            (&[("last-modified", EARLIER)], false),
            (&[("content-length", "5")], true),
            (&[("content-length", "6")], false),
            (&[("content-encoding", "gzip")], false),
        ] {
            assert_eq!(update_head(&stored, 5, &headers(head)).is_some(), expected, "{head:?}");
        }
    }

    #[test]
    fn the_origin_is_asked_by_all_there_is() {
        let mut request =
            headers(&[("if-none-match", "\"x\""), ("if-modified-since", "x"), ("range", "bytes=0-1")]);
        let conditions =
            conditional_headers(&headers(&[("etag", "W/\"a\""), ("last-modified", THEN)])).unwrap();
        with_conditions(&mut request, conditions);
        assert_eq!(request, headers(&[("if-none-match", "W/\"a\""), ("if-modified-since", THEN)]));
        assert_eq!(conditional_headers(&headers(&[("x", "1")])), None);
    }
}

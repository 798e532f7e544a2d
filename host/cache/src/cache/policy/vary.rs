//! Was a response made for requests like this one?
//!
//! RFC 9111, section 4.1.

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::members;
use crate::field;

/// The fields of a request that a response depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vary(SmallVec<[HeaderName; 2]>);

/// What those fields were in the request that it was made for: each normalised, none where there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection(SmallVec<[Selecting; 2]>);

type Selecting = (HeaderName, Option<Box<[u8]>>);

impl Vary {
    /// None if the response depends on more than the request, or on what is no field.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut names = SmallVec::new();
        for name in members(response, &header::VARY) {
            let name = HeaderName::from_bytes(name).ok().filter(|name| name != "*")?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(Self(names))
    }

    /// Whether this field is among them.
    pub fn names(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    /// Whether a request has one of these fields under another name, which some servers take for the same: what was
    /// answered to it would be selected for requests that have no such field.
    pub fn is_evaded(&self, request: &HeaderMap) -> bool {
        let is_other = |name: &HeaderName, named: &HeaderName| {
            name != named && field::is_same_to_some_server(name.as_str(), named.as_str())
        };
        !self.0.is_empty()
            && request.keys().any(|name| {
                // Most names are plain, and then there is no other spelling.
                (!field::is_plain(name.as_str())
                    || self.0.iter().any(|named| !field::is_plain(named.as_str())))
                    && self.0.iter().any(|named| is_other(name, named))
            })
    }

    /// What it depends on, in this request.
    pub fn selection(&self, request: &HeaderMap) -> Selection {
        Selection(self.0.iter().map(|name| (name.clone(), normalised(request, name))).collect())
    }
}

impl Selection {
    /// Whether this request is like the one that the response was made for.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| match (request.get(name), value) {
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            // Nearly always the same bytes in one line.
            (Some(first), Some(value)) if first.as_bytes() == &**value => {
                request.get_all(name).iter().nth(1).is_none()
                    || normalised(request, name).as_ref() == Some(value)
            }
            (Some(_), Some(value)) => normalised(request, name).as_ref() == Some(value),
        })
    }

    /// Fields and their values, none for an absent field.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// One that was written down with [`Selection::iter`].
    pub fn restored(fields: impl Iterator<Item = (HeaderName, Option<Vec<u8>>)>) -> Self {
        Self(fields.map(|(name, value)| (name, value.map(Vec::into_boxed_slice))).collect())
    }

    /// Bytes it takes in memory.
    pub fn size(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| 64 + name.as_str().len() + value.as_ref().map_or(0, |v| v.len()))
            .sum()
    }
}

/// All lines of a field as one list without needless space; of fields that negotiate, without the differences
/// that mean nothing: order and case, and what has a weight of zero.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    request.get(name)?;
    let is_list = !matches!(*name, header::COOKIE | header::USER_AGENT | header::AUTHORIZATION);
    if !is_list {
        let lines: Vec<&[u8]> = request.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        return Some(lines.join(&b"; "[..]).into());
    }
    let negotiates = matches!(
        *name,
        header::ACCEPT | header::ACCEPT_ENCODING | header::ACCEPT_LANGUAGE | header::ACCEPT_CHARSET
    );
    let members = members(request, name);
    if !negotiates {
        return Some(members.collect::<Vec<_>>().join(&b","[..]).into());
    }
    let mut members: Vec<Vec<u8>> = members
        .map(|member| {
            let bytes = member.iter().filter(|byte| !byte.is_ascii_whitespace());
            bytes.map(u8::to_ascii_lowercase).collect()
        })
        .collect();
    members.sort();
    members.dedup();
    Some(members.join(&b","[..]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_response_serves_requests_like_its_own() {
        for (vary, one, other, expected) in [
            (&["foo"][..], &[("foo", "1")][..], &[("foo", "1")][..], true),
            (&["foo"], &[("foo", "1")], &[("foo", "2")], false),
            (&["foo"], &[("foo", "1")], &[], false),
            (&["foo"], &[], &[("foo", "1")], false),
            (&["foo"], &[], &[], true),
            (&["foo"], &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true),
            (&["Foo, bar"], &[("foo", "1"), ("bar", "2")], &[("bar", "2"), ("foo", "1")], true),
            (&["foo", "bar"], &[("foo", "1"), ("bar", "2")], &[("foo", "1"), ("bar", "3")], false),
            (&["foo"], &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true),
            (&["foo"], &[("foo", "1,2")], &[("foo", " 1 ,  2 ")], true),
            (&["foo"], &[("foo", "1,2")], &[("foo", "2,1")], false),
            (&["foo"], &[("foo", "a")], &[("foo", "A")], false),
            (&["foo"], &[("foo", "a")], &[("foo", "a"), ("foo", "b")], false),
            (&["accept-language"], &[("accept-language", "en, de")], &[("accept-language", "De,eN")], true),
            (
                &["accept-encoding"],
                &[("accept-encoding", "gzip, br")],
                &[("accept-encoding", "br,gzip")],
                true,
            ),
            (&["accept-encoding"], &[("accept-encoding", "gzip")], &[("accept-encoding", "br")], false),
            (
                &["accept-encoding"],
                &[("accept-encoding", "gzip;q=1")],
                &[("accept-encoding", "gzip;q=0")],
                false,
            ),
            (&["cookie"], &[("cookie", "a=1, 2")], &[("cookie", "a=1,2")], false),
            (&[""], &[], &[("foo", "1")], true),
        ] {
            let lines: Vec<_> = vary.iter().map(|line| ("vary", *line)).collect();
            let vary = Vary::of(&headers(&lines)).unwrap();
            let matches = vary.selection(&headers(one)).matches(&headers(other));
            assert_eq!(matches, expected, "{vary:?} {one:?} {other:?}");
        }
    }

    #[test]
    fn what_depends_on_everything_serves_nobody() {
        for lines in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, foo"], &["foo, *"], &["a b"]]
        {
            let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
            assert_eq!(Vary::of(&headers(&lines)), None, "{lines:?}");
        }
    }
}

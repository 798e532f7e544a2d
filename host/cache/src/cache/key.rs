//! Which stored responses could answer this request?
//!
//! A key names what is asked for as the upstream would hear it: after the proxy has stripped what it strips, and
//! after the plugins' request hooks. Its first line is the URL, so that an operator can name it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::{policy::members, unkeyed};
use crate::{config::Query, field};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What stored responses are found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// What a route makes keys of, beside the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRules {
    pub query: Query,
    pub headers: Vec<HeaderName>,
    pub cookies: Vec<String>,
}

impl KeyRules {
    /// Whether the whole query is in the key.
    pub fn hold_query(&self) -> bool {
        match self.query {
            Query::All | Query::Sorted => true,
            Query::None | Query::Only(_) | Query::Except(_) => false,
        }
    }

    /// The fields of a request of which all values are in the key.
    pub fn fields(&self) -> Vec<HeaderName> {
        [header::HOST, X_FORWARDED_HOST, X_FORWARDED_PROTO]
            .into_iter()
            .chain(self.headers.iter().cloned())
            .collect()
    }
}

impl Key {
    /// The key of what `target` names at the upstream, for a request with these headers.
    ///
    /// The scheme and host are those that the upstream is told: `scheme`, unless a trusted proxy in front has
    /// said otherwise.
    pub fn new(rules: &KeyRules, scheme: &str, target: &Uri, headers: &HeaderMap, upstream: &str) -> Self {
        let overridden = forwarded_scheme(headers);
        let (scheme, authority) = (overridden.map_or_else(|| lower(scheme), Cow::Borrowed), host(headers));
        let query = target.query().and_then(|query| relevant(&rules.query, query));
        let path = target.path();
        // As long as it gets to be on most routes, so that it need not be moved to become a key.
        let size = scheme.len() + "://".len() + authority.len() + path.len() + "\n".len() + upstream.len();
        let mut text =
            String::with_capacity(size + query.as_ref().map_or(0, |query| "?".len() + query.len()));
        push_url(&mut text, &scheme, &authority, path, query.as_deref());
        text.push('\n');
        text.push_str(upstream);
        push_overrides(&mut text, headers, overridden.is_some());
        for name in &rules.headers {
            push_field(&mut text, name.as_str(), headers.get_all(name).iter());
            for other in other_spellings(headers, name) {
                push_field(&mut text, other.as_str(), headers.get_all(other).iter());
            }
        }
        for name in &rules.cookies {
            push_cookies(&mut text, headers, name);
        }
        Self(text.into())
    }

    /// The key of what is asked for by POST, with a body of this digest. What the fields of the request say of the
    /// body (RFC 9110, section 8) belongs to it: the same bytes mean something else in another encoding.
    pub fn with_body(&self, headers: &HeaderMap, digest: &[u8; 32]) -> Self {
        let mut text = self.0.to_string();
        text.push_str("\nPOST:");
        for byte in digest {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        let is_of_body = |name: &&HeaderName| {
            let folded = field::folded(name.as_str());
            folded.starts_with("content-") && folded != "content-length"
        };
        let mut names: Vec<&HeaderName> = headers.keys().filter(is_of_body).collect();
        names.sort_by_key(|name| name.as_str());
        for name in names {
            push_field(&mut text, name.as_str(), headers.get_all(name).iter());
        }
        Self(text.into())
    }

    /// The URL that it is the key of.
    pub fn url(&self) -> &str {
        self.0.split('\n').next().unwrap_or_default()
    }

    /// The name of the upstream.
    pub fn upstream(&self) -> &str {
        self.0.split('\n').nth(1).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the reading of its file goes by, which is no key of a response.
    pub(super) fn on_disk(&self) -> Self {
        Self(format!("disk\n{}", self.0).into())
    }

    /// One that was written down with [`Key::as_str`].
    pub fn restored(text: String) -> Self {
        Self(text.into())
    }
}

/// The scheme and the host that the upstream is told of.
pub fn origin<'a>(scheme: &'a str, headers: &'a HeaderMap) -> (Cow<'a, str>, Cow<'a, str>) {
    (forwarded_scheme(headers).map_or_else(|| lower(scheme), Cow::Borrowed), host(headers))
}

fn host(headers: &HeaderMap) -> Cow<'_, str> {
    lower(headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default())
}

/// The scheme that `X-Forwarded-Proto` names; none if it is absent, or says anything but one of the two.
fn forwarded_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let mut lines = headers.get_all(X_FORWARDED_PROTO).iter();
    let overridden = lines.next().filter(|_| lines.next().is_none())?.as_bytes();
    ["http", "https"].into_iter().find(|scheme| overridden.eq_ignore_ascii_case(scheme.as_bytes()))
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn push_url(text: &mut String, scheme: &str, authority: &str, path: &str, query: Option<&str>) {
    text.push_str(scheme);
    text.push_str("://");
    text.push_str(authority);
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
}

/// What else the upstream is told of the target: nothing, for most requests. `has_scheme` says that the URL has the
/// scheme that the upstream is told.
fn push_overrides(text: &mut String, headers: &HeaderMap, has_scheme: bool) {
    let hosts = headers.get_all(X_FORWARDED_HOST);
    if !hosts.iter().eq(headers.get(header::HOST)) && headers.contains_key(X_FORWARDED_HOST) {
        push_field(text, X_FORWARDED_HOST.as_str(), hosts.iter());
    }
    if !has_scheme && headers.contains_key(X_FORWARDED_PROTO) {
        push_field(text, X_FORWARDED_PROTO.as_str(), headers.get_all(X_FORWARDED_PROTO).iter());
    }
    if headers.contains_key(header::FORWARDED) {
        text.push_str("\nforwarded");
        for pair in
            members(headers, &header::FORWARDED).flat_map(|element| element.split(|&byte| byte == b';'))
        {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            // Whose request it is does not say what it is for.
            if !name.eq_ignore_ascii_case(b"for") && !name.eq_ignore_ascii_case(b"by") {
                text.push(':');
                push_escaped(text, pair);
            }
        }
    }
    for name in unkeyed::naming_targets(headers) {
        push_field(text, name.as_str(), headers.get_all(name).iter());
    }
}

/// A line that no other fields and values could make.
fn push_field<'a>(text: &mut String, name: &str, values: impl Iterator<Item = &'a HeaderValue>) {
    text.push('\n');
    text.push_str(name);
    for value in values {
        text.push(':');
        push_escaped(text, value.as_bytes());
    }
}

/// Bytes, and the `;` that ends them, which does not stand among them.
fn push_escaped(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b';' => text.push_str("\\x3b"),
            byte => text.extend(std::ascii::escape_default(byte).map(char::from)),
        }
    }
    text.push(';');
}

/// Fields that some servers take for the one of this name. In the order of their names.
fn other_spellings<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a HeaderName> {
    let is_other =
        |other: &&HeaderName| *other != name && field::is_same_to_some_server(other.as_str(), name.as_str());
    let mut names: Vec<_> = headers.keys().filter(is_other).collect();
    names.sort_by_key(|name| name.as_str());
    names
}

/// A line of a cookie's values, and of whatever some server could take for the cookie.
///
/// Servers part cookies at `;`, some at `,` (RFC 2965, section 3.3.4) and some at white space (Python's); some decode the name, or read `lang[a]` as
/// an entry of `lang`.
fn push_cookies(text: &mut String, headers: &HeaderMap, name: &str) {
    text.push('\n');
    text.push_str(name);
    for line in headers.get_all(header::COOKIE) {
        for cookie in line.as_bytes().split(|&byte| byte == b';') {
            if let Some(value) =
                cookie.trim_ascii().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
            {
                text.push('=');
                push_escaped(text, value);
            } else if cookie.split(|byte| b", \t".contains(byte)).any(|part| may_be_cookie(part, name)) {
                text.push('~');
                push_escaped(text, cookie);
            }
        }
    }
}

/// Whether some server could take this for a cookie of this name.
fn may_be_cookie(cookie: &[u8], name: &str) -> bool {
    let found = cookie.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    match std::str::from_utf8(found) {
        Ok(found) if found.bytes().all(|byte| is_plain(&byte)) => field::is_same_to_some_server(found, name),
        // What it decodes to is not for us to guess.
        _ if found.contains(&b'%') => true,
        _ => found.windows(name.len().max(1)).any(|part| {
            std::str::from_utf8(part).is_ok_and(|part| field::is_same_to_some_server(part, name))
        }),
    }
}

/// What of a query counts; none if nothing is left.
///
/// A parameter does not count only where no server could take it for one that does: servers decode names, some of
/// them part pairs at `;` too, fold the case, or read `page[]` as `page`. Whatever could be read otherwise counts.
fn relevant<'a>(rule: &Query, query: &'a str) -> Option<Cow<'a, str>> {
    let kept = |keep: &dyn Fn(&Pair<'_>) -> bool| {
        let pairs: Vec<&str> = query.split('&').filter(|pair| keep(&Pair::of(pair))).collect();
        (!pairs.is_empty()).then(|| Cow::Owned(pairs.join("&")))
    };
    match rule {
        Query::All => Some(Cow::Borrowed(query)),
        Query::None => None,
        Query::Sorted => {
            let mut pairs: Vec<&str> = query.split('&').collect();
            let is_clear = |pair: &&str| Pair::of(pair).is_clear();
            if !pairs.iter().all(is_clear) {
                return Some(Cow::Borrowed(query));
            }
            // What has the same name, in whichever case, stays in its order, which may mean something.
            pairs.sort_by_cached_key(|pair| Pair::of(pair).name.to_ascii_lowercase());
            Some(Cow::Owned(pairs.join("&")))
        }
        Query::Only(names) => kept(&|pair| {
            let is_known = |known: &String| field::is_same_to_some_server(known, pair.name);
            !pair.is_clear() || names.iter().any(is_known)
        }),
        Query::Except(names) => {
            kept(&|pair| !pair.has_clear_value() || names.iter().all(|known| known != pair.name))
        }
    }
}

/// One parameter of a query.
struct Pair<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> Pair<'a> {
    fn of(pair: &'a str) -> Self {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Self { name, value }
    }

    /// Whether all servers read it alike.
    fn is_clear(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let has_plain_name = self.name.bytes().all(is_plain) && !self.name.is_empty();
        // Nothing at all is no parameter.
        (has_plain_name || (self.name.is_empty() && self.value.is_empty())) && self.has_clear_value()
    }

    /// Whether no server finds another parameter in the value, before or after it has decoded it.
    fn has_clear_value(&self) -> bool {
        let is_separator = |byte: u8| !byte.is_ascii_graphic() || b";?#&".contains(&byte);
        let has_separator =
            |encoded: &[u8]| matches!(encoded, [b'%', b'2', b'6'] | [b'%', b'3', b'b' | b'B']);
        let value = self.value.as_bytes();
        !value.iter().any(|byte| is_separator(*byte)) && !value.windows(3).any(has_separator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rules: &KeyRules, target: &str, fields: &[(&'static str, &str)]) -> Key {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Key::new(rules, "http", &target.parse().unwrap(), &headers, "app")
    }

    #[test]
    fn a_key_begins_with_the_url() {
        let rules = KeyRules::default();
        for (target, fields, expected) in [
            ("/a?b=1", &[("host", "Example.com:8080")][..], "http://example.com:8080/a?b=1"),
            ("/a?", &[("host", "h")], "http://h/a?"),
            ("/a", &[("host", "h"), ("x-forwarded-proto", "https")], "https://h/a"),
            ("/", &[], "http:///"),
        ] {
            let key = key(&rules, target, fields);
            assert_eq!(key.url(), expected);
            assert_eq!(key.as_str(), format!("{expected}\napp"));
        }
    }

    #[test]
    fn a_body_counts_with_what_the_request_says_of_it() {
        let plain = key(&KeyRules::default(), "/a", &[("host", "h")]);
        let of = |fields: &[(&'static str, &str)], digest| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            plain.with_body(&headers, &[digest; 32])
        };
        let text = ("content-type", "text/plain");
        let posted = of(&[text], 1);
        assert_eq!(posted.url(), plain.url());
        assert_eq!(posted, of(&[("accept", "text/html"), text, ("content-length", "7")], 1));
        for other in [
            of(&[("content-type", "text/html")], 1),
            of(&[text], 2),
            of(&[text, text], 1),
            of(&[text, ("content-encoding", "gzip")], 1),
            of(&[text, ("content_encoding", "gzip")], 1),
            of(&[text, ("content-language", "de")], 1),
            plain.clone(),
        ] {
            assert_ne!(posted, other);
        }
    }

    #[test]
    fn a_route_says_what_of_the_query_counts() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        for (query, target, expected) in [
            (Query::All, "/?b=2&a=1", "http:///?b=2&a=1"),
            (Query::None, "/?b=2&a=1", "http:///"),
            (Query::Sorted, "/?b=2&a=2&b=1&a=1", "http:///?a=2&a=1&b=2&b=1"),
            (Query::Only(names(&["a"])), "/?b=2&a=1", "http:///?a=1"),
            (Query::Only(names(&["a"])), "/?b=2&aa=1", "http:///"),
            (Query::Except(names(&["b"])), "/?b=2&a=1&c", "http:///?a=1&c"),
            // What some server could take for a parameter that counts does count.
            (Query::Only(names(&["page"])), "/?p%61ge=9&x=1", "http:///?p%61ge=9"),
            (Query::Only(names(&["page"])), "/?Page=9", "http:///?Page=9"),
            (Query::Only(names(&["page"])), "/?page[]=9", "http:///?page[]=9"),
            (Query::Only(names(&["page"])), "/?+page=9", "http:///?+page=9"),
            (Query::Only(names(&["page"])), "/?page%00=9", "http:///?page%00=9"),
            (Query::Only(names(&["page"])), "/?x=1;page=9", "http:///?x=1;page=9"),
            (Query::Only(names(&["page"])), "/?x=1%26page=9", "http:///?x=1%26page=9"),
            (Query::Only(names(&["page"])), "/?x=1%3Bpage=9", "http:///?x=1%3Bpage=9"),
            (Query::Only(names(&["page"])), "/?x=1?page=9", "http:///?x=1?page=9"),
            (Query::Only(names(&["my_page"])), "/?my-page=9&x=%20", "http:///?my-page=9"),
            (Query::Only(names(&["page"])), "/?x=1&&", "http:///"),
            (Query::Except(names(&["utm"])), "/?utm=a;x=666&b=1", "http:///?utm=a;x=666&b=1"),
            (Query::Except(names(&["utm"])), "/?utm=a%26x=666", "http:///?utm=a%26x=666"),
            (Query::Except(names(&["utm"])), "/?Utm=a&u%74m=b&utm=c%20d", "http:///?Utm=a&u%74m=b"),
            // Who reads the first and who reads the last of a name see what they are asked for.
            (Query::Sorted, "/?b=1&a=1&A=2", "http:///?a=1&A=2&b=1"),
            (Query::Sorted, "/?b=1&A=2&a=1", "http:///?A=2&a=1&b=1"),
            (Query::Sorted, "/?b=1&a=1&%61=2", "http:///?b=1&a=1&%61=2"),
            (Query::Sorted, "/?b=3&a=1;b=2", "http:///?b=3&a=1;b=2"),
        ] {
            let rules = KeyRules { query, ..KeyRules::default() };
            assert_eq!(key(&rules, target, &[]).url(), expected, "{rules:?}");
        }
    }

    #[test]
    fn what_reaches_the_upstream_and_counts_is_in_the_key() {
        let rules = KeyRules {
            headers: vec![HeaderName::from_static("x-a")],
            cookies: vec!["lang".to_owned()],
            ..KeyRules::default()
        };
        let plain = key(&rules, "/", &[("host", "h")]);
        for fields in [
            &[("host", "h"), ("x-a", "1")][..],
            &[("host", "h"), ("x-a", "")],
            &[("host", "h"), ("x-a", "1"), ("x-a", "2")],
            &[("host", "h"), ("cookie", "b=2; lang=en")],
            &[("host", "h"), ("x-forwarded-host", "i")],
            &[("host", "h"), ("x-forwarded-host", "h"), ("x-forwarded-host", "i")],
            &[("host", "h"), ("x_forwarded_host", "i")],
            &[("host", "h"), ("x_a", "1")],
            &[("host", "h"), ("x-forwarded-proto", "gopher")],
            &[("host", "h"), ("x-forwarded-proto", "http://h/x?")],
            &[("host", "h"), ("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")],
            &[("host", "h"), ("x-forwarded-port", "81")],
            &[("host", "h"), ("x-original-url", "/admin")],
            &[("host", "h"), ("x_original_url", "/admin")],
            &[("host", "h"), ("forwarded", "for=1.2.3.4;host=evil")],
            &[("host", "h"), ("cookie", "lang =evil")],
            &[("host", "h"), ("cookie", "Lang=evil")],
            &[("host", "h"), ("cookie", "b=1,lang=evil")],
            &[("host", "h"), ("cookie", "l%61ng=evil")],
            &[("host", "h"), ("cookie", "lang[]=evil")],
            &[("host", "h"), ("cookie", "\"lang\"=evil")],
            &[("host", "h"), ("cookie", "lang")],
        ] {
            assert_ne!(key(&rules, "/", fields), plain, "{fields:?}");
        }
        for fields in [
            &[("host", "h"), ("x-b", "1")][..],
            &[("host", "H")],
            &[("host", "h"), ("cookie", "langx=en; b=1; _pk_id.1.1fff=a,b; json={\"a\":1,\"b\":2}")],
            &[("host", "h"), ("x-forwarded-proto", "HTTP")],
            &[("host", "h"), ("x-real-ip", "1.2.3.4")],
            &[("host", "h"), ("x-forwarded-host", "h")],
            &[("host", "h"), ("x-forwarded-for", "1.2.3.4")],
        ] {
            assert_eq!(key(&rules, "/", fields), plain, "{fields:?}");
        }
        let tricky = key(&rules, "/", &[("host", "h"), ("x-a", "1:2")]);
        assert_ne!(tricky, key(&rules, "/", &[("host", "h"), ("x-a", "1"), ("x-a", "2")]));
    }
}

//! Which stored responses could answer this request?
//!
//! A key names what is asked for as the upstream would hear it: after the proxy has stripped what it strips, and
//! after the plugins' request hooks. Its first line is the URL, so that an operator can name it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::config::Query;

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

impl Key {
    /// The key of what `target` names at the upstream, for a request with these headers.
    ///
    /// The scheme and host are those that the upstream is told: `scheme`, unless a trusted proxy in front has
    /// said otherwise.
    pub fn new(rules: &KeyRules, scheme: &str, target: &Uri, headers: &HeaderMap, upstream: &str) -> Self {
        let (scheme, authority) = origin(scheme, headers);
        let query = target.query().and_then(|query| relevant(&rules.query, query));
        let path = target.path();
        // As long as it gets to be on most routes, so that it need not be moved to become a key.
        let size = scheme.len() + "://".len() + authority.len() + path.len() + "\n".len() + upstream.len();
        let mut text =
            String::with_capacity(size + query.as_ref().map_or(0, |query| "?".len() + query.len()));
        push_url(&mut text, &scheme, &authority, path, query.as_deref());
        text.push('\n');
        text.push_str(upstream);
        if let Some(host) = headers.get(X_FORWARDED_HOST)
            && headers.get(header::HOST) != Some(host)
        {
            push_field(&mut text, "x-forwarded-host", std::iter::once(host));
        }
        for name in &rules.headers {
            push_field(&mut text, name.as_str(), headers.get_all(name).iter());
        }
        for name in &rules.cookies {
            text.push('\n');
            text.push_str(name);
            for value in cookies(headers, name) {
                text.push('=');
                push_escaped(&mut text, value);
            }
        }
        Self(text.into())
    }

    /// The key of what is asked for by POST with a body of this type and digest.
    pub fn with_body(&self, content_type: &[u8], digest: &[u8; 32]) -> Self {
        let mut text = self.0.to_string();
        text.push_str("\nPOST:");
        push_escaped(&mut text, content_type);
        for byte in digest {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
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
    let told = headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (lower(told.unwrap_or(scheme)), lower(host))
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

/// A line that no other fields and values could make.
fn push_field<'a>(text: &mut String, name: &str, values: impl Iterator<Item = &'a HeaderValue>) {
    text.push('\n');
    text.push_str(name);
    for value in values {
        text.push(':');
        push_escaped(text, value.as_bytes());
    }
}

fn push_escaped(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().flat_map(|&byte| std::ascii::escape_default(byte)).map(char::from));
    text.push(';');
}

/// The values of a cookie.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// What of a query counts; none if nothing is left.
fn relevant<'a>(rule: &Query, query: &'a str) -> Option<Cow<'a, str>> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let kept = |keep: &dyn Fn(&str) -> bool| {
        let pairs: Vec<&str> = query.split('&').filter(|pair| keep(&name(pair))).collect();
        (!pairs.is_empty()).then(|| Cow::Owned(pairs.join("&")))
    };
    match rule {
        Query::All => Some(Cow::Borrowed(query)),
        Query::None => None,
        Query::Sorted => {
            let mut pairs: Vec<&str> = query.split('&').collect();
            // What has the same name stays in its order, which may mean something.
            pairs.sort_by_key(|pair| name(pair));
            Some(Cow::Owned(pairs.join("&")))
        }
        Query::Only(names) => kept(&|name| names.iter().any(|known| known == name)),
        Query::Except(names) => kept(&|name| names.iter().all(|known| known != name)),
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
    fn a_body_counts_with_its_type() {
        let plain = key(&KeyRules::default(), "/a", &[("host", "h")]);
        let posted = plain.with_body(b"text/plain", &[1; 32]);
        assert_eq!(posted.url(), plain.url());
        assert_eq!(posted, plain.with_body(b"text/plain", &[1; 32]));
        for other in
            [plain.with_body(b"text/html", &[1; 32]), plain.with_body(b"text/plain", &[2; 32]), plain]
        {
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
        ] {
            assert_ne!(key(&rules, "/", fields), plain, "{fields:?}");
        }
        for fields in [
            &[("host", "h"), ("x-b", "1")][..],
            &[("host", "H")],
            &[("host", "h"), ("cookie", "langx=en; b=1")],
            &[("host", "h"), ("x-forwarded-host", "h")],
            &[("host", "h"), ("x-forwarded-for", "1.2.3.4")],
        ] {
            assert_eq!(key(&rules, "/", fields), plain, "{fields:?}");
        }
        let tricky = key(&rules, "/", &[("host", "h"), ("x-a", "1:2")]);
        assert_ne!(tricky, key(&rules, "/", &[("host", "h"), ("x-a", "1"), ("x-a", "2")]));
    }
}

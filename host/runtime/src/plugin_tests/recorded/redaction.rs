//! What of a message may be written down, and what stands for the rest?
//!
//! The values of headers are kept that stand in a list; all others, those of cookies and queries, and what looks like
//! a token in a path, are replaced. The same value by the same placeholder, and by one of its kind, so that what a
//! plugin copies, compares or counts comes out the same.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue};

use crate::{plugin::Secrets, plugin_tests::run::REQUEST_ID};

/// Headers of requests and responses whose values are kept: what messages are about, and not whose they are.
pub const KEPT: [&str; 44] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "origin",
    "permissions-policy",
    "range",
    "referrer-policy",
    "retry-after",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "server",
    "strict-transport-security",
    "te",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "x-content-type-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-frame-options",
];

/// What stands for what in one case.
pub(super) struct Redaction<'a> {
    wanted: &'a BTreeSet<String>,
    secrets: &'a Secrets,
    placeholders: HashMap<String, String>,
}

/// Matches any value.
pub(super) const PRESENT: &str = "*";

/// Schemes of `authorization`: those that are registered (RFC 9110, section 16.4.1), and what is usual beside them. What
/// stands in their place and is none of them may be a part of the credentials.
const SCHEMES: [&str; 18] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "digest",
    "dpop",
    "gnap",
    "hawk",
    "hoba",
    "key",
    "mutual",
    "negotiate",
    "ntlm",
    "oauth",
    "privatetoken",
    "signature",
    "token",
    "vapid",
];

impl<'a> Redaction<'a> {
    /// From this length on a value is looked for in bodies: shorter ones are everywhere.
    const FOUND: usize = 6;
    /// From this length on a value that has been replaced elsewhere is taken for the same in a URL.
    const KNOWN: usize = 3;

    /// Keeps values by `wanted` names, unless one of these secrets is in them.
    pub(super) fn new(wanted: &'a BTreeSet<String>, secrets: &'a Secrets) -> Self {
        Self { wanted, secrets, placeholders: HashMap::new() }
    }

    /// The id of a request is the one that every request of a test has.
    pub(super) fn has_id(&mut self, id: String) {
        if !id.is_empty() {
            self.placeholders.insert(id, text(Some(&REQUEST_ID)));
        }
    }

    /// The value of a header, as it may be written down.
    pub(super) fn field(&mut self, name: &HeaderName, value: String) -> String {
        if self.keeps(name.as_str(), &value) {
            return value;
        }
        match name.as_str() {
            "authorization" | "proxy-authorization" => match value.split_once(' ') {
                Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => {
                    format!("{scheme} {}", self.basic(credentials))
                }
                Some((scheme, credentials)) if SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => {
                    format!("{scheme} {}", self.placeholder(credentials))
                }
                _ => self.placeholder(&value),
            },
            "cookie" => {
                let crumbs: Vec<String> = value.split(';').map(|crumb| self.crumb(crumb.trim())).collect();
                crumbs.join("; ")
            }
            "set-cookie" => match value.split_once(';') {
                Some((cookie, attributes)) => format!("{};{attributes}", self.crumb(cookie)),
                None => self.crumb(&value),
            },
            _ => self.placeholder(&value),
        }
    }

    /// Name and password in one (RFC 7617). Each is replaced where it stands alone, too.
    fn basic(&mut self, credentials: &str) -> String {
        if let Some(known) = self.placeholders.get(credentials) {
            return known.clone();
        }
        let decoded = BASE64_STANDARD.decode(credentials.trim()).ok();
        let (name, password) = match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(pair) => match pair.split_once(':') {
                Some((name, password)) => (self.placeholder(name), self.placeholder(password)),
                None => (self.placeholder(&pair), String::new()),
            },
            None => (self.placeholder(credentials), String::new()),
        };
        let written = BASE64_STANDARD.encode(format!("{name}:{password}"));
        self.placeholders.insert(credentials.to_owned(), written.clone());
        written
    }

    /// A cookie. One without a name is all value.
    fn crumb(&mut self, crumb: &str) -> String {
        if crumb.contains('=') { self.pair(crumb) } else { self.placeholder(crumb) }
    }

    /// `name=value`, of a cookie, a query or a part of a path.
    fn pair(&mut self, pair: &str) -> String {
        match pair.split_once('=') {
            Some((name, value)) if self.is_wanted(name, value) => pair.to_owned(),
            Some((name, value)) => format!("{name}={}", self.part(value)),
            None => self.word(pair),
        }
    }

    /// A part of a URL: a word that says what is asked for, or what is somebody's.
    fn word(&mut self, word: &str) -> String {
        match self.known(word) {
            Some(placeholder) => placeholder,
            None if looks_like_a_token(word) || self.is_secret(word) => self.part(word),
            None => word.to_owned(),
        }
    }

    /// What stands for a part of a URL, under the name that it has without its percent-encoding.
    fn part(&mut self, part: &str) -> String {
        let known = self.known(part);
        known.unwrap_or_else(|| self.placeholder(decoded(part).as_deref().unwrap_or(part)))
    }

    /// What stands already for a part of a URL, which may be written there in another way than it was elsewhere.
    fn known(&self, part: &str) -> Option<String> {
        let known =
            |value: &str| self.placeholders.get(value).filter(|_| value.len() >= Self::KNOWN).cloned();
        known(part).or_else(|| known(&decoded(part)?))
    }

    /// Path and query, as they may be written down.
    pub(super) fn target(&mut self, target: &str) -> String {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let segments: Vec<String> = path.split('/').map(|segment| self.segment(segment)).collect();
        let path = segments.join("/");
        match query {
            Some(query) => {
                let pairs: Vec<String> = query.split('&').map(|pair| self.pair(pair)).collect();
                format!("{path}?{}", pairs.join("&"))
            }
            None => path,
        }
    }

    /// A segment of a path, which may have parameters (RFC 3986, section 3.3).
    fn segment(&mut self, segment: &str) -> String {
        match segment.split_once(';') {
            Some((name, parameters)) => {
                let parameters: Vec<String> = parameters.split(';').map(|pair| self.pair(pair)).collect();
                format!("{};{}", self.word(name), parameters.join(";"))
            }
            None => self.word(segment),
        }
    }

    /// The value of a note.
    pub(super) fn note(&mut self, name: &str, value: &str) -> String {
        if self.is_wanted(name, value) { value.to_owned() } else { self.placeholder(value) }
    }

    /// A body, if it is text. What has been replaced elsewhere is replaced in it, too.
    pub(super) fn body(&self, body: &[u8]) -> Option<String> {
        let mut text = std::str::from_utf8(body).ok()?.to_owned();
        let known = self.placeholders.iter().filter(|(value, _)| value.len() >= Self::FOUND);
        let mut known: Vec<(String, &String)> = known
            .flat_map(|(value, placeholder)| {
                spellings(value).into_iter().map(move |spelling| (spelling, placeholder))
            })
            .collect();
        // What is part of another comes after it.
        known.sort_by(|(one, _), (other, _)| (Reverse(one.len()), one).cmp(&(Reverse(other.len()), other)));
        for (value, placeholder) in known {
            text = text.replace(value.as_str(), placeholder);
        }
        Some(text)
    }

    /// What is to be expected where a plugin has made this. Of what it may have copied, and of what has something in it
    /// that was replaced elsewhere, that it is there, if `is_loose`.
    pub(super) fn made(&self, name: &str, value: String, is_loose: bool) -> String {
        match self.placeholders.get(&value) {
            _ if self.is_wanted(name, &value) && value != PRESENT => value,
            Some(_) if self.keeps(name, &value) && value.len() < Self::KNOWN => value,
            Some(placeholder) if !self.keeps(name, &value) && !is_loose => placeholder.clone(),
            None if self.keeps(name, &value) && value != PRESENT && !self.is_in(&value) => value,
            Some(_) | None => PRESENT.to_owned(),
        }
    }

    /// Whether something is in a value that was replaced elsewhere.
    fn is_in(&self, value: &str) -> bool {
        let mut known = self.placeholders.keys().filter(|known| known.len() >= Self::FOUND);
        known.any(|known| value.contains(known.as_str()))
    }

    fn keeps(&self, name: &str, value: &str) -> bool {
        KEPT.contains(&name) && !self.is_secret(value) || self.is_wanted(name, value)
    }

    fn is_wanted(&self, name: &str, value: &str) -> bool {
        self.wanted.contains(&name.to_ascii_lowercase()) && !self.is_secret(value)
    }

    /// Whether a value, or one of its parts, is a secret of the plugin's.
    pub(super) fn is_secret(&self, value: &str) -> bool {
        let is_between = |letter: char| letter.is_ascii_whitespace() || ",;:=&/?\"".contains(letter);
        let mut parts = value.split(is_between).filter(|part| !part.is_empty());
        self.secrets.holds(value.as_bytes()) || parts.any(|part| self.secrets.holds(part.as_bytes()))
    }

    /// What stands for a value: the same for the same, and of the same kind.
    fn placeholder(&mut self, value: &str) -> String {
        if value.is_empty() {
            return String::new();
        }
        let number = self.placeholders.len();
        let made = || {
            let length = value.len();
            let is_all = |is: fn(&u8) -> bool| value.bytes().all(|byte| is(&byte));
            if is_all(u8::is_ascii_digit) {
                format!("{number:0>length$}")
            } else if is_uuid(value) {
                format!("00000000-0000-4000-8000-{number:012x}")
            } else if length >= 16 && is_all(u8::is_ascii_hexdigit) {
                format!("{number:0>length$x}")
            } else {
                format!("redacted-{number}")
            }
        };
        self.placeholders.entry(value.to_owned()).or_insert_with(made).clone()
    }
}

/// The ways in which a value may stand in a body: as it is, in a form or a URL, in JSON.
fn spellings(value: &str) -> BTreeSet<String> {
    let bytes: Option<Vec<u8>> = value.chars().map(|letter| u8::try_from(letter).ok()).collect();
    // The value of a header is the string of its bytes; in a body, it is text.
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let mut all = BTreeSet::from([value.to_owned()]);
    for value in [Some(value), text.as_deref()].into_iter().flatten() {
        all.insert(value.to_owned());
        // RFC 3986, section 2.3, and the serialiser of forms in the URL standard.
        for (plain, space) in [("-._~", "%20"), ("*-._", "+"), ("!~*'()-._", "%20")] {
            let written = encoded(value, plain, space);
            all.insert(lower_case(&written));
            all.insert(written);
        }
        let json = serde_json::Value::from(value).to_string();
        let json = json.get(1..json.len() - 1).unwrap_or_default();
        all.insert(json.replace('/', "\\/"));
        all.insert(json.to_owned());
    }
    all
}

/// With percent-encoding, but for letters, digits and what is `plain`.
fn encoded(value: &str, plain: &str, space: &str) -> String {
    value.bytes().fold(String::new(), |text, byte| match byte {
        b' ' => text + space,
        byte if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) => {
            text + char::from(byte).encode_utf8(&mut [0; 4])
        }
        byte => format!("{text}%{byte:02X}"),
    })
}

/// The same with the digits of percent-encoding in lower case.
fn lower_case(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_at_checked(2) {
        Some((digits, rest)) => format!("{text}%{}{rest}", digits.to_ascii_lowercase()),
        None => format!("{text}%{part}"),
    })
}

/// Whether a part of a path may be somebody's: long and of letters and digits, a long number, or an address of mail.
fn looks_like_a_token(segment: &str) -> bool {
    let has = |is: fn(&u8) -> bool| segment.bytes().any(|byte| is(&byte));
    let is_mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    let is_number = segment.bytes().all(|byte| byte.is_ascii_digit());
    (segment.len() >= 16 && is_mixed)
        || (segment.len() >= 9 && is_number)
        || segment.len() >= 40
        || segment.contains('@')
        || segment.contains("%40")
}

/// Part of a URL without its percent-encoding (RFC 3986, section 2.1).
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The string whose code points are the bytes, as in the contract.
pub(super) fn text(value: Option<&HeaderValue>) -> String {
    value.map(|value| value.as_bytes().iter().map(|byte| char::from(*byte)).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &str) -> String {
        let (wanted, secrets) = (BTreeSet::from(["x-wanted".to_owned()]), Secrets::default());
        Redaction::new(&wanted, &secrets).field(&HeaderName::from_static(name), value.to_owned())
    }

    #[test]
    fn what_is_not_known_to_be_harmless_is_replaced_by_something_of_its_kind() {
        for (name, value, written) in [
            ("accept", "text/html", "text/html"),
            ("x-wanted", "hunter2", "hunter2"),
            ("x-api-key", "hunter2", "redacted-0"),
            ("x-anything", "hunter2", "redacted-0"),
            ("authorization", "Bearer hunter2", "Bearer redacted-0"),
            ("authorization", "hunter2", "redacted-0"),
            ("authorization", "hunter2 and more", "redacted-0"),
            // Of "hunter2", and of "ann:hunter2".
            ("authorization", "Basic aHVudGVyMg==", "Basic cmVkYWN0ZWQtMDo="),
            ("authorization", "Basic YW5uOmh1bnRlcjI=", "Basic cmVkYWN0ZWQtMDpyZWRhY3RlZC0x"),
            ("cookie", "a=hunter2; b=hunter3; a=hunter2", "a=redacted-0; b=redacted-1; a=redacted-0"),
            ("cookie", "hunter2; b=c", "redacted-0; b=redacted-1"),
            ("set-cookie", "a=hunter2; Path=/; Secure", "a=redacted-0; Path=/; Secure"),
            ("set-cookie", "hunter2; Path=/", "redacted-0; Path=/"),
            ("x-account", "12345", "00000"),
            ("x-trace", "0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            ("x-id", "550e8400-e29b-41d4-a716-446655440000", "00000000-0000-4000-8000-000000000000"),
            ("x-empty", "", ""),
        ] {
            assert_eq!(field(name, value), written, "{name}: {value}");
        }
    }

    #[test]
    fn paths_keep_their_shape_and_queries_their_names() {
        let wanted = BTreeSet::from(["page".to_owned()]);
        let secrets = Secrets::known([("hook".to_owned(), b"pepper".to_vec())]);
        for (target, written) in [
            ("/v1/users", "/v1/users"),
            ("/v1/users/42", "/v1/users/42"),
            ("/v1/users/me@example.com/x", "/v1/users/redacted-0/x"),
            ("/reset/sk9f8a7s6d5f4g3h2j1", "/reset/redacted-0"),
            ("/a;sid=hunter2;v/b", "/a;sid=redacted-0;v/b"),
            ("/a?page=2&token=abc&flag", "/a?page=2&token=redacted-0&flag"),
            ("/a?t=abc&u=abc", "/a?t=redacted-0&u=redacted-0"),
            ("/cards/4111111111111111", "/cards/0000000000000000"),
            ("/hooks/pepper?pepper", "/hooks/redacted-0?redacted-0"),
            ("/a?page=pepper&page=x:pepper", "/a?page=redacted-0&page=redacted-1"),
        ] {
            assert_eq!(Redaction::new(&wanted, &secrets).target(target), written);
        }
    }

    #[test]
    fn what_is_replaced_in_one_place_is_replaced_in_all() {
        let (wanted, secrets) = (BTreeSet::new(), Secrets::default());
        let mut redaction = Redaction::new(&wanted, &secrets);
        let name = HeaderName::from_static("x-api-key");
        assert_eq!(redaction.field(&name, "hunter2/3".to_owned()), "redacted-0");
        for (target, written) in [
            ("/keys/hunter2%2F3", "/keys/redacted-0"),
            ("/keys?key=hunter2%2f3", "/keys?key=redacted-0"),
            ("/keys?key=hunter2/3", "/keys?key=redacted-0"),
            ("/keys/hunter%2", "/keys/hunter%2"),
        ] {
            assert_eq!(redaction.target(target), written);
        }
        assert_eq!(redaction.target("/keys?key=salt%2Fpepper"), "/keys?key=redacted-1");
        let name = HeaderName::from_static("authorization");
        redaction.field(&name, "Bearer a b+\"~".to_owned());
        redaction.field(&name, format!("Basic {}", BASE64_STANDARD.encode("johanna:wordpass")));
        redaction.field(&name, "Bearer j\u{c3}\u{b6}hanna".to_owned());
        for (body, written) in [
            ("key=hunter2/3&a", "key=redacted-0&a"),
            ("salt/pepper", "redacted-1"),
            ("t=a%20b%2B%22~&t=a%20b%2b%22~&t=a+b%2B%22%7E", "t=redacted-2&t=redacted-2&t=redacted-2"),
            (r#"{"t":"a b+\"~","u":"hunter2\/3"}"#, r#"{"t":"redacted-2","u":"redacted-0"}"#),
            (
                r#"{"name":"johanna","password":"wordpass"}"#,
                r#"{"name":"redacted-3","password":"redacted-4"}"#,
            ),
            ("jöhanna, j%C3%B6hanna", "redacted-6, redacted-6"),
        ] {
            assert_eq!(redaction.body(body.as_bytes()).as_deref(), Some(written));
        }
        assert_eq!(redaction.body(b"\xff"), None);
    }

    #[test]
    fn what_a_plugin_makes_is_written_if_nothing_in_it_was_replaced() {
        let (wanted, secrets) = (BTreeSet::new(), Secrets::default());
        let mut redaction = Redaction::new(&wanted, &secrets);
        redaction.field(&HeaderName::from_static("x-api-key"), "hunter2".to_owned());
        redaction.field(&HeaderName::from_static("dnt"), "7".to_owned());
        for (name, value, exact, loose) in [
            ("x-copy", "hunter2", "redacted-0", "*"),
            ("x-copy", "a hunter2", "*", "*"),
            ("vary", "origin", "origin", "origin"),
            ("vary", "hunter2", "*", "*"),
            ("content-type", "text/hunter2", "*", "*"),
            ("x-left", "7", "1", "*"),
            ("retry-after", "7", "7", "7"),
            ("access-control-allow-origin", "*", "*", "*"),
        ] {
            assert_eq!(redaction.made(name, value.to_owned(), false), exact, "{name}: {value}");
            assert_eq!(redaction.made(name, value.to_owned(), true), loose, "{name}: {value}");
        }
    }
}

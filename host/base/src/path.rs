//! Which path is meant?
//!
//! Routing, plugins and upstreams must never disagree on what a path names, so it is brought into one
//! canonical form before any of them sees it: percent-encodings of unreserved characters decoded, the
//! others in upper case (RFC 3986, section 6.2.2), dot segments resolved (section 5.2.4), runs of slashes
//! made one. Where servers are known to disagree there is no canonical form and the request is refused.
//!
//! The dangerous disagreements are those by which a path becomes shorter behind the proxy: `/;x/admin` is `/admin` to
//! Tomcat and Jetty, `/(S(x))/admin` to ASP.NET, `/admin%3Fx` to PHP behind Apache, `/admin./` on Windows. What such a server
//! would resolve to another path is refused; what it would take for a segment's shorter name is found by [`shortened`],
//! so that what guards `/admin` guards that, too.

use std::borrow::Cow;

/// Why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path holds a `%` that is not followed by two hexadecimal digits")]
    BadEncoding,
    #[error("the path holds an encoded slash, backslash or control character")]
    EncodedDelimiter,
    #[error("the path holds a character that must be encoded")]
    Forbidden,
    #[error("the path leads above its root")]
    AboveRoot,
    #[error("the path holds a dot segment with a parameter or a space")]
    DotParameter,
    #[error("the path holds a segment of which some servers leave nothing")]
    Vanishing,
    #[error("the path holds a session of ASP.NET, which some servers cut out")]
    Session,
    #[error("the path holds an encoding of UTF-8 that is longer than it need be")]
    Overlong,
}

/// The canonical form of `path`, which is borrowed where it is canonical already.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Error> {
    if !path.starts_with('/') {
        return Err(Error::NotAbsolute);
    }
    if is_plainly_canonical(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    resolve(&decode(path.as_bytes())?).map(Cow::Owned)
}

/// Whether no byte of the path asks for a closer look. True of nearly every path there is.
fn is_plainly_canonical(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match CLASS[usize::from(byte)] {
            Class::Plain => after_slash = false,
            Class::Slash if !after_slash => after_slash = true,
            Class::Dot | Class::Opening if !after_slash => {}
            Class::Slash | Class::Dot | Class::Opening | Class::Percent | Class::High | Class::Forbidden => {
                return false;
            }
        }
    }
    true
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    /// Stands for itself.
    Plain,
    Slash,
    Dot,
    /// Stands for itself, and asks for a closer look where a segment begins with it.
    Opening,
    Percent,
    /// Not ASCII: stands for itself, encoded.
    High,
    Forbidden,
}

/// What a byte may do in a path: `pchar` of RFC 3986, section 3.3, and the few others that browsers send.
static CLASS: [Class; 256] = {
    let mut class = [Class::Forbidden; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b')' | b'*' | b'+' | b',' | b'=' => Class::Plain,
            b'(' | b';' => Class::Opening,
            b':' | b'@' | b'[' | b']' | b'|' | b'^' | b'`' | b'{' | b'}' | b'"' | b'<' | b'>' => Class::Plain,
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'%' => Class::Percent,
            0x80..=0xff => Class::High,
            _ => Class::Forbidden,
        };
        byte += 1;
    }
    class
};

/// Decodes what need not be encoded and normalises what must.
fn decode(path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoded = Vec::with_capacity(path.len() + 8);
    let mut rest = path;
    let mut before = 0;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Slash | Class::Dot | Class::Opening => decoded.push(byte),
            Class::High => encode(&mut decoded, byte),
            Class::Forbidden => return Err(Error::Forbidden),
            Class::Percent => {
                let (&[high, low], after) = rest.split_first_chunk().ok_or(Error::BadEncoding)?;
                rest = after;
                let byte = hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low);
                let byte = byte.ok_or(Error::BadEncoding)?;
                if is_overlong(std::mem::replace(&mut before, byte), byte) {
                    return Err(Error::Overlong);
                }
                match byte {
                    b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Error::EncodedDelimiter),
                    byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(byte),
                    byte => encode(&mut decoded, byte),
                }
                continue;
            }
        }
        before = 0;
    }
    Ok(decoded)
}

/// Whether these two bytes begin a character that fewer bytes could have said: a slash or a dot, for one, to servers
/// that do not look closely (RFC 3629, section 10).
fn is_overlong(first: u8, second: u8) -> bool {
    match first {
        0xc0 | 0xc1 => (0x80..=0xbf).contains(&second),
        0xe0 => (0x80..=0x9f).contains(&second),
        0xf0 => (0x80..=0x8f).contains(&second),
        _ => false,
    }
}

/// The query with what is not ASCII encoded, as browsers do; no server then need guess at it.
pub fn canonical_query(query: &str) -> Cow<'_, str> {
    if query.is_ascii() {
        return Cow::Borrowed(query);
    }
    let mut encoded = Vec::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        match byte.is_ascii() {
            true => encoded.push(byte),
            false => encode(&mut encoded, byte),
        }
    }
    Cow::Owned(String::from_utf8(encoded).expect("what is not ASCII has been encoded"))
}

/// A segment of a canonical path by which two spellings of it can be compared: what may stand for itself does.
///
/// `%40` and `@` stay apart on their way (RFC 3986, section 2.2), and are the same to every server that decodes.
pub fn comparable(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut plain = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let encoded = after.split_first_chunk().filter(|_| byte == b'%').and_then(|(&[high, low], after)| {
            let byte = hex(high)? << 4 | hex(low)?;
            matches!(CLASS[usize::from(byte)], Class::Plain | Class::Opening).then_some((byte, after))
        });
        match encoded {
            Some((byte, after)) => {
                plain.push(byte);
                rest = after;
            }
            None => plain.push(byte),
        }
    }
    Cow::Owned(String::from_utf8(plain).expect("only ASCII has been decoded"))
}

/// The shorter name that some servers take a comparable segment for; none if all take it as it is.
///
/// To the others it is nothing they have, so whoever is asked about the short name is to decide on this one.
pub fn shortened(segment: &str) -> Option<&str> {
    let name = without_parameters(segment);
    let mut name = match name.find(":$").or_else(|| name.find("::$")) {
        // A stream of NTFS: `admin::$INDEX_ALLOCATION`.
        Some(index) => &name[..index],
        None => name,
    };
    // Windows has no names that end so.
    while let Some(shorter) = name.strip_suffix('.').or_else(|| name.strip_suffix("%20")) {
        name = shorter;
    }
    let name = name.strip_suffix(':').unwrap_or(name);
    (name.len() < segment.len() && !name.is_empty()).then_some(name)
}

/// Without what servers of Java cut off (RFC 3986, section 3.3), and those that decode before they look for a query.
fn without_parameters(segment: &str) -> &str {
    let ends = [";", "%3F", "%23"].into_iter().filter_map(|mark| segment.find(mark));
    ends.min().map_or(segment, |end| &segment[..end])
}

fn encode(to: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    to.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Resolves dot segments and drops empty ones.
fn resolve(path: &[u8]) -> Result<String, Error> {
    let path = std::str::from_utf8(path).expect("what is not ASCII has been encoded");
    let mut resolved = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => {
                let parent = resolved.rfind('/').ok_or(Error::AboveRoot)?;
                resolved.truncate(parent);
            }
            _ => {
                check(segment, is_last)?;
                resolved.push('/');
                resolved.push_str(segment);
                continue;
            }
        }
        if is_last {
            resolved.push('/');
        }
    }
    Ok(resolved)
}

/// Whether every server takes a segment for one.
fn check(segment: &str, is_last: bool) -> Result<(), Error> {
    let segment = comparable(segment);
    let mut name = without_parameters(&segment);
    // Some servers drop what comes behind before they resolve dots, and some after.
    while let Some(shorter) = name.strip_suffix("%20") {
        name = shorter;
    }
    if matches!(name, "." | "..") {
        return Err(Error::DotParameter);
    }
    // Windows drops dots and spaces alike at the end of a name, and with them all of this one.
    if name.contains("%20") && name.replace("%20", "").bytes().all(|byte| byte == b'.') {
        return Err(Error::Vanishing);
    }
    // At the end nothing becomes shorter but the name of a folder: `/app/;jsessionid=1` is what Tomcat makes itself.
    if name.is_empty() && !is_last {
        return Err(Error::Vanishing);
    }
    if is_session(&segment) { Err(Error::Session) } else { Ok(()) }
}

/// Whether a segment begins with what ASP.NET takes out of a path: `(S(x))`, the same with any other letter (`X` finds out
/// whether there are cookies) or several of them, and whatever follows: `/ad/(S(x))min` (CVE-2023-36899).
fn is_session(segment: &str) -> bool {
    let Some(mut rest) = segment.strip_prefix('(') else { return false };
    let mut tickets = 0;
    while let [letter, b'(', ..] = rest.as_bytes()
        && letter.is_ascii_alphabetic()
        && let Some(end) = rest.find(')')
    {
        rest = &rest[end + 1..];
        tickets += 1;
    }
    tickets > 0 && rest.starts_with(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a.b/c..d/...", "/a.b/c..d/..."),
            ("//", "/"),
            ("///a//b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/..", "/"),
            ("/%61%2d%7E", "/a-~"),
            ("/%2e/a", "/a"),
            ("/a/%2E%2e/b", "/b"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a%3fb", "/a%3Fb"),
            ("/a%25b", "/a%25b"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/@scope/[id]", "/@scope/[id]"),
            ("/a/;jsessionid=1", "/a/;jsessionid=1"),
            ("/a;x/b;y", "/a;x/b;y"),
            ("/a/...", "/a/..."),
            ("/.../a", "/.../a"),
            ("/Products(1)/(a)", "/Products(1)/(a)"),
            ("/a%40b/%2b", "/a%40b/%2B"),
            ("/a%e0%b8%81", "/a%E0%B8%81"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn an_ambiguous_path_has_none() {
        for (path, expected) in [
            ("", Error::NotAbsolute),
            ("a", Error::NotAbsolute),
            ("*", Error::NotAbsolute),
            ("/%", Error::BadEncoding),
            ("/%4", Error::BadEncoding),
            ("/%zz", Error::BadEncoding),
            ("/a%2fb", Error::EncodedDelimiter),
            ("/a%5Cb", Error::EncodedDelimiter),
            ("/a%00", Error::EncodedDelimiter),
            ("/a%0d%0ab", Error::EncodedDelimiter),
            ("/a\\b", Error::Forbidden),
            ("/a b", Error::Forbidden),
            ("/a#b", Error::Forbidden),
            ("/..", Error::AboveRoot),
            ("/a/../../b", Error::AboveRoot),
            ("/a/%2e%2e/%2e%2e/b", Error::AboveRoot),
            ("/a/..;/b", Error::DotParameter),
            ("/a/.;x/b", Error::DotParameter),
            ("/a/..;", Error::DotParameter),
            ("/a/..%3bx/b", Error::DotParameter),
            ("/a/..%3Fx", Error::DotParameter),
            ("/a/..%23", Error::DotParameter),
            ("/a/..%20/b", Error::DotParameter),
            ("/;/admin/secret", Error::Vanishing),
            ("/;x/admin", Error::Vanishing),
            ("/;a=b/admin", Error::Vanishing),
            ("/a/;/b", Error::Vanishing),
            ("/a//;/b", Error::Vanishing),
            ("/;x/", Error::Vanishing),
            ("/%3b/admin", Error::Vanishing),
            ("/%3Bx/admin", Error::Vanishing),
            ("/%3f/admin", Error::Vanishing),
            ("/%23x/admin", Error::Vanishing),
            ("/%20/admin", Error::Vanishing),
            ("/%20./admin", Error::Vanishing),
            ("/a/..%20./b", Error::Vanishing),
            ("/(S(abc))/admin", Error::Session),
            ("/(X(1))/admin", Error::Session),
            ("/(X(1)S(abc))/admin", Error::Session),
            ("/(Y(Z))/admin", Error::Session),
            ("/ad/(S(x))min", Error::Session),
            ("/(S(x));a/admin", Error::Session),
            ("/x/(A(a)F(b))/admin", Error::Session),
            ("/(s(abc))", Error::Session),
            ("/%28S%28abc%29%29/admin", Error::Session),
            ("/a/%c0%ae%c0%ae/b", Error::Overlong),
            ("/a%c0%afb", Error::Overlong),
            ("/a%e0%80%afb", Error::Overlong),
            ("/a%f0%80%80%afb", Error::Overlong),
        ] {
            assert_eq!(canonical(path), Err(expected), "{path}");
        }
    }

    #[test]
    fn a_segment_is_known_by_every_spelling_and_by_its_short_name() {
        for (segment, expected, short) in [
            ("admin", "admin", None),
            ("admin;x=1", "admin;x=1", Some("admin")),
            ("admin%3Bx", "admin;x", Some("admin")),
            ("admin%3Fx.php", "admin%3Fx.php", Some("admin")),
            ("admin%23", "admin%23", Some("admin")),
            ("admin.", "admin.", Some("admin")),
            ("admin..%20.", "admin..%20.", Some("admin")),
            ("admin::$INDEX_ALLOCATION", "admin::$INDEX_ALLOCATION", Some("admin")),
            ("admin:%24i30:$INDEX_ALLOCATION", "admin:$i30:$INDEX_ALLOCATION", Some("admin")),
            ("%40admin", "@admin", None),
            ("users:batchGet", "users:batchGet", None),
            ("a%20b", "a%20b", None),
            ("a%25", "a%25", None),
            ("%C3%A9", "%C3%A9", None),
            (";x", ";x", None),
        ] {
            let comparable = comparable(segment);
            assert_eq!(comparable, expected);
            assert_eq!(shortened(&comparable), short, "{segment}");
        }
    }

    #[test]
    fn a_query_is_ascii() {
        assert_eq!(canonical_query("a=b&c=%C3%a9"), "a=b&c=%C3%a9");
        assert_eq!(canonical_query("q=é€"), "q=%C3%A9%E2%82%AC");
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_final(path in "/[a-z./%0-9A-F;~é]{0,40}") {
            if let Ok(once) = canonical(&path) {
                let twice = canonical(&once);
                proptest::prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
                proptest::prop_assert!(!once.contains("//") && !once.contains("/../") && !once.contains("/./"));
            }
        }
    }
}

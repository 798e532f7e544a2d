//! Which path is meant?
//!
//! Routing, plugins and upstreams must never disagree on what a path names, so it is brought into one
//! canonical form before any of them sees it: percent-encodings of unreserved characters decoded, the
//! others in upper case (RFC 3986, section 6.2.2), dot segments resolved (section 5.2.4), runs of slashes
//! made one. Where servers are known to disagree there is no canonical form and the request is refused.

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
    #[error("the path holds a dot segment with a parameter")]
    DotParameter,
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
            Class::Dot if !after_slash => {}
            _ => return false,
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
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => Class::Plain,
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
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Slash | Class::Dot => decoded.push(byte),
            Class::High => encode(&mut decoded, byte),
            Class::Forbidden => return Err(Error::Forbidden),
            Class::Percent => {
                let (&[high, low], after) = rest.split_first_chunk().ok_or(Error::BadEncoding)?;
                rest = after;
                match hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low).ok_or(Error::BadEncoding)? {
                    b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Error::EncodedDelimiter),
                    byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(byte),
                    byte => encode(&mut decoded, byte),
                }
            }
        }
    }
    Ok(decoded)
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
    let mut resolved: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = memchr::memrchr(b'/', &resolved).ok_or(Error::AboveRoot)?;
                resolved.truncate(parent);
            }
            // Some servers drop `;parameters` before they resolve dots, and some after.
            [b'.', b';', ..] | [b'.', b'.', b';', ..] => return Err(Error::DotParameter),
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            resolved.push(b'/');
        }
    }
    Ok(String::from_utf8(resolved).expect("what is not ASCII has been encoded"))
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
        ] {
            assert_eq!(canonical(path), Err(expected), "{path}");
        }
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

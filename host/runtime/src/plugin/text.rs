//! How do strings of the contract become parts of messages, and the other way round?

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::error::Edit;

/// What a plugin has written, as it can stand in a message: no longer than anybody reads, and on one line.
pub fn brief(text: &str) -> String {
    const LONGEST: usize = 256;
    match text.floor_char_boundary(LONGEST) {
        end if end == text.len() => text.escape_debug().to_string(),
        end => format!("{}…", text[..end].escape_debug()),
    }
}

/// The string whose code points are the value's bytes (isomorphic decoding, as in the Fetch standard).
pub(super) fn to_string(value: &HeaderValue) -> String {
    match value.to_str() {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

/// The value whose bytes are the string's code points.
pub(super) fn to_value(text: String) -> Result<HeaderValue, Edit> {
    let bytes = if text.is_ascii() {
        text.into_bytes()
    } else {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map_err(|_| Edit::InvalidValue)?
    };
    HeaderValue::from_maybe_shared(Bytes::from(bytes)).map_err(|_| Edit::InvalidValue)
}

/// All values of a field as one, joined as in RFC 9110, section 5.3.
pub(super) fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let mut joined = to_string(values.next()?);
    for value in values {
        // Cookies are the exception: RFC 6265, section 5.4, and RFC 9113, section 8.2.3.
        joined.push_str(if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " });
        joined.push_str(&to_string(value));
    }
    Some(joined)
}

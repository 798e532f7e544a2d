//! How does data become the value of a header, so that whoever reads it gets the same data?
//!
//! A [`HeaderValue`] is the only thing that the setters of [`request`](crate::request) and
//! [`response`](crate::response) take, and this is the only place that makes one. Servers cut white space off the ends
//! of a value (RFC 9110, section 5.5), read bytes beyond ASCII as one character set or another, and split lists at
//! commas (section 5.6.1): a name `"admin "` would arrive as `admin`. Data that would not arrive as it is, is refused.

use std::fmt;

use crate::{config::is_header_name, owned};

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderValue(String);

/// Why data cannot be sent as the value of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lossy {
    /// A space at an end, which servers cut off.
    Space,
    /// A tab, a line break, or another control character.
    Control,
    /// A character beyond ASCII, of which servers read other characters.
    NotAscii,
    /// An item of a list with a comma or a quote in it, or an empty one: the list would have other items.
    Item,
    /// A number with more digits than were kept when it was read.
    Number,
}

impl HeaderValue {
    /// A text that arrives as it is: ASCII, without control characters, and without spaces at its ends.
    pub fn text(text: &str) -> Result<Self, Lossy> {
        if let Some(wrong) = text.bytes().find(|byte| !(b' '..=b'~').contains(byte)) {
            return Err(if wrong.is_ascii() { Lossy::Control } else { Lossy::NotAscii });
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err(Lossy::Space);
        }
        Ok(Self(text.to_owned()))
    }

    /// A list, joined by commas, whose items arrive as they are: each a text with something in it, and no comma. A quote
    /// would begin a string that may hold commas (RFC 9110, section 5.6.4).
    pub fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, Lossy> {
        let mut joined = String::new();
        for item in items {
            let Self(item) = Self::text(item)?;
            if item.is_empty() || item.contains([',', '"']) {
                return Err(Lossy::Item);
            }
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&item);
        }
        Ok(Self(joined))
    }

    /// What a header of the message in hand holds, byte for byte: the string whose code points are its bytes.
    pub fn of_field(value: &str) -> Result<Self, Lossy> {
        let is_control = |c: char| (c < ' ' && c != '\t') || c == '\u{7f}';
        if value.chars().any(is_control) {
            return Err(Lossy::Control);
        }
        if value.chars().any(|c| c > '\u{ff}') {
            return Err(Lossy::NotAscii);
        }
        if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
            return Err(Lossy::Space);
        }
        Ok(Self(value.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for HeaderValue {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Lossy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Space => "it begins or ends with white space, which servers cut off",
            Self::Control => "it has a tab, a line break or another control character",
            Self::NotAscii => "it has a character beyond ASCII, which servers read in different ways",
            Self::Item => "an item of the list is empty, or has a comma or a quote, so that servers would read other items",
            Self::Number => "it is a number with more digits than can be kept",
        })
    }
}

/// Whether two names are the same field to some server: CGI and what follows it (RFC 3875, section 4.1.18) fold case and
/// take a hyphen and an underscore for the same, and some servers whatever is neither a letter nor a digit. The host
/// compares names in the same way.
pub fn is_same_field(one: &str, other: &str) -> bool {
    let folded = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(one, other)| folded(one) == folded(other))
}

/// What a plugin does to a header that its configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Set,
    Append,
    Remove,
}

/// Whether the host lets a plugin make this change to a header: of the request, or with `is_response` of the response. To
/// be asked in `configure`, so that `tollgate check` says what would otherwise fail at each request. The error is what
/// follows "`header` in `config`: ".
pub fn may_change(is_response: bool, change: Change, name: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    if !is_header_name(name) {
        return Err(format!("`{shown}` is not the name of a header"));
    }
    let owned: &[&str] = if is_response { &owned::OF_A_CONNECTION } else { &owned::OF_THE_PROXY };
    if owned.iter().any(|field| is_same_field(field, name)) {
        return Err(format!(
            "the proxy itself writes `{shown}`, and no plugin may change it: use another header"
        ));
    }
    match change {
        Change::Append | Change::Remove if name.eq_ignore_ascii_case("host") => {
            Err(format!("a plugin may set `{shown}`, but not remove it or add a second: use another header"))
        }
        Change::Set | Change::Append | Change::Remove => Ok(()),
    }
}

/// The first of these names that is the same field as one before it, with that one.
pub fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let mut known: Vec<&str> = Vec::new();
    for name in names {
        if let Some(before) = known.iter().find(|before| is_same_field(before, name)) {
            return Some((before, name));
        }
        known.push(name);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_would_arrive_as_another_is_no_value() {
        for (text, expected) in [
            ("admin", Ok("admin")),
            ("Doe, John", Ok("Doe, John")),
            ("", Ok("")),
            ("a  b", Ok("a  b")),
            ("admin ", Err(Lossy::Space)),
            (" admin", Err(Lossy::Space)),
            (" ", Err(Lossy::Space)),
            ("\tadmin", Err(Lossy::Control)),
            ("ad\tmin", Err(Lossy::Control)),
            ("admin\r\nx-role: root", Err(Lossy::Control)),
            ("admin\0", Err(Lossy::Control)),
            ("admin\u{7f}", Err(Lossy::Control)),
            ("zo\u{eb}", Err(Lossy::NotAscii)),
            ("admin\u{a0}", Err(Lossy::NotAscii)),
            ("\u{20ac}", Err(Lossy::NotAscii)),
        ] {
            let value = HeaderValue::text(text);
            assert_eq!(value.as_ref().map(HeaderValue::as_str), expected.as_ref().copied(), "{text:?}");
        }
    }

    #[test]
    fn a_list_that_would_arrive_with_other_items_is_no_value() {
        for (items, expected) in [
            (&["a", "b c"][..], Ok("a,b c")),
            (&[], Ok("")),
            (&["user,admin"], Err(Lossy::Item)),
            (&["a", ""], Err(Lossy::Item)),
            (&[""], Err(Lossy::Item)),
            (&["\"a", "b\""], Err(Lossy::Item)),
            (&["a", " admin"], Err(Lossy::Space)),
            (&["zo\u{eb}"], Err(Lossy::NotAscii)),
        ] {
            let value = HeaderValue::list(items.iter().copied());
            assert_eq!(value.as_ref().map(HeaderValue::as_str), expected.as_ref().copied(), "{items:?}");
        }
    }

    #[test]
    fn what_a_field_holds_is_copied_byte_for_byte() {
        for (value, expected) in [
            ("a\tb\u{e9}", Ok("a\tb\u{e9}")),
            ("a ", Err(Lossy::Space)),
            ("\ta", Err(Lossy::Space)),
            ("a\nb", Err(Lossy::Control)),
            ("\u{20ac}", Err(Lossy::NotAscii)),
        ] {
            let field = HeaderValue::of_field(value);
            assert_eq!(field.as_ref().map(HeaderValue::as_str), expected.as_ref().copied(), "{value:?}");
        }
    }

    #[test]
    fn what_the_host_would_refuse_is_refused_beforehand() {
        let (request, response) = (false, true);
        for (is_response, change, name, is_allowed) in [
            (request, Change::Set, "x-user", true),
            (request, Change::Set, "Host", true),
            (request, Change::Remove, "host", false),
            (request, Change::Append, "host", false),
            (request, Change::Set, "X_Forwarded_For", false),
            (request, Change::Remove, "x-request-id", false),
            (request, Change::Set, "content-length", false),
            (request, Change::Set, "a b", false),
            (response, Change::Set, "x-request-id", true),
            (response, Change::Set, "Transfer.Encoding", false),
            (response, Change::Remove, "connection", false),
        ] {
            assert_eq!(may_change(is_response, change, name).is_ok(), is_allowed, "{change:?} {name}");
        }
    }

    #[test]
    fn one_field_under_two_spellings_is_found() {
        assert!(is_same_field("X-User", "x_user") && is_same_field("x.user", "x-user"));
        assert!(!is_same_field("x-user", "x-users") && !is_same_field("x-user", "xuser"));
        assert_eq!(twice(["a", "x-user", "b", "X_User"]), Some(("x-user", "X_User")));
        assert_eq!(twice(["a", "b"]), None);
    }
}

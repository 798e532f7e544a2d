//! What do the fields that steer caches say?
//!
//! `Cache-Control` as in RFC 9111, section 5.2, and `CDN-Cache-Control` as in RFC 9213.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::structured::{self, Item};

pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// As much time as there is: more is taken for this (RFC 9111, section 1.2.2).
pub const LONGEST: u64 = 1 << 31;

/// What a directive that may list fields is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Absent,
    /// These fields of the response.
    Fields(Vec<HeaderName>),
    /// All of it.
    Whole,
}

/// The directives of a response. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub no_store: bool,
    pub no_cache: Scope,
    pub private: Scope,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    /// They are from a field for caches like this one, next to which `Cache-Control` and `Expires` do not count.
    pub is_targeted: bool,
}

impl ResponseDirectives {
    /// Those that count for this cache (RFC 9213, section 2.2).
    pub fn of(headers: &HeaderMap) -> Self {
        Self::targeted(headers).unwrap_or_else(|| Self::general(headers))
    }

    fn general(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            each(value, |name, value| match name {
                "max-age" => first(&mut directives.max_age, value),
                "s-maxage" => first(&mut directives.s_maxage, value),
                "stale-while-revalidate" => first(&mut directives.stale_while_revalidate, value),
                "stale-if-error" => first(&mut directives.stale_if_error, value),
                "no-cache" => directives.no_cache.extend(value),
                "private" => directives.private.extend(value),
                name => directives.set(name),
            });
        }
        directives
    }

    /// None if there is no such field, or nothing in it, or it breaks the rules of structured fields.
    fn targeted(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CDN_CACHE_CONTROL).iter().peekable();
        lines.peek()?;
        let dictionary = structured::dictionary(lines.map(HeaderValue::as_bytes))?;
        if dictionary.is_empty() {
            return None;
        }
        let mut directives = Self { is_targeted: true, ..Self::default() };
        for (name, value) in dictionary {
            let time = match name.as_str() {
                "max-age" => &mut directives.max_age,
                "s-maxage" => &mut directives.s_maxage,
                "stale-while-revalidate" => &mut directives.stale_while_revalidate,
                "stale-if-error" => &mut directives.stale_if_error,
                name => {
                    let fields = match &value {
                        Item::Boolean(false) => continue,
                        Item::String(fields) => Some(Cow::Borrowed(fields.as_str())),
                        Item::Boolean(true) | Item::Integer(_) | Item::Other => None,
                    };
                    match name {
                        "no-cache" => directives.no_cache.extend(fields),
                        "private" => directives.private.extend(fields),
                        name => directives.set(name),
                    }
                    continue;
                }
            };
            let Item::Integer(seconds) = value else { return None };
            *time = Some(u64::try_from(seconds).unwrap_or(0).min(LONGEST));
        }
        Some(directives)
    }

    fn set(&mut self, name: &str) {
        match name {
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "immutable" => self.immutable = true,
            // Section 5.2.3: what a cache does not know it passes over.
            _ => {}
        }
    }
}

impl Scope {
    fn extend(&mut self, value: Option<Cow<'_, str>>) {
        let names = value.map(|value| {
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| name.parse::<HeaderName>().ok()).collect::<Option<Vec<_>>>()
        });
        match (&mut *self, names) {
            (Self::Whole, _) => {}
            (Self::Fields(all), Some(Some(names))) => all.extend(names),
            (Self::Absent, Some(Some(names))) if !names.is_empty() => *self = Self::Fields(names),
            // A list that cannot be read is taken for the stricter.
            _ => *self = Self::Whole,
        }
    }

    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Absent | Self::Whole => &[],
        }
    }
}

/// The directives of a request (RFC 9111, section 5.2.1). Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub max_age: Option<u64>,
    pub max_stale: Option<u64>,
    pub min_fresh: Option<u64>,
    pub stale_if_error: Option<u64>,
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
}

impl RequestDirectives {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            each(value, |name, value| match name {
                "max-age" => first(&mut directives.max_age, value),
                "min-fresh" => {
                    // One that cannot be read is not one that asks for nothing.
                    directives.min_fresh.get_or_insert(seconds(value.as_deref()).unwrap_or(LONGEST));
                }
                // Without a value any age is fine.
                "max-stale" if value.is_none() => drop(directives.max_stale.get_or_insert(LONGEST)),
                "max-stale" => first(&mut directives.max_stale, value),
                "stale-if-error" => first(&mut directives.stale_if_error, value),
                "no-cache" => directives.no_cache = true,
                "no-store" => directives.no_store = true,
                "only-if-cached" => directives.only_if_cached = true,
                _ => {}
            });
        }
        directives
    }
}

/// Notes a time unless there is one (section 4.2.1: the first counts). One that cannot be read is none left.
fn first(time: &mut Option<u64>, value: Option<Cow<'_, str>>) {
    time.get_or_insert(seconds(value.as_deref()).unwrap_or(0));
}

/// Seconds (section 1.2.2); a quoted form is accepted, as section 5.2 asks.
fn seconds(value: Option<&str>) -> Option<u64> {
    number(value?.as_bytes())
}

/// A whole number, at most [`LONGEST`].
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0')).min(LONGEST)
    }))
}

/// Calls for each directive of a line, with its name in lower case and what follows its `=`, unquoted.
///
/// A name that is followed by something else has an empty value: a number is then none, and what forbids
/// forbids all the same.
fn each(line: &HeaderValue, mut call: impl FnMut(&str, Option<Cow<'_, str>>)) {
    for member in Members::of(line.as_bytes()) {
        let length = member.iter().position(|byte| !is_token(*byte)).unwrap_or(member.len());
        let Ok(name) = std::str::from_utf8(&member[..length]) else { continue };
        if name.is_empty() {
            continue;
        }
        let name = name.to_ascii_lowercase();
        match &member[length..] {
            [] => call(&name, None),
            [b'=', b'"', quoted @ ..] => call(&name, Some(unquoted(quoted).into())),
            [b'=', value @ ..] => call(&name, Some(String::from_utf8_lossy(value))),
            _ => call(&name, Some("".into())),
        }
    }
}

/// The members of a list (RFC 9110, section 5.6.1): trimmed, empty ones left out, commas in quotes respected.
///
/// A quote that is never closed hides nothing: from there on commas part, whatever stands around them.
pub struct Members<'a> {
    rest: &'a [u8],
    respects_quotes: bool,
}

impl<'a> Members<'a> {
    pub fn of(list: &'a [u8]) -> Self {
        Self { rest: list, respects_quotes: true }
    }

    /// Where the first member ends.
    fn end(&mut self) -> usize {
        let (mut is_quoted, mut hidden) = (false, None);
        let mut bytes = self.rest.iter().enumerate();
        while let Some((index, byte)) = bytes.next() {
            match byte {
                b'"' if self.respects_quotes => is_quoted = !is_quoted,
                b'\\' if is_quoted => drop(bytes.next()),
                b',' if is_quoted => hidden = hidden.or(Some(index)),
                b',' => return index,
                _ => {}
            }
        }
        if is_quoted {
            self.respects_quotes = false;
            return hidden.unwrap_or(self.rest.len());
        }
        self.rest.len()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = self.end();
            let member = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

/// What stands up to the closing quote, escapes undone. Something behind the quote makes it no value.
fn unquoted(text: &[u8]) -> String {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if bytes.as_slice().is_empty() => return String::from_utf8_lossy(&value).into_owned(),
            b'"' => break,
            b'\\' => value.extend(bytes.next()),
            byte => value.push(*byte),
        }
    }
    String::new()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::of(&headers(header::CACHE_CONTROL, lines))
    }

    #[test]
    fn a_quote_that_is_not_closed_hides_no_directive() {
        for (list, expected) in [
            (r#"a="b, c", d"#, &[r#"a="b, c""#, "d"][..]),
            (r#"a="b, c, d"#, &[r#"a="b"#, "c", "d"]),
            (r#"a="b\", c"#, &[r#"a="b\""#, "c"]),
            (r#"a="b", c="d, e"f"#, &[r#"a="b""#, r#"c="d, e"f"#]),
            (r#"a", b="c", d"#, &[r#"a""#, r#"b="c""#, "d"]),
            (r#"""#, &[r#"""#]),
        ] {
            let found: Vec<_> =
                Members::of(list.as_bytes()).map(|member| std::str::from_utf8(member).unwrap()).collect();
            assert_eq!(found, expected, "{list}");
        }
        assert_ne!(response(&[r#"max-age=60, a="b, private"#]).private, response(&["max-age=60"]).private);
        // However many there are, each byte is looked at twice at most.
        let many = r#"a="\","#.repeat(100_000);
        assert_eq!(Members::of(many.as_bytes()).count(), 100_000);
    }

    #[test]
    fn a_time_is_a_whole_number_or_none() {
        // RFC 9111, sections 1.2.2, 4.2.1 and 5.2.
        for (lines, expected) in [
            (&["max-age=60"][..], Some(60)),
            (&["MaX-aGe=60"], Some(60)),
            (&["max-age=\"60\""], Some(60)),
            (&["max-age=006"], Some(6)),
            (&["max-age=2147483648"], Some(LONGEST)),
            (&["max-age=99999999999999999999999999999"], Some(LONGEST)),
            (&["max-age=60, max-age=5"], Some(60)),
            (&["max-age=5", "max-age=60"], Some(5)),
            (&["max-age=-1"], Some(0)),
            (&["max-age='60'"], Some(0)),
            (&["max-age=60.5"], Some(0)),
            (&["max-age=60a"], Some(0)),
            (&["max-age=a60"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age = 60"], Some(0)),
            (&["max-age= 60"], Some(0)),
            (&["max-age=\"60"], Some(0)),
            (&["max-age=\"60\"1"], Some(0)),
            (&["x=\"max-age=3600\", max-age=1"], Some(1)),
            (&["x=\"a\\\"b, max-age=3600\", max-age=1"], Some(1)),
            (&["x=\"max-age=3600"], None),
            (&[",, ,max-age=7,"], Some(7)),
            (&["=5, \"max-age\"=5"], None),
            (&["x-max-age=5"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(response(lines).max_age, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_directive_may_be_about_some_fields() {
        let fields =
            |names: &[&'static str]| Scope::Fields(names.iter().map(|name| name.parse().unwrap()).collect());
        for (lines, expected) in [
            (&["no-cache"][..], Scope::Whole),
            (&["No-CaChE"], Scope::Whole),
            (&["no-cache=\"a\""], fields(&["a"])),
            (&["no-cache=\"a, B\""], fields(&["a", "b"])),
            (&["no-cache=a"], fields(&["a"])),
            (&["no-cache=\"a\"", "no-cache=\"b\""], fields(&["a", "b"])),
            (&["no-cache=\"a\", no-cache"], Scope::Whole),
            (&["no-cache, no-cache=\"a\""], Scope::Whole),
            (&["no-cache=\"\""], Scope::Whole),
            (&["no-cache=\"a b\""], Scope::Whole),
            (&["no-cache junk"], Scope::Whole),
            (&["max-age=1"], Scope::Absent),
        ] {
            assert_eq!(response(lines).no_cache, expected, "{lines:?}");
        }
    }

    #[test]
    fn what_forbids_is_heard_however_badly_it_is_written() {
        assert!(response(&["no-store;"]).no_store);
        assert!(response(&["max-age=10,NO-STORE=1"]).no_store);
        assert!(!response(&["x=\"no-store\""]).no_store);
        assert!(!response(&["no-storeX"]).no_store);
    }

    #[test]
    fn a_request_says_what_it_puts_up_with() {
        let of = |line| RequestDirectives::of(&headers(header::CACHE_CONTROL, &[line]));
        assert_eq!(of("max-stale").max_stale, Some(LONGEST));
        assert_eq!(of("max-stale=5").max_stale, Some(5));
        assert_eq!(of("max-stale=x").max_stale, Some(0));
        assert_eq!(of("min-fresh=x").min_fresh, Some(LONGEST));
        assert!(of("only-if-cached, no-store, no-cache").only_if_cached);
        assert_eq!(of("nothing-to-see-here"), RequestDirectives::default());
    }

    #[test]
    fn a_targeted_field_counts_alone_if_it_can_be_read() {
        // RFC 9213, sections 2.1 and 2.2.
        for (line, expected) in [
            ("max-age=60", Some(60)),
            ("max-age=60;x=1, foo", Some(60)),
            ("max-age=1, max-age=60", Some(60)),
            ("max-age=99999999999", Some(LONGEST)),
            ("max-age=-5", Some(0)),
            ("max-age=\"60\"", None),
            ("max-age=60.0", None),
            ("max-age", None),
            ("max-age=60, &&&", None),
            ("MaX-aGe=60", None),
            ("max-age = 60", None),
            ("", None),
        ] {
            let found = ResponseDirectives::of(&headers(CDN_CACHE_CONTROL, &[line]));
            assert_eq!(found.is_targeted.then_some(found.max_age).flatten(), expected, "{line}");
        }
        let found =
            ResponseDirectives::of(&headers(CDN_CACHE_CONTROL, &["no-store=?0, no-cache=\"a\", private"]));
        assert!(!found.no_store && found.private == Scope::Whole);
        assert_eq!(found.no_cache.fields(), ["a"]);
    }

    proptest::proptest! {
        #[test]
        fn no_line_causes_a_panic(bytes in proptest::collection::vec(32u8..=255, 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(header::CACHE_CONTROL, value.clone());
                headers.insert(CDN_CACHE_CONTROL, value);
                let _ = (ResponseDirectives::of(&headers), RequestDirectives::of(&headers));
                let _ = ResponseDirectives::general(&headers);
            }
        }
    }
}

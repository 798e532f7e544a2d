//! Which part of a stored response is asked for?
//!
//! RFC 9110, section 14. One range is answered with that part; several, as is allowed, with all of it.

use http::{HeaderMap, StatusCode, header};

use super::{Time, date::parse};

/// What of a whole response the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranged {
    Whole,
    /// From the first to before the second byte.
    Part(u64, u64),
    /// 416: there is no such part.
    Unsatisfiable,
}

/// What the request wants of a stored response of `length` bytes.
pub fn requested(
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    length: u64,
    now: Time,
) -> Ranged {
    let Some(range) = request.get(header::RANGE) else { return Ranged::Whole };
    if status != StatusCode::OK || !is_of_this(request, stored, now) {
        return Ranged::Whole;
    }
    let several = request.get_all(header::RANGE).iter().nth(1).is_some();
    if several { Ranged::Whole } else { parse_range(range.as_bytes(), length) }
}

/// What is no range of bytes is as if it were not there (section 14.2).
fn parse_range(range: &[u8], length: u64) -> Ranged {
    let Some((unit, set)) = range.split_at_checked(6) else { return Ranged::Whole };
    let Some(dash) = set.iter().position(|&byte| byte == b'-') else { return Ranged::Whole };
    let (first, last) = (set[..dash].trim_ascii(), set[dash + 1..].trim_ascii());
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Ranged::Whole;
    }
    let (first, last) = match (position(first), position(last)) {
        // The last so many bytes.
        (Some(None), Some(Some(0))) => return Ranged::Unsatisfiable,
        (Some(None), Some(Some(count))) => (length.saturating_sub(count), length),
        (Some(Some(first)), Some(None)) => (first, length),
        (Some(Some(first)), Some(Some(last))) if first <= last => (first, last.saturating_add(1).min(length)),
        _ => return Ranged::Whole,
    };
    if first < length { Ranged::Part(first, last) } else { Ranged::Unsatisfiable }
}

/// A number that may be left out. None if it is something else.
#[expect(clippy::option_option, reason = "nothing and nonsense are not the same")]
fn position(digits: &[u8]) -> Option<Option<u64>> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some((!digits.is_empty()).then(|| digits.iter().fold(0, number)))
}

/// Whether `If-Range`, if there is one, names this very response (section 13.1.5): by a strong entity tag, or by
/// a date that is strong because the response is a minute older (section 8.8.2.2).
fn is_of_this(request: &HeaderMap, stored: &HeaderMap, now: Time) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    let condition = condition.as_bytes().trim_ascii();
    if condition.starts_with(b"\"") {
        return stored.get(header::ETAG).is_some_and(|tag| tag.as_bytes() == condition);
    }
    let date = |name| parse(stored.get(name)?.as_bytes(), now);
    match (parse(condition, now), date(header::LAST_MODIFIED), date(header::DATE)) {
        (Some(wanted), Some(modified), Some(made)) => wanted == modified && modified + 60 <= made,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn one_range_of_bytes_is_understood() {
        for (range, length, expected) in [
            ("bytes=0-1", 11, Ranged::Part(0, 2)),
            ("bytes=1-", 11, Ranged::Part(1, 11)),
            ("bytes=-1", 11, Ranged::Part(10, 11)),
            ("bytes=-99", 11, Ranged::Part(0, 11)),
            ("bytes=5-99", 11, Ranged::Part(5, 11)),
            ("Bytes=0-0", 11, Ranged::Part(0, 1)),
            ("bytes=11-", 11, Ranged::Unsatisfiable),
            ("bytes=11-20", 11, Ranged::Unsatisfiable),
            ("bytes=-0", 11, Ranged::Unsatisfiable),
            ("bytes=0-", 0, Ranged::Unsatisfiable),
            ("bytes=99999999999999999999999-", 11, Ranged::Unsatisfiable),
            ("bytes=0-99999999999999999999999", 11, Ranged::Part(0, 11)),
            ("bytes=2-1", 11, Ranged::Whole),
            ("bytes=0-1,3-4", 11, Ranged::Whole),
            ("bytes=-", 11, Ranged::Whole),
            ("bytes=a-b", 11, Ranged::Whole),
            ("bytes", 11, Ranged::Whole),
            ("lines=0-1", 11, Ranged::Whole),
            ("", 11, Ranged::Whole),
        ] {
            assert_eq!(parse_range(range.as_bytes(), length), expected, "{range} of {length}");
        }
    }

    #[test]
    fn a_range_of_another_response_is_none() {
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        let stored = headers(&[
            ("etag", "\"a\""),
            ("last-modified", modified),
            ("date", "Sun, 06 Nov 1994 09:49:37 GMT"),
        ]);
        for (condition, expected) in [
            ("\"a\"", Ranged::Part(0, 2)),
            ("\"b\"", Ranged::Whole),
            ("W/\"a\"", Ranged::Whole),
            (modified, Ranged::Part(0, 2)),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Ranged::Whole),
            ("x", Ranged::Whole),
        ] {
            let request = headers(&[("range", "bytes=0-1"), ("if-range", condition)]);
            let found = requested(&request, StatusCode::OK, &stored, 11, Time(0));
            assert_eq!(found, expected, "{condition}");
        }
        let request = headers(&[("range", "bytes=0-1")]);
        assert_eq!(requested(&request, StatusCode::NOT_FOUND, &stored, 11, Time(0)), Ranged::Whole);
    }
}

//! Which time does a date name?
//!
//! The three forms of RFC 9110, section 5.6.7, in upper or lower case (RFC 9111, section 4.2). What is written
//! otherwise is no date.

use super::Time;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const DAY: u64 = 86_400;

/// Seconds since 1970; a date before that is 1970. `now` tells the century of a year of two digits.
pub fn parse(text: &[u8], now: Time) -> Option<u64> {
    let text = text.trim_ascii();
    match text.iter().position(|&byte| byte == b',') {
        Some(3) => fixed(text),
        Some(6..=9) => rfc850(text, now),
        None => asctime(text),
        Some(_) => None,
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn fixed(text: &[u8]) -> Option<u64> {
    let [_, _, _, b',', b' ', day @ ..] = without_zone(text)? else { return None };
    let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ ..] = day else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    seconds(year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, clock(time)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: Time) -> Option<u64> {
    let comma = text.iter().position(|&byte| byte == b',')?;
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] =
        without_zone(text.get(comma..)?)?
    else {
        return None;
    };
    let this_year = year_of(now.seconds());
    let year = this_year - this_year % 100 + number(&[*y1, *y2])?;
    // What seems to be more than fifty years ahead is in the past.
    let year = if year > this_year + 50 { year - 100 } else { year };
    seconds(year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, clock(time)?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<u64> {
    let [_, _, _, b' ', m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] = text else {
        return None;
    };
    let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
    seconds(number(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, day, clock(time)?)
}

/// What stands before ` GMT`. Another zone makes it no date (RFC 9111, section 4.2).
fn without_zone(text: &[u8]) -> Option<&[u8]> {
    let (rest, zone) = text.split_last_chunk::<4>()?;
    zone.eq_ignore_ascii_case(b" GMT").then_some(rest)
}

/// `08:49:37`, in seconds.
fn clock(text: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = text else { return None };
    let (hours, minutes, seconds) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    // 60 is a leap second.
    (hours < 24 && minutes < 60 && seconds <= 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| Some(number * 10 + u64::from(char::from(*digit).to_digit(10)?)))
}

fn month(name: &[u8; 3]) -> Option<u64> {
    MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name)).map(|index| index as u64 + 1)
}

fn seconds(year: u64, month: u64, day: u64, time: u64) -> Option<u64> {
    if !(1..=31).contains(&day) {
        return None;
    }
    Some((days_before(year, month, day) * DAY as i64 + time as i64).max(0) as u64)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn days_before(year: u64, month: u64, day: u64) -> i64 {
    let (year, month, day) = (year as i64, month as i64, day as i64);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970; the same source.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

fn year_of(seconds: u64) -> u64 {
    date_of(seconds / DAY).0
}

/// The preferred form, for a time up to the year 9999.
pub fn format(time: Time) -> String {
    let seconds = time.seconds().min(253_402_300_799);
    let (days, of_day) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = date_of(days);
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month as usize - 1].map(char::from);
    let month: String = month.iter().collect();
    format!("{weekday}, {day:02} {month} {year:04} {hours:02}:{minutes:02}:{seconds:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds_const(1_795_000_000);

    impl Time {
        const fn from_seconds_const(seconds: u64) -> Self {
            Self(seconds * 1000)
        }
    }

    #[test]
    fn a_date_comes_in_three_forms() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 01 Jan 1900 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 23:59:60 GMT", Some(1_709_251_200)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599)),
            ("sun, 06 nov 1994 08:49:37 gmt", Some(784_111_777)),
            ("SUN, 06 NOV 1994 08:49:37 GMT", Some(784_111_777)),
            ("sunday, 06-nOV-94 08:49:37 Gmt", Some(784_111_777)),
            ("sun nov  6 08:49:37 1994", Some(784_111_777)),
            ("", None),
            ("0", None),
            ("-1", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06  Nov  1994 08:49:37 GMT", None),
            ("Sun, 06-Nov-1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08.49.37 GMT", None),
            (",,,,,,,", None),
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for seconds in [0, 784_111_777, 951_782_399, 951_782_400, 4_107_542_399, 253_402_300_799] {
            let text = format(Time::from_seconds(seconds));
            assert_eq!(parse(text.as_bytes(), NOW), Some(seconds), "{text}");
        }
        assert_eq!(format(Time::from_seconds(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(Time(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "[A-Za-z0-9 ,:-]{0,40}") {
            let _ = parse(text.as_bytes(), NOW);
        }
    }
}

//! How long is what an operator writes as a time?

use serde::{Deserialize, Deserializer, de};

/// A time of a second at least, written as `"1s"`, `"10m"`, `"1h"` or `"1d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u32);

impl Seconds {
    /// None of no seconds.
    pub const fn new(seconds: u32) -> Option<Self> {
        if seconds > 0 { Some(Self(seconds)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// In milliseconds; the longest time that can be said in them, if it is longer.
    pub const fn milliseconds(self) -> u32 {
        self.0.saturating_mul(1000)
    }

    fn parse(text: &str) -> Option<Self> {
        let unit = match text.bytes().last()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        let number: u32 = text[..text.len() - 1].parse().ok()?;
        Self::new(number.checked_mul(unit)?)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom("is no time: write \"1s\", \"10m\", \"1h\" or \"1d\""))
    }
}

#[cfg(test)]
mod tests {
    use super::Seconds;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, seconds) in [
            ("1s", Some(1)),
            ("10m", Some(600)),
            ("2h", Some(7_200)),
            ("1d", Some(86_400)),
            ("0s", None),
            ("s", None),
            ("", None),
            ("1", None),
            ("1x", None),
            ("-1s", None),
            ("1é", None),
            ("4294967295d", None),
        ] {
            assert_eq!(Seconds::parse(text).map(Seconds::get), seconds, "{text:?}");
        }
    }
}

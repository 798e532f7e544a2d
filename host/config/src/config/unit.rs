//! Durations and sizes, written with their unit, and shares of a whole.

use std::{fmt, time};

use serde::{Deserialize, Deserializer, de};

use super::shape::{written, written_or};

/// A length of time: `"250ms"`, `"1m 30s"`. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

impl Duration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds))
    }

    pub const fn get(self) -> time::Duration {
        self.0
    }

    /// A length of time as it is written.
    pub(super) fn read(text: &str) -> Option<Self> {
        let duration = match text.strip_suffix('d').map(str::parse::<u32>) {
            // A day of clocks that change is not always one of 24 hours, but nobody means that here.
            Some(Ok(days)) => time::Duration::from_secs(u64::from(days) * 24 * 60 * 60),
            _ => time::Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()?,
        };
        // A hundred years: what is added to an instant must not overflow it.
        let fits = !duration.is_zero() && duration.as_secs() < u64::from(u32::MAX);
        fits.then_some(Self(duration))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration above zero with its unit, such as \"250ms\", \"10s\" or \"5m\"";
        written(deserializer, expected, Self::read)
    }
}

/// A number of bytes: `"64KiB"`, `"1MiB"`, `"1500B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    pub const fn bytes(count: usize) -> Self {
        Self(count as u64)
    }

    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// For what is held in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize::b(self.0).display().iec().fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written_or(deserializer, "a size with its unit, such as \"64KiB\" or \"1MiB\"", |text| {
            Self::parse(text).ok_or_else(|| {
                let is_ambiguous = text.trim_end().ends_with(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']);
                is_ambiguous.then_some(
                    "a unit such as `m` is not clear: write MiB for 1,048,576 bytes or MB for 1,000,000 (and KiB or kB, \
                     GiB or GB)",
                )
            })
        })
    }
}

impl ByteSize {
    /// `k`, `m` and `g` alone are refused: to nginx they are powers of 1024, to others of 1000.
    const UNITS: [(&str, u64); 10] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];

    /// None for what is no size, or too large a one.
    fn parse(text: &str) -> Option<Self> {
        let unit = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, unit) = text.split_at(unit);
        let unit = unit.trim();
        let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*factor).map(Self);
        }
        let size = number.parse::<f64>().ok()? * *factor as f64;
        // Beyond this not every number is one of `f64`; nobody means a fraction of a byte there.
        (number.contains('.') && size < (1_u64 << 53) as f64).then_some(Self(size as u64))
    }
}

/// A part of a whole: 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// `share` is from 0 to 1; what is not is the nearer of them.
    pub const fn new(share: f64) -> Self {
        Self(share.clamp(0.0, 1.0))
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Share;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a share of the whole from 0 to 1, such as 0.2")
            }

            fn visit_f64<E: de::Error>(self, share: f64) -> Result<Share, E> {
                let is_share = (0.0..=1.0).contains(&share);
                is_share
                    .then_some(Share(share))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("number"), &self))
            }

            fn visit_i64<E: de::Error>(self, share: i64) -> Result<Share, E> {
                self.visit_f64(share as f64)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

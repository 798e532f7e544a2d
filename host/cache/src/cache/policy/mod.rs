//! What do HTTP's rules say about it?
//!
//! RFC 9111 with what belongs to it: validators (RFC 9110), `stale-while-revalidate` and `stale-if-error` (RFC
//! 5861), `immutable` (RFC 8246), `CDN-Cache-Control` (RFC 9213). Pure functions of messages and of the time,
//! which is given to them: nothing here does I/O or reads a clock. Absurd values are bounded, never refused
//! with a panic.

mod date;
mod directives;
mod invalidation;
mod range;
mod reuse;
mod storing;
mod structured;
mod validation;
mod vary;

pub use date::{format as format_date, parse as parse_date};
pub use directives::{RequestDirectives, ResponseDirectives, Scope};
pub use invalidation::{invalidates, same_origin_target};
pub use range::{Ranged, requested as requested_range};
pub use reuse::{Reuse, reuse, usable_on_failure};
pub use storing::{Asked, Freshness, Judgement, Lifetimes, Refusal, Terms, judge, may_be_stored};
pub use validation::{
    Update, conditional_headers, forget_conditions, is_met_elsewhere, is_not_modified, is_same_after_head,
    not_modified_headers, update_head, with_conditions,
};
pub use vary::{Selection, Vary};

/// A point in time: milliseconds since 1970.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Seconds since 1970, the fraction dropped.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to this; none if a clock was set back meanwhile.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// All members of a field that is a list, over all its lines: trimmed, empty ones left out, quotes respected.
pub(super) fn members<'a>(
    headers: &'a http::HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| directives::Members::of(value.as_bytes()))
}

//! Is it worth another attempt, and when?
//!
//! Whether it does harm comes first: what may have reached an endpoint is sent again only if it can be repeated.
//! Values go in, a decision comes out.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::{
    cache::policy::{Time, parse_date},
    config,
};

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// Nothing of it reached an endpoint.
    Unsent,
    /// It may have, and no answer came back.
    Lost,
    TimedOut,
    /// After what time the endpoint would be asked again, if it says so.
    Answered {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
}

/// What is known when an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub outcome: AttemptOutcome,
    /// Attempts so far, this one included.
    pub made: usize,
    /// Sending it twice does no harm, and it is all there.
    pub is_repeatable: bool,
    /// Whether there is an endpoint that it has not been brought to.
    pub has_others: bool,
    /// Until all attempts have taken too long.
    pub left: Option<Duration>,
}

/// After what time there is to be another attempt, if there is to be one. `chance` is from 0 to 1.
///
/// Waiting times are drawn between nothing and a bound that doubles ("full jitter" in Brooker, "Exponential
/// Backoff And Jitter", 2015).
pub(super) fn again(policy: &config::Retry, attempt: Attempt, chance: f64) -> Option<Duration> {
    let Attempt { outcome, made, is_repeatable, has_others, left } = attempt;
    let is_wanted = match outcome {
        AttemptOutcome::Unsent => true,
        AttemptOutcome::Lost => is_repeatable,
        AttemptOutcome::TimedOut => is_repeatable && policy.on.contains(&StatusCode::GATEWAY_TIMEOUT),
        AttemptOutcome::Answered { status, .. } => is_repeatable && policy.on.contains(&status),
    };
    if !is_wanted || made > policy.attempts as usize {
        return None;
    }
    let doublings = u32::try_from(made - 1).unwrap_or(u32::MAX);
    let bound = policy.backoff.get().saturating_mul(2_u32.saturating_pow(doublings));
    let mut wait = bound.min(policy.backoff_max.get()).mul_f64(chance);
    if outcome == AttemptOutcome::Unsent && has_others {
        // Nobody is the worse for it.
        wait = Duration::ZERO;
    }
    if let AttemptOutcome::Answered { retry_after: Some(after), .. } = outcome
        && !has_others
    {
        if left.is_none() && after > policy.backoff_max.get() {
            return None;
        }
        wait = wait.max(after);
    }
    left.is_none_or(|left| wait < left).then_some(wait)
}

/// After what time an endpoint wants to be asked again (RFC 9110, section 10.2.3): in seconds, or not before a date.
pub(super) fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> Time) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.as_bytes().trim_ascii();
    let seconds = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    seconds.map(Duration::from_secs).or_else(|| {
        let now = now();
        let date = Time::from_seconds(parse_date(value, now)?);
        Some(Duration::from_millis(date.since(now)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> config::Retry {
        toml::from_str(text).unwrap()
    }

    const LOST: Attempt =
        Attempt { outcome: AttemptOutcome::Lost, made: 1, is_repeatable: true, has_others: true, left: None };

    fn answered(status: u16, retry_after: Option<u64>) -> AttemptOutcome {
        let status = StatusCode::from_u16(status).unwrap();
        AttemptOutcome::Answered { status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn only_what_can_do_no_harm_is_sent_again() {
        let policy = policy("on = [503, 504]");
        for (outcome, if_repeatable, otherwise) in [
            (AttemptOutcome::Unsent, true, true),
            (AttemptOutcome::Lost, true, false),
            (AttemptOutcome::TimedOut, true, false),
            (answered(503, None), true, false),
            (answered(502, None), false, false),
            (answered(200, None), false, false),
        ] {
            for (is_repeatable, expected) in [(true, if_repeatable), (false, otherwise)] {
                let decision = again(&policy, Attempt { outcome, is_repeatable, ..LOST }, 0.5);
                assert_eq!(decision.is_some(), expected, "{outcome:?} {is_repeatable}");
            }
        }
        let timed_out = Attempt { outcome: AttemptOutcome::TimedOut, ..LOST };
        assert_eq!(again(&self::policy("on = [503]"), timed_out, 0.5), None);
    }

    #[test]
    fn attempts_are_counted() {
        for (attempts, made, expected) in
            [(0, 1, false), (1, 1, true), (1, 2, false), (2, 2, true), (2, 3, false)]
        {
            let policy = policy(&format!("attempts = {attempts}"));
            let decision = again(&policy, Attempt { made, ..LOST }, 0.5);
            assert_eq!(decision.is_some(), expected, "{made} made, {attempts} more allowed");
        }
    }

    #[test]
    fn waiting_doubles_up_to_a_bound_and_is_drawn_below_it() {
        let policy = policy("attempts = 100\nbackoff = '20ms'\nbackoff-max = '100ms'");
        for (made, chance, expected) in [
            (1, 1.0, 20),
            (1, 0.5, 10),
            (1, 0.0, 0),
            (2, 1.0, 40),
            (3, 1.0, 80),
            (4, 1.0, 100),
            (90, 0.5, 50),
        ] {
            let decision = again(&policy, Attempt { made, ..LOST }, chance);
            assert_eq!(decision, Some(Duration::from_millis(expected)), "{made} {chance}");
        }
        let unsent = Attempt { outcome: AttemptOutcome::Unsent, ..LOST };
        assert_eq!(again(&policy, unsent, 1.0), Some(Duration::ZERO), "to another at once");
        let alone = Attempt { has_others: false, ..unsent };
        assert_eq!(again(&policy, alone, 1.0), Some(Duration::from_millis(20)));
    }

    #[test]
    fn an_endpoint_is_not_asked_before_it_wants_to_be() {
        let policy = policy("on = [503]\nbackoff = '20ms'\nbackoff-max = '2s'");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let backoff = Some(Duration::from_millis(20));
        for (retry_after, has_others, left, expected) in [
            (1, false, None, seconds(1)),
            (3, false, None, None),
            (3, true, None, backoff),
            (3, false, seconds(4), seconds(3)),
            (3, false, seconds(3), None),
            (0, false, None, backoff),
        ] {
            let outcome = answered(503, Some(retry_after));
            let decision = again(&policy, Attempt { outcome, has_others, left, ..LOST }, 1.0);
            assert_eq!(decision, expected, "{retry_after} {has_others} {left:?}");
        }
    }

    #[test]
    fn no_attempt_begins_after_the_time_of_all() {
        let policy = policy("backoff = '20ms'");
        for (left, expected) in [(0, false), (20, false), (21, true)] {
            let left = Some(Duration::from_millis(left));
            assert_eq!(again(&policy, Attempt { left, ..LOST }, 1.0).is_some(), expected, "{left:?}");
        }
    }

    #[test]
    fn seconds_and_dates_are_read() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = Time(784_111_777_250);
        for (value, expected) in [
            ("5", Some(5_000)),
            (" 7 ", Some(7_000)),
            ("-1", None),
            ("x", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(2_750)),
            ("Sunday, 06-Nov-94 08:49:40 GMT", Some(2_750)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:40", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, || now), expected.map(Duration::from_millis), "{value:?}");
        }
    }
}

//! May a request be sent again, as far as the upstream is concerned?
//!
//! If every request to a failing upstream were sent three times, it would get three times the work when it can
//! do least. So only a share of the requests may be sent again, counted over all workers.

use std::sync::{Mutex, PoisonError};

use crate::config::Share;

/// What an upstream may still be sent again.
#[derive(Debug, Default)]
pub struct Budget(Mutex<Account>);

#[derive(Debug)]
struct Account {
    /// Requests that may be sent again.
    credit: f64,
    /// Requests that have been counted.
    counted: u64,
}

/// What there is before the first request, so that few requests can be sent again, too.
const FLOOR: f64 = 10.0;

/// Requests whose share can be saved up at most.
const SAVED: f64 = 1000.0;

impl Default for Account {
    fn default() -> Self {
        Self { credit: FLOOR, counted: 0 }
    }
}

impl Budget {
    /// Takes one, if there is one. `requests` counts those ever sent, without those sent again.
    pub fn take(&self, requests: u64, share: Share) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(requests, share)
    }
}

impl Account {
    fn take(&mut self, requests: u64, share: Share) -> bool {
        // There are fewer than before where an endpoint has left, which takes its count along.
        let new = requests.saturating_sub(self.counted);
        self.counted = requests;
        let most = (SAVED * share.get()).max(FLOOR);
        self.credit = (self.credit + new as f64 * share.get()).min(most);
        if self.credit < 1.0 || share.get() == 0.0 {
            return false;
        }
        self.credit -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests, each of which fails all the time, are sent again.
    fn again(account: &mut Account, from: u64, count: u64, share: f64) -> u64 {
        (from + 1..=from + count).map(|now| u64::from(account.take(now, Share::new(share)))).sum()
    }

    #[test]
    fn a_share_of_the_requests_and_a_few_more_are_sent_again() {
        for (count, share, expected) in [
            (5, 0.2, 5..=5),
            (1000, 0.2, 209..=211),
            (10_000, 0.2, 2009..=2011),
            (100, 0.0, 0..=0),
            (100, 1.0, 100..=100),
        ] {
            let sent = again(&mut Account::default(), 0, count, share);
            assert!(expected.contains(&sent), "{sent} of {count} at {share}");
        }
    }

    #[test]
    fn what_was_not_used_is_saved_up_to_a_limit() {
        let mut account = Account::default();
        assert!(account.take(1_000_000, Share::new(0.2)));
        let sent = (0..1000).filter(|_| account.take(1_000_000, Share::new(0.2))).count();
        assert_eq!(sent, 199);
    }

    #[test]
    fn an_endpoint_that_leaves_takes_nothing_away() {
        let mut account = Account::default();
        assert_eq!(again(&mut account, 1000, 100, 0.2), 100, "from what was saved");
        assert!(again(&mut account, 0, 1000, 0.2) >= 200);
    }
}

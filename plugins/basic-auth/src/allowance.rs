//! May another password be checked now?

/// So many checks at once, and as many in a second after that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    per_second: u32,
    /// In thousandths of a check.
    left: u64,
    /// In milliseconds.
    at: u64,
}

impl Allowance {
    const ONE: u64 = 1000;

    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, left: u64::from(per_second) * Self::ONE, at: 0 }
    }

    /// Takes one, at a time in milliseconds, if there is one.
    pub(crate) fn take(&mut self, now: u64) -> bool {
        let most = u64::from(self.per_second) * Self::ONE;
        let earned = now.saturating_sub(self.at).saturating_mul(u64::from(self.per_second));
        self.left = self.left.saturating_add(earned).min(most);
        self.at = now;
        let is_there = self.left >= Self::ONE;
        if is_there {
            self.left -= Self::ONE;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::Allowance;

    #[test]
    fn it_comes_back_with_time_and_no_more_than_it_was() {
        let mut allowance = Allowance::new(2);
        let mut take = |now| allowance.take(now);
        assert_eq!([take(1_000), take(1_000), take(1_000)], [true, true, false]);
        assert_eq!([take(1_499), take(1_500), take(1_500)], [false, true, false]);
        assert_eq!([take(90_000), take(90_000), take(90_000)], [true, true, false]);
        // A clock that was set back gives nothing away.
        assert!(!take(0));
        assert!(take(500));
    }
}

//! How many requests at once are good for an upstream?
//!
//! Where latency grows, requests queue up somewhere: then fewer are better. After "gradient2" of Netflix's
//! concurrency-limits: the limit follows the ratio of the latency over a long time to that of now, and grows by
//! the square root of itself while there is no difference. Values go in, the limit comes out.

/// A limit that follows the latency.
#[derive(Debug, Clone, Copy)]
pub struct Gradient {
    limit: f64,
    /// The latency over a long time, in microseconds; 0 before the first.
    usual: f64,
}

/// Latency may be so many times the usual one before the limit goes down.
const TOLERANCE: f64 = 1.5;
/// How much of a new limit counts, against the one before.
const SMOOTHING: f64 = 0.2;
/// How much of a new latency counts in the usual one.
const MEMORY: f64 = 0.02;
const LEAST: f64 = 4.0;
const FIRST: f64 = 32.0;

impl Default for Gradient {
    fn default() -> Self {
        Self { limit: FIRST, usual: 0.0 }
    }
}

impl Gradient {
    /// The limit after some time in which requests took `latency_us` on average, `active` of them at once. It is
    /// never above `most`.
    pub fn next(&mut self, latency_us: u32, active: u32, most: u32) -> u32 {
        let now = f64::from(latency_us.max(1));
        self.usual = if self.usual == 0.0 { now } else { self.usual * (1.0 - MEMORY) + now * MEMORY };
        if self.usual > now * 2.0 {
            // It was slow for long and is not any more: what is usual is to be found anew.
            self.usual *= 0.95;
        }
        let gradient = (TOLERANCE * self.usual / now).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        // What is not used tells nothing about more of it.
        let is_used = f64::from(active) >= self.limit / 2.0;
        if is_used || wanted < self.limit {
            self.limit = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        }
        self.limit = self.limit.clamp(LEAST.min(f64::from(most)), f64::from(most));
        self.limit as u32
    }

    pub fn limit(&self) -> u32 {
        self.limit as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gradient: &mut Gradient, times: u32, latency_us: u32, is_busy: bool, most: u32) -> u32 {
        (0..times).fold(0, |_, _| {
            let active = if is_busy { gradient.limit() } else { 1 };
            gradient.next(latency_us, active, most)
        })
    }

    #[test]
    fn the_limit_grows_while_latency_does_not_and_it_is_used() {
        for (times, is_busy, expected) in
            [(1, true, 33..=33), (50, true, 100..=200), (500, true, 500..=500), (500, false, 32..=32)]
        {
            let limit = after(&mut Gradient::default(), times, 1000, is_busy, 500);
            assert!(expected.contains(&limit), "{times} {is_busy}: {limit}");
        }
    }

    #[test]
    fn the_limit_goes_down_when_latency_goes_up_and_comes_back() {
        let mut gradient = Gradient::default();
        let before = after(&mut gradient, 100, 1000, true, 500);
        let slow = after(&mut gradient, 10, 10_000, true, 500);
        assert!(slow < before * 2 / 3, "{before} {slow}");
        let again = after(&mut gradient, 200, 1000, true, 500);
        assert!(again > before, "{before} {again}");
    }

    #[test]
    fn the_limit_has_bounds() {
        let mut gradient = Gradient::default();
        after(&mut gradient, 10, 100, true, 500);
        assert!(after(&mut gradient, 30, u32::MAX, true, 500) >= 4);
        assert_eq!(after(&mut gradient, 1, 0, true, 2), 2);
    }

    #[test]
    fn a_little_slower_is_not_slow() {
        let mut gradient = Gradient::default();
        let before = after(&mut gradient, 50, 1000, true, 500);
        assert!(after(&mut gradient, 5, 1400, true, 500) > before);
    }
}

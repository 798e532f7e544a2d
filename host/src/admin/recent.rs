//! How was it in the last seconds?
//!
//! Counts are kept from the start of the process, which says little of now. So what they were is remembered when
//! somebody asks, and the next answers are about what has come since.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::telemetry::Distribution;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// By the name of what it is about.
    all: HashMap<String, Remembered>,
    /// When what nobody asks about was forgotten last. Not each time: there may be thousands of endpoints.
    cleared: Option<Instant>,
}

/// What something had counted at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub count: u64,
    pub durations: Distribution,
}

#[derive(Debug)]
struct Remembered {
    /// What answers are about: all since this.
    since: Option<(Instant, Sample)>,
    last: (Instant, Sample),
}

impl Recent {
    /// Answers are about this long at least, and twice that at most.
    const SPAN: Duration = Duration::from_secs(10);
    /// What nobody has asked about for so long is forgotten.
    const KEPT: Duration = Duration::from_secs(60);

    /// What has come in the last seconds, if somebody asks now and then, else since the start of the process.
    pub fn since(&self, name: &str, now: Sample) -> Sample {
        self.since_at(name, now, Instant::now())
    }

    fn since_at(&self, name: &str, now: Sample, at: Instant) -> Sample {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { all, cleared } = &mut *memory;
        let is_kept = |remembered: &Remembered| at.duration_since(remembered.last.0) < Self::KEPT;
        if cleared.is_none_or(|cleared| at.duration_since(cleared) >= Self::SPAN) {
            all.retain(|_, remembered| is_kept(remembered));
            *cleared = Some(at);
        }
        if all.get(name).is_some_and(|remembered| !is_kept(remembered)) {
            all.remove(name);
        }
        let Some(remembered) = all.get_mut(name) else {
            all.insert(name.to_owned(), Remembered { since: None, last: (at, now.clone()) });
            return now;
        };
        if at.duration_since(remembered.last.0) >= Self::SPAN {
            remembered.since = Some(std::mem::replace(&mut remembered.last, (at, now.clone())));
        }
        match &remembered.since {
            None => now,
            Some((_, earlier)) => Sample {
                count: now.count.saturating_sub(earlier.count),
                durations: now.durations.since(&earlier.durations),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_about_the_last_seconds_while_somebody_asks() {
        let recent = Recent::default();
        let start = Instant::now();
        let ask = |second, count| {
            let now = Sample { count, ..Sample::default() };
            recent.since_at("a", now, start + Duration::from_secs(second)).count
        };
        assert_eq!(ask(0, 100), 100, "since the start of the process");
        assert_eq!(ask(5, 110), 110);
        assert_eq!(ask(10, 120), 20);
        assert_eq!(ask(15, 130), 30);
        assert_eq!(ask(20, 140), 20);
        assert_eq!(ask(200, 1000), 1000, "nobody has asked for a while");
    }
}

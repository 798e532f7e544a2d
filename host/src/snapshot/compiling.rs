//! Which components are compiled when, and in what time?

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    builder::{Builder, Compiled},
    choosing::Chosen,
    error::PluginError,
    loaded::Loaded,
};
use crate::{
    config::Config,
    plugin::{CompileLimits, Digest, LoadError},
};

/// What a plugin is loaded with.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub config: &'a Config,
    pub budget: &'a Budget,
    /// Whether anybody calls it.
    pub serves: bool,
    /// What happens to it if nobody does.
    pub unneeded: Unneeded,
}

/// When components are compiled that lie in the drop folder and that nothing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unneeded {
    /// At once.
    Now,
    /// After the configuration has come into force, which must not wait for them: see [`Builder::try_unneeded`].
    Later,
}

/// The time that the plugins of a reload may take together.
pub(super) struct Budget {
    /// When all must have started.
    starts: Cell<Duration>,
    pub of_starts: Duration,
    /// What is left for compiling files that nothing names.
    compiling: Cell<Duration>,
}

impl Budget {
    pub fn new(config: &Config) -> Self {
        let (starts, compiling) = (config.limits.plugin_start.get(), config.limits.plugin_compile.get());
        Self { starts: Cell::new(starts), of_starts: starts, compiling: Cell::new(compiling) }
    }

    /// Until when what starts now may take.
    pub fn until(&self) -> Instant {
        Instant::now() + self.starts.get()
    }

    /// Does what counts as the start of a plugin, if there is time for it.
    pub fn start<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, PluginError>,
    ) -> Result<T, PluginError> {
        if self.starts.get().is_zero() {
            return Err(PluginError::NoTime(self.of_starts));
        }
        let since = Instant::now();
        let result = work();
        let took = since.elapsed();
        self.starts.set(self.starts.get().saturating_sub(took));
        if took > self.of_starts / 4 {
            tracing::warn!(plugin = name, ?took, "the plugin takes long to start and to be tested");
        }
        result
    }
}

pub(super) fn compile_limits(config: &Config) -> CompileLimits {
    CompileLimits { time: config.limits.plugin_compile.get(), memory: config.limits.plugin_compile_memory }
}

impl Builder {
    /// The code of a component. What nothing needs has all together the time that one has which is needed.
    pub(super) fn compiled(&self, chosen: &Chosen<'_>, terms: Terms<'_>) -> Compiled {
        if terms.serves || self.engine.is_compiled(chosen.digest) {
            return Ok(self.engine.load_within(&chosen.bytes, compile_limits(terms.config))?);
        }
        let tried = self.tried.lock().expect("no holder of this lock panics").get(&chosen.digest).cloned();
        tried.unwrap_or_else(|| self.compile_unneeded(chosen, terms.config, &terms.budget.compiling))
    }

    fn compile_unneeded(&self, chosen: &Chosen<'_>, config: &Config, time: &Cell<Duration>) -> Compiled {
        let limits = compile_limits(config);
        let left = time.get();
        if left.is_zero() {
            return Err(LoadError::NoTime(limits.time).into());
        }
        let since = Instant::now();
        let loaded = self.engine.load_unasked(&chosen.bytes, CompileLimits { time: left, ..limits });
        time.set(left.saturating_sub(since.elapsed()));
        Ok(loaded?)
    }

    /// Whether a component need not be compiled.
    pub(super) fn is_at_hand(&self, digest: Digest) -> bool {
        let is_tried = || self.tried.lock().expect("no holder of this lock panics").contains_key(&digest);
        self.engine.is_compiled(digest) || is_tried()
    }

    /// Compiles the components of the plugins with these names, and keeps what came of it for the next snapshot.
    pub(super) fn try_all(&self, names: &[String], config: &Config, known: &[Loaded]) {
        let time = Budget::new(config).compiling;
        let mut tried = HashMap::new();
        for name in names {
            let table = config.plugins.iter().find(|(known, _)| known.get_ref() == name);
            let table = table.map(|(_, table)| table.clone()).unwrap_or_default();
            // What is wrong with its file is said where it is loaded.
            let Ok(chosen) =
                self.choose(name, &table, config, known.iter().find(|known| *known.plugin.name == **name))
            else {
                continue;
            };
            tried.insert(chosen.digest, self.compile_unneeded(&chosen, config, &time));
        }
        *self.tried.lock().expect("no holder of this lock panics") = tried;
    }

    /// What came of them has been used.
    pub(super) fn forget_tried(&self) {
        self.tried.lock().expect("no holder of this lock panics").clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_starts_after_the_time_of_all_is_not_started() {
        let budget = Budget {
            starts: Cell::new(Duration::from_secs(3600)),
            of_starts: Duration::from_secs(3600),
            compiling: Cell::default(),
        };
        assert_eq!(budget.start("a", || Ok(1)).unwrap(), 1);
        assert!(budget.starts.get() < budget.of_starts, "it has taken some");
        budget.starts.set(Duration::ZERO);
        let late = budget.start("b", || -> Result<(), _> { panic!("it is not started") });
        assert!(matches!(late, Err(PluginError::NoTime(of)) if of == budget.of_starts));
    }
}

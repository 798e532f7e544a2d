//! What is known of a plugin that was loaded?

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    progress::{Loads, Refused, Stage},
    tested::Tested,
};
use crate::{
    config::{self, ByteSize, PublicKey},
    plugin::{Comparison, Digest, Hooks, Plugin},
    upstream::Origins,
};

/// A plugin, and where its code came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    pub origin: Origin,
    /// Where it may send requests.
    pub origins: Arc<Origins>,
    /// Why what lies in its file was not put in its place.
    pub refused: Option<Refused>,
    /// The tests that it has passed, if there were any.
    pub tested: Option<Tested>,
    /// Since when it is in force.
    pub since: SystemTime,
    /// The version that is tried beside it.
    pub candidate: Option<Candidate>,
    pub(super) settings: Settings,
}

/// A version that has passed all that can be asked of it alone, and serves a share of the requests to show the rest.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub plugin: Arc<Plugin>,
    pub rule: config::Canary,
    /// With the version in force. It outlasts reloads that leave the candidate what it is.
    pub comparison: Arc<Comparison>,
    pub(super) tested: Option<Tested>,
}

impl Candidate {
    pub fn digest(&self) -> Digest {
        self.plugin.code.digest()
    }

    /// Its part of the requests.
    pub fn weight(&self) -> f64 {
        self.rule.weight.get()
    }
}

/// Where the code of a plugin came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// It is part of the executable.
    Shipped,
    /// It has served before and was kept, and does so again in the place of what is there.
    Kept(Box<Origin>),
}

impl Origin {
    /// The file that it is from.
    pub(super) fn own_file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Shipped | Self::Kept(_) => None,
        }
    }

    /// The file that it is from, or would be.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Shipped => None,
            Self::Kept(other) => other.file(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Shipped => formatter.write_str("the executable"),
            Self::Kept(other) => write!(formatter, "what was kept, in the place of {other}"),
        }
    }
}

/// What is written about a plugin, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settings {
    pub table: config::Plugin,
    /// Whether it is in a file beside the plugin's.
    pub is_beside: bool,
    /// `plugin-keys`, which say of every plugin who must have signed it.
    pub keys: Vec<PublicKey>,
}

impl Loaded {
    /// Whether the same serves as before, and the same is tried beside it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let tried = |loaded: &Self| loaded.candidate.as_ref().map(|candidate| Arc::as_ptr(&candidate.plugin));
        Arc::ptr_eq(&self.plugin, &other.plugin) && tried(self) == tried(other)
    }

    /// Says what is new of it since `before`, now that it is in force, and what it may take.
    pub(super) fn announce(&self, before: Option<&Self>, loads: &Loads, warm: usize) {
        let plugin = &*self.plugin.name;
        if before.is_none_or(|before| !Arc::ptr_eq(&before.plugin, &self.plugin)) {
            loads.note(plugin, Stage::InForce);
            let (takes, limits) = (self.plugin.code.takes(), &self.plugin.limits);
            let instances = self.plugin.most_instances(warm);
            let memory = limits
                .memory_in_all
                .unwrap_or_else(|| ByteSize::bytes(limits.memory.as_usize().saturating_mul(instances)));
            tracing::info!(
                plugin,
                digest = %self.plugin.code.digest(),
                tests = self.tested.map_or(0, |tested| tested.cases),
                instances,
                reserved = self.plugin.reserved(),
                memories = takes.memories,
                tables = takes.tables,
                memory_bytes = memory.get(),
                "plugin loaded"
            );
        }
        // That another serves in the place of a version that was rolled back is so only now.
        let is_known = |refused: &Refused| {
            let known = before.and_then(|before| before.refused.as_ref());
            known.is_some_and(|known| known.at == refused.at)
        };
        if let Some(refused) = &self.refused
            && refused.replaced.is_some()
            && !is_known(refused)
        {
            loads.note(plugin, refused.stage);
            tracing::warn!(plugin, "{}", refused.reason);
        }
        let was_tried = |candidate: &Candidate| {
            let before = before.and_then(|before| before.candidate.as_ref());
            before.is_some_and(|before| Arc::ptr_eq(&before.comparison, &candidate.comparison))
        };
        if let Some(candidate) = self.candidate.as_ref().filter(|candidate| !was_tried(candidate)) {
            let (digest, weight, time) = (candidate.digest(), candidate.weight(), candidate.rule.time.get());
            tracing::info!(plugin, %digest, weight, ?time, "new version tried beside the one in force");
        }
    }

    /// Between two ticks, if it is to tick.
    pub fn tick(&self) -> Option<Duration> {
        self.settings.table.tick.as_ref().map(|tick| tick.get_ref().get())
    }

    /// What is written of it, wherever that stands.
    pub(super) fn table(&self) -> &config::Plugin {
        &self.settings.table
    }

    /// What it has to be called for, whichever version decides; only the one in force is told of requests that have ended.
    pub fn hooks(&self) -> Hooks {
        let (in_force, candidate) = (self.plugin.code.hooks(), self.candidate.as_ref());
        let candidate = candidate.map_or(in_force, |candidate| candidate.plugin.code.hooks());
        Hooks {
            request: in_force.request || candidate.request,
            response: in_force.response || candidate.response,
            ..in_force
        }
    }

    /// Where that stands.
    pub(super) fn place(&self) -> String {
        self.settings.place(&self.plugin.name)
    }

    /// Whether its settings are in a file beside the plugin's.
    pub(super) fn is_beside(&self) -> bool {
        self.settings.is_beside
    }

    /// Whether it is on routes that do not name it.
    pub fn is_on_all_routes(&self) -> bool {
        self.settings.table.routes.is_some()
    }
}

/// Where the settings of a plugin stand, or are to.
pub(super) fn place_of_settings(name: &str, is_beside: bool) -> String {
    match is_beside {
        true => format!("in {name}.toml, beside the plugin"),
        false => format!("under [plugins.{name}]"),
    }
}

impl Settings {
    pub fn place(&self, name: &str) -> String {
        place_of_settings(name, self.is_beside)
    }
}

//! How far did a version of a plugin come?

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::{plugin::Digest, telemetry::Page};

/// Something was not loaded.
#[derive(Debug, Clone)]
pub struct Refused {
    /// How far it came.
    pub stage: Stage,
    pub reason: String,
    pub at: SystemTime,
    /// Of a version that was taken back: it, and the one that serves in its place.
    pub replaced: Option<(Digest, Digest)>,
}

impl Refused {
    pub fn new(stage: Stage, reason: String) -> Self {
        Self { stage, reason, at: SystemTime::now(), replaced: None }
    }
}

/// What is looked at, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Can its table be understood, wherever that stands?
    Settings,
    /// Is it there, and no larger than it may be?
    File,
    /// Is it what was asked for?
    Trust,
    /// Was it taken back?
    TakenBack,
    /// Does it fit the contract, and compile in time?
    Component,
    Grants,
    /// Does it take its configuration?
    Configure,
    Tests,
    /// Does it do as well as the one in force, with a share of the requests?
    Canary,
    /// All of it was right.
    InForce,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::File => "file",
            Self::Trust => "trust",
            Self::TakenBack => "taken-back",
            Self::Component => "component",
            Self::Grants => "grants",
            Self::Configure => "configure",
            Self::Tests => "tests",
            Self::Canary => "canary",
            Self::InForce => "in-force",
        }
    }
}

/// How often plugins were loaded, by their names and how far they came.
#[derive(Debug, Default)]
pub struct Loads(Mutex<BTreeMap<(String, Stage), u64>>);

impl Loads {
    /// Names come from files, of which there may be any number in the course of time.
    const MOST: usize = 4096;

    pub(super) fn note(&self, name: &str, stage: Stage) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), stage);
        if counts.len() < Self::MOST || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }
}

/// Writes the family of loads.
pub fn write_loads(page: &mut Page, loads: &Loads) {
    let counts = loads.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let help = "Attempts to load another version of a plugin, by how far they came.";
    page.counter("tollgate_plugin_loads_total", help, |family| {
        for ((name, stage), count) in &counts {
            family.row(&[("plugin", name), ("outcome", stage.name())], *count);
        }
    });
}

//! What is a snapshot built with, besides the configuration?

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::progress::Loads;
use crate::{
    config::Config,
    plugin::{Code, Digest, Engine, LoadError, Versions},
};

/// What a snapshot is built with, besides the configuration.
#[derive(Debug)]
pub struct Builder {
    pub engine: Arc<Engine>,
    /// What relative paths in the configuration are relative to.
    pub folder: PathBuf,
    /// Where certificates that the proxy makes itself are kept between starts; nowhere if absent.
    pub kept: Option<PathBuf>,
    /// Instances of each plugin to have ready.
    pub warm: usize,
    /// Which versions of plugins have served.
    pub versions: Versions,
    /// What came of loading plugins.
    pub loads: Loads,
    /// What came of compiling those that nothing needs, until they are loaded.
    pub(super) tried: Mutex<HashMap<Digest, Compiled>>,
}

/// What came of compiling a component.
pub(super) type Compiled = Result<Arc<Code>, Arc<LoadError>>;

impl Builder {
    pub fn new(engine: Arc<Engine>, folder: PathBuf, kept: Option<PathBuf>, warm: usize) -> Self {
        let versions = Versions::open(kept.as_deref(), &folder);
        Self { engine, folder, kept, warm, versions, loads: Loads::default(), tried: Mutex::default() }
    }

    /// Where the files of plugins are.
    pub fn plugin_dir(&self, config: &Config) -> PathBuf {
        self.folder.join(&config.plugin_dir)
    }
}

//! What do commands run plugins with, without a proxy?

use crate::{
    plugin::{Compiler, Engine, EngineSettings},
    server::default_artifacts,
};

pub(super) fn engine() -> anyhow::Result<Engine> {
    let compiler = Compiler::own_executable();
    Engine::new(&EngineSettings { workers: 1, artifacts: default_artifacts(), compiler })
        .map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error}"))
}

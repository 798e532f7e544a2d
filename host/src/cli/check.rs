//! `tollgate check`

use std::sync::Arc;

use super::{arguments::RunArguments, output::say, run};
use crate::{
    config,
    plugin::{Engine, EngineSettings},
    snapshot::{Builder, Unneeded},
};

pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let path = arguments.config();
    let (config, source) = config::read(&path)?;
    let settings = run::settings(&path);
    // The same code as at start and at a reload, but for sockets.
    let kept = settings.artifacts(&config);
    let engine =
        Engine::new(&EngineSettings { workers: 1, artifacts: kept.clone(), compiler: settings.compiler })
            .map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error}"))?;
    let builder = Builder::new(Arc::new(engine), settings.folder, kept, 1);
    let snapshot =
        tokio::task::spawn_blocking(move || builder.build(config, &source, None, Unneeded::Now)).await??;
    say!(
        "{} is fine: listeners {}, upstreams {}, routes {}, plugins {}",
        path.display(),
        snapshot.config.listeners.len(),
        snapshot.upstreams.len(),
        snapshot.routes.len(),
        snapshot.plugins.len(),
    );
    for loaded in &snapshot.plugins {
        say!("  plugin {} from {}", loaded.plugin.name, loaded.origin);
    }
    Ok(())
}

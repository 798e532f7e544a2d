//! `tollgate run`

use std::{io, path::Path, pin::pin, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::arguments::RunArguments;
use crate::{
    admin, config,
    plugin::Compiler,
    server::{Server, Settings, default_artifacts},
    telemetry, watch,
};

pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let path = arguments.config();
    let (config, source) = config::read(&path)?;
    let settings = settings(&path);
    let loaded = watch::State::before_loading(&source, &config, &settings.folder);
    let server = Server::start(config, source, settings).await?;
    let signals = Signals::listen()?;
    let listeners = server.listeners();
    for address in &listeners {
        tracing::info!(%address, "listening");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %std::path::absolute(&path).unwrap_or_else(|_| path.clone()).display(),
        pid = std::process::id(),
        generation = server.snapshot().number,
        workers = server.workers(),
        listeners = listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        "started"
    );
    server.drain().accompany(admin::run(server.clone(), Some(path.clone())));
    server.drain().accompany(telemetry::announce_losses());
    server.drain().spawn(watch::run(server.clone(), path.clone(), loaded));
    signals.serve(&server, Some(&path)).await
}

/// What stands in a configuration is relative to the folder it is in.
pub(super) fn settings(config: &Path) -> Settings {
    let folder = config.parent().map(Path::to_owned).unwrap_or_default();
    Settings { folder, artifacts: default_artifacts(), compiler: Compiler::own_executable() }
}

/// What the process is told by its operator. From here on none of it ends the process by itself, so this is there before
/// anybody is told that it serves.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Runs until SIGINT or SIGTERM, then drains; a second one ends it at once. SIGHUP reloads.
    pub async fn serve(mut self, server: &Arc<Server>, config: Option<&Path>) -> anyhow::Result<()> {
        let Self { interrupt, terminate, hang_up } = &mut self;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                // Asked for over the admin API.
                () = server.drain().started() => break,
                _ = hang_up.recv() => match config {
                    // As a task of its own, since another signal may come meanwhile.
                    Some(config) => {
                        let (server, config) = (server.clone(), config.to_owned());
                        server.drain().clone().spawn(async move { watch::reload(&server, &config).await });
                    }
                    None => tracing::info!("there is no configuration to read again"),
                },
            }
        }
        tracing::info!(connections = server.connections(), "draining; another signal ends at once");
        /// How long what is given up may take to end.
        const LAST: Duration = Duration::from_millis(500);
        let mut stop = pin!(server.stop());
        let is_over = tokio::select! {
            () = &mut stop => true,
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
        };
        if !is_over {
            server.drain().abort();
            let _ = tokio::time::timeout(LAST, stop).await;
        }
        tracing::info!(requests_cut = server.drain().cut(), "ended");
        Ok(())
    }
}

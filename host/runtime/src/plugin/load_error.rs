//! Why is a file not a plugin?

use std::time::Duration;

use super::compile::CompileError;

/// Why a file is not a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("not a WebAssembly component: {0}")]
    Invalid(String),
    #[error(
        "a core WebAssembly module, not a component: build it for wasm32-wasip2, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "built against version {theirs} of the contract, and this Tollgate speaks {ours}: \
         rebuild it against the wit/ folder of this version"
    )]
    Contract { theirs: String, ours: &'static str },
    #[error("exports no `tollgate:policy/lifecycle`, so it is not a plugin for Tollgate")]
    NoLifecycle,
    #[error("imports `{0}`, which Tollgate does not offer")]
    UnknownImport(String),
    #[error("does not fit the contract")]
    Misfit(#[source] wasmtime::Error),
    #[error(transparent)]
    Compile(CompileError),
    #[error("it was not compiled, since it took too much the last time; it is tried again in {} s", .0.as_secs())]
    Costly(Duration),
    #[error(
        "it was not compiled: files that the configuration does not name have taken {} s of this reload, which is all they have \
         (`limits.plugin-compile`)", .0.as_secs_f64()
    )]
    NoTime(Duration),
    #[error("cannot be compiled: there is no thread for it: {0}")]
    NoThread(std::io::Error),
}

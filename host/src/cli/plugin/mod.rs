//! `tollgate plugin`

mod bench;
mod inspect;
mod new;
mod print;
mod record;
mod rollback;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{
    plugin::{Compiler, Engine, EngineSettings},
    server::default_artifacts,
};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Begin a plugin: a project that builds, with tests that pass
    New(new::NewArguments),
    /// Run the tests of plugins in the real sandbox, without a proxy
    Test(test::TestArguments),
    /// Show what is in a component: hooks, imports, grants, memory, what made it
    Inspect(inspect::InspectArguments),
    /// Measure the calls of a plugin over the cases of its tests
    Bench(bench::BenchArguments),
    /// Write test cases from what a plugin of a running proxy sees and decides, without what is secret
    Record(record::RecordArguments),
    /// Have the version before serve again in a running proxy, and the one in force no more
    Rollback(rollback::RollbackArguments),
}

pub(super) async fn run(command: PluginCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::New(arguments) => new::run(arguments).await,
        PluginCommand::Test(arguments) => test::run(arguments).await,
        PluginCommand::Inspect(arguments) => inspect::run(arguments).await,
        PluginCommand::Bench(arguments) => bench::run(arguments).await,
        PluginCommand::Record(arguments) => record::run(arguments).await,
        PluginCommand::Rollback(arguments) => rollback::run(arguments).await,
    }
}

/// A name as a segment of a path: what is not unreserved (RFC 3986, section 2.3) is percent-encoded.
fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(encode).collect()
}

fn engine() -> anyhow::Result<Engine> {
    let compiler = Compiler::own_executable();
    Engine::new(&EngineSettings { workers: 1, artifacts: default_artifacts(), compiler })
        .map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error}"))
}

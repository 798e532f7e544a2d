//! `tollgate plugin`

mod bench;
mod engine;
mod inspect;
mod new;
mod print;
mod record;
mod rollback;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

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

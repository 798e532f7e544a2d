//! `tollgate plugin`

mod test;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Run the tests of plugins in the real sandbox, without a proxy
    Test(test::TestArguments),
}

pub(super) async fn run(command: PluginCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::Test(arguments) => test::run(arguments).await,
    }
}

//! `tollgate completions`

use clap::Args;
use clap_complete::{Shell, generate};

use super::output::say;

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell that is to complete
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments, mut command: clap::Command) {
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, "tollgate", &mut script);
    say!("{}", String::from_utf8_lossy(&script).trim_end());
}

//! What did the person at the terminal ask for?
//!
//! The only place that prints, ends the process, and uses `anyhow`.

mod admin;
mod arguments;
mod backend;
mod check;
mod completions;
mod demo;
mod explain;
mod output;
mod plugin;
mod run;
mod schema;
mod top;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::{
    config::Problems,
    plugin as plugin_engine, server,
    telemetry::{self, LogFormat, LogLevelError},
};
use arguments::{RunArguments, Usage};

/// A reverse proxy whose policies are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration to run or to check
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (this is the default)
    Run(RunArguments),
    /// Show Tollgate at work: sample backends, the default plugins, and what to try; needs no file
    Demo(demo::DemoArguments),
    /// Check a configuration and its plugins, and show every problem with its place
    Check(RunArguments),
    /// Run one sample backend, which answers with what it received
    Backend(backend::BackendArguments),
    /// Show live what a running proxy does, from its admin API; q ends
    Top(top::TopArguments),
    /// Print the JSON Schema of the configuration, by which editors complete and check it
    Schema,
    /// Print what has a shell complete the commands and options of tollgate
    Completions(completions::CompletionsArguments),
    /// Ask a running proxy what would become of a request, and why, without sending it
    Explain(explain::ExplainArguments),
    /// Write, test and look into plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

impl Command {
    /// Takes `--config` that stood before the command. An error if the command has none, or another one.
    fn take_config(&mut self, before: PathBuf) -> Result<(), String> {
        match self {
            Self::Run(arguments) | Self::Check(arguments) => {
                match arguments.config.as_ref().or(arguments.file.as_ref()) {
                    Some(after) if *after != before => Err(format!(
                        "`--config` names two files, {} and {}: name one",
                        before.display(),
                        after.display()
                    )),
                    Some(_) | None => {
                        arguments.config = Some(before);
                        Ok(())
                    }
                }
            }
            Self::Demo(_)
            | Self::Backend(_)
            | Self::Top(_)
            | Self::Schema
            | Self::Completions(_)
            | Self::Explain(_)
            | Self::Plugin(_) => Err("this command reads no configuration: leave `--config` out".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
struct LogArguments {
    /// How lines of the log look
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    log_format: Format,
    /// What is logged: error, warn, info, debug or trace, also by target (`warn,plugin=debug`)
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// Does what was asked. 0 done, 1 failed at work, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    if let Some(code) = plugin_engine::compile_for_parent() {
        return code;
    }
    let mut arguments = Arguments::parse();
    let mut command =
        arguments.command.take().unwrap_or(Command::Run(RunArguments { config: None, file: None }));
    if let Some(config) = arguments.config.take()
        && let Err(message) = command.take_config(config)
    {
        Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit();
    }
    match act(command, &arguments.log) {
        Ok(code) => code,
        Err(error) => {
            show(&error);
            ExitCode::from(if is_the_users(&error) { 2 } else { 1 })
        }
    }
}

fn act(command: Command, log: &LogArguments) -> anyhow::Result<ExitCode> {
    let format = match log.log_format {
        Format::Human => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    let _guard = telemetry::init(format, &log.log_level)?;
    // Control only: requests are served by the workers' own runtimes.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tollgate-control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Run(arguments) => run::run(arguments).await?,
            Command::Demo(arguments) => demo::run(arguments).await?,
            Command::Check(arguments) => check::run(arguments).await?,
            Command::Backend(arguments) => backend::run(arguments).await?,
            Command::Top(arguments) => top::run(arguments).await?,
            Command::Schema => schema::run(),
            Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
            Command::Explain(arguments) => explain::run(arguments).await?,
            Command::Plugin(command) => return plugin::run(command).await,
        }
        Ok(ExitCode::SUCCESS)
    });
    // A plugin that is being compiled is not waited for.
    runtime.shutdown_background();
    result
}

fn show(error: &anyhow::Error) {
    use std::io::IsTerminal;
    let problems = error.downcast_ref::<Problems>().or_else(|| match error.downcast_ref::<server::Error>() {
        Some(server::Error::Config(problems)) => Some(problems),
        _ => None,
    });
    match problems {
        Some(problems) => eprintln!("{}", problems.render(std::io::stderr().is_terminal())),
        None => eprintln!("error: {}", telemetry::with_sources(&**error)),
    }
}

/// Whether the user has to change something before it is worth another try.
fn is_the_users(error: &anyhow::Error) -> bool {
    error.is::<Problems>()
        || error.is::<LogLevelError>()
        || error.is::<Usage>()
        || matches!(error.downcast_ref(), Some(server::Error::Config(_)))
}

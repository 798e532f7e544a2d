//! `tollgate plugin bench`

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use super::print::{self, Colors};
use crate::{
    cli::output::say,
    config::ByteSize,
    plugin::{Compiler, Engine, EngineSettings, Hook},
    plugin_tests::{Picks, PluginUnderTest, Props, Step, TestFile, TestRun, settings, subject},
    telemetry::with_sources,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArguments {
    /// A component, a <name>.test.toml, or a folder with either or with the source of a plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The tests whose cases are measured, if they are not those beside it
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// How long each case is called again and again
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    time: jiff::SignedDuration,
}

/// Instances that are started for the time of a start.
const STARTS: u32 = 50;

pub(super) async fn run(arguments: BenchArguments) -> anyhow::Result<ExitCode> {
    let subjects = match subject::find(&arguments.file) {
        Ok(subjects) => subjects,
        Err(error) => {
            eprintln!("error: {}", with_sources(&error));
            return Ok(ExitCode::from(2));
        }
    };
    let [subject] = subjects.as_slice() else {
        anyhow::bail!("{} holds several plugins: name one", arguments.file.display());
    };
    let given = arguments.test.as_deref().map(TestFile::read).transpose()?;
    let file = given.as_ref().or(subject.tests.as_ref()).map(|(file, _)| file);
    let file =
        file.with_context(|| format!("there is no {}.test.toml to take requests from", subject.name))?;
    let bytes = subject.component.make()?;
    let time = Duration::try_from(arguments.time).context("--time is a length of time")?;
    if cfg!(debug_assertions) {
        eprintln!("warning: this tollgate is a debug build, its host functions are slow");
    }

    // Without a place for compiled code, so that the compiler is measured.
    let engine =
        Engine::new(&EngineSettings { workers: 1, artifacts: None, compiler: Compiler::own_executable() })
            .map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error}"))?;
    let started = Instant::now();
    let code = engine.load(&bytes)?;
    say!("{}", Colors::of_terminal().bold(&subject.name));
    say!("  compile: {}, {}", print::duration(started.elapsed()), ByteSize::bytes(bytes.len()));
    measure(&PluginUnderTest { name: subject.name.clone(), code }, file, time)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(plugin: &PluginUnderTest, file: &TestFile, time: Duration) -> anyhow::Result<()> {
    let mut starts = Vec::new();
    for (number, case) in file.cases.iter().enumerate() {
        let case = case.get_ref();
        let steps = case.steps();
        let expects_failure = |step: &Step| {
            step.expect.as_ref().is_some_and(|expect| expect.error.is_some() || expect.refused.is_some())
        };
        if steps.iter().any(expects_failure) {
            continue;
        }
        let mut settings = settings(file, case);
        settings.limits.recycle_after = u32::MAX;
        let start = || {
            let props = Props::of(file, Some(case));
            TestRun::set(&plugin.code, &plugin.name, &settings, &props, case.time.unwrap_or(file.time))
                .map_err(|not_set| not_set.error)
        };
        if number == 0 {
            for _ in 0..STARTS {
                let started = Instant::now();
                start()?;
                starts.push(started.elapsed());
            }
            say!("  instantiate and configure: {}", Spread::of(&mut starts));
        }
        say!("  {}", print::printable(&case.name));
        let mut stage = start()?;
        let mut endpoints = Vec::new();
        for step in &steps {
            endpoints = step.endpoints.clone().unwrap_or(endpoints);
            stage.give_endpoints(endpoints.clone());
            let request = step.request.clone().unwrap_or_default();
            let response = step.response.clone().unwrap_or_default();
            let tried = step.pick.as_ref().map(|Picks { tried, .. }| tried.clone()).unwrap_or_default();
            for (asks, hook) in [
                (step.tick, Hook::OnTick),
                (step.request.is_some(), Hook::OnRequest),
                (step.pick.is_some(), Hook::Pick),
                (step.response.is_some(), Hook::OnResponse),
            ] {
                if !asks || !plugin.code.exports(hook) {
                    continue;
                }
                let mut calls = Vec::new();
                let until = Instant::now() + time;
                while Instant::now() < until {
                    calls.push(stage.call(hook, &request, &response, &tried)?);
                }
                say!("    {}: {}", hook.name(), Spread::of(&mut calls));
            }
            if let Some(ended) = step.complete.as_ref().filter(|_| plugin.code.exports(Hook::OnComplete)) {
                let mut calls = Vec::new();
                let until = Instant::now() + time;
                while Instant::now() < until {
                    calls.push(stage.tell(ended)?);
                }
                say!("    {}: {}", Hook::OnComplete.name(), Spread::of(&mut calls));
            }
        }
        if let Some(memory) = stage.memory() {
            say!("    memory: {}", ByteSize::bytes(memory));
        }
    }
    anyhow::ensure!(!starts.is_empty(), "no case can be measured: all expect a failure");
    Ok(())
}

/// How times are spread.
struct Spread {
    least: Duration,
    median: Duration,
    p99: Duration,
    most: Duration,
    calls: usize,
    total: Duration,
}

impl Spread {
    fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            times.get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1))).copied()
        };
        Self {
            least: at(0.0).unwrap_or_default(),
            median: at(0.5).unwrap_or_default(),
            p99: at(0.99).unwrap_or_default(),
            most: at(1.0).unwrap_or_default(),
            calls: times.len(),
            total: times.iter().sum(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, median, p99, most, calls, total } = self;
        let [least, median, p99, most] = [least, median, p99, most].map(|time| print::duration(*time));
        let rate = *calls as f64 / total.as_secs_f64().max(f64::MIN_POSITIVE);
        write!(formatter, "min {least}, p50 {median}, p99 {p99}, max {most}, {rate:.0}/s over {calls}")
    }
}

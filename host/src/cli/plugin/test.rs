//! `tollgate plugin test`

use std::{
    collections::BTreeMap,
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use notify::{RecursiveMode, Watcher};

use super::{
    engine::engine,
    inspect,
    print::{self, Colors},
};
use crate::{
    cli::output::say,
    plugin::Engine,
    plugin_tests::{
        PluginUnderTest, bless,
        junit::{self, Suite},
        subject::{self, Component, Subject, SubjectError},
    },
    telemetry::with_sources,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArguments {
    /// A component, a <name>.test.toml, or a folder with either or with the source of a plugin
    #[arg(default_value = ".", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run again whenever a component, its tests or its source change
    #[arg(long)]
    watch: bool,
    /// Write the results as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write what happens into the tests as what is expected, where they differ
    #[arg(long)]
    bless: bool,
    /// Show every check of the conformance battery, by its id, and leave out the plugin's own tests
    #[arg(long, conflicts_with = "bless")]
    conformance: bool,
}

/// How it went, from good to bad. Its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Result {
    Passed = 0,
    /// A plugin is at fault.
    Failed = 1,
    /// Something else is: no such file, no compiler, no memory.
    Environment = 2,
}

pub(super) async fn run(arguments: TestArguments) -> anyhow::Result<ExitCode> {
    let engine = engine()?;
    if arguments.watch {
        return watch(&engine, &arguments);
    }
    Ok(ExitCode::from(all(&engine, &arguments)? as u8))
}

fn all(engine: &Engine, arguments: &TestArguments) -> anyhow::Result<Result> {
    let mut worst = Result::Passed;
    let mut suites = Vec::new();
    for path in &arguments.paths {
        match subject::find(path) {
            Ok(subjects) => {
                for subject in subjects {
                    let (result, suite) = one(engine, &subject, arguments)?;
                    worst = worst.max(result);
                    suites.push(suite);
                }
            }
            Err(error) => {
                tell_environment(&error);
                worst = Result::Environment;
                let name = path.display().to_string();
                suites.push(not_tried(name, with_sources(&error), false));
            }
        }
    }
    if let Some(path) = &arguments.junit {
        fs::write(path, junit::document(&suites))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(worst)
}

fn not_tried(name: String, why: String, is_plugins: bool) -> Suite {
    Suite { name, report: None, conformance: None, not_tried: Some((why, is_plugins)) }
}

fn one(engine: &Engine, subject: &Subject, arguments: &TestArguments) -> anyhow::Result<(Result, Suite)> {
    let colors = Colors::of_terminal();
    if let Some(command) = subject.component.command() {
        eprintln!("{}", colors.faint(&format!("building: {command}")));
    }
    let bytes = match subject.component.make() {
        Ok(bytes) => bytes,
        Err(error) => {
            tell_environment(&error);
            let suite = not_tried(subject.name.clone(), with_sources(&error), false);
            return Ok((Result::Environment, suite));
        }
    };
    say!("{}", colors.bold(&subject.name));
    let code = match engine.load(&bytes) {
        Ok(code) => code,
        Err(error) => {
            let error = with_sources(&error);
            say!("  {} C001 it can be loaded", colors.red("FAIL"));
            say!("         {}", print::printable(&error));
            return Ok((Result::Failed, not_tried(subject.name.clone(), error, true)));
        }
    };
    if arguments.conformance {
        say!("  {} C001 it can be loaded", colors.green("ok  "));
    }
    let plugin = PluginUnderTest { name: subject.name.clone(), code };
    let file = subject.tests.as_ref().map(|(file, _)| file);
    let report = file.filter(|_| !arguments.conformance).map(|file| plugin.run(file));
    let mut result = Result::Passed;
    if let Some(report) = &report {
        report.cases.iter().for_each(|case| print::case(case, &colors));
        let failed = report.cases.iter().filter(|case| !case.has_passed()).count();
        let text = format!("{} passed, {failed} failed", report.cases.len() - failed);
        say!("  {}", if failed == 0 { colors.green(&text) } else { colors.red(&text) });
        if failed > 0 {
            result = Result::Failed;
        }
    } else if file.is_none() {
        let hint = format!("no cases: there is no {}.test.toml", subject.name);
        say!("  {}", colors.yellow(&hint));
    }
    if let (true, Some(report), Some((file, source))) = (arguments.bless, &report, &subject.tests) {
        let blessed = bless(&source.text, file, report).context("the tests cannot be written")?;
        if blessed.text != source.text {
            fs::write(&source.path, &blessed.text)
                .with_context(|| format!("cannot write {}", source.path.display()))?;
        }
        say!("  blessed: {} changed in {}", blessed.changed, source.path.display());
        for name in &blessed.left {
            say!("  {} not blessed, since the plugin fails: {name}", colors.yellow("note"));
        }
        result = if blessed.left.is_empty() { Result::Passed } else { Result::Failed };
    }
    let conformance = plugin.conformance(file);
    print::conformance(&conformance, arguments.conformance, &colors);
    if let Some(soak) = &conformance.soak {
        print::soak(soak);
    }
    inspect::tell_imports(&bytes);
    if !conformance.has_passed() {
        let is_environments = conformance.is_environments();
        result = result.max(if is_environments { Result::Environment } else { Result::Failed });
    }
    let suite = Suite { name: subject.name.clone(), report, conformance: Some(conformance), not_tried: None };
    Ok((result, suite))
}

fn tell_environment(error: &SubjectError) {
    match error {
        SubjectError::Tests(problems) => eprintln!("{}", problems.render(std::io::stderr().is_terminal())),
        error => eprintln!("error: {}", with_sources(error)),
    }
}

/// How long files must be still before they are read.
const STILL: Duration = Duration::from_millis(100);

/// Runs again and again, until it is interrupted.
fn watch(engine: &Engine, arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    let (events, changed) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
        let _ = events.send(());
    })?;
    let mut watched = Vec::new();
    loop {
        let before = Sources::of(&arguments.paths);
        if let Err(error) = all(engine, arguments) {
            eprintln!("error: {error:#}");
        }
        say!("{}", Colors::of_terminal().faint("waiting for a change"));
        for folder in &before.folders {
            if !watched.contains(folder) && watcher.watch(folder, RecursiveMode::NonRecursive).is_ok() {
                watched.push(folder.clone());
            }
        }
        // What --bless has written is no change to run for.
        let before = if arguments.bless { Sources::of(&arguments.paths) } else { before };
        loop {
            let mut now = Sources::of(&arguments.paths);
            if now != before {
                // A compiler or an editor may still be at it.
                loop {
                    std::thread::sleep(STILL);
                    let later = Sources::of(&arguments.paths);
                    if later == now {
                        break;
                    }
                    now = later;
                }
                break;
            }
            changed.recv().context("files cannot be watched any more")?;
            while changed.try_recv().is_ok() {}
        }
    }
}

/// What there is to be tested, at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    folders: Vec<PathBuf>,
    files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
}

/// Folders that hold what tools have made.
const MADE: [&str; 6] = ["target", "node_modules", "zig-out", "build", "dist", "__pycache__"];

impl Sources {
    fn of(paths: &[PathBuf]) -> Self {
        let mut sources = Self { folders: Vec::new(), files: BTreeMap::new() };
        for path in paths {
            let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            // What a build makes is no source of it.
            let made =
                subject::find(path).into_iter().flatten().filter_map(|subject| match subject.component {
                    Component::Command { file, .. } => Some(file),
                    Component::File(_) | Component::Package(_) | Component::Shipped(_) => None,
                });
            sources.look_into(folder, &made.collect::<Vec<_>>());
        }
        sources
    }

    fn look_into(&mut self, folder: &Path, made: &[PathBuf]) {
        self.folders.push(folder.to_owned());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(metadata) = entry.metadata() else { continue };
            if name.starts_with('.') || made.contains(&path) {
                continue;
            }
            if metadata.is_dir() {
                if !MADE.contains(&name.as_str()) {
                    self.look_into(&path, made);
                }
            } else {
                self.files.insert(path, (metadata.len(), metadata.modified().ok()));
            }
        }
    }
}

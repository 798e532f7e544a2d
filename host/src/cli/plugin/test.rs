//! `tollgate plugin test`

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;

use crate::{
    plugin::{Engine, EngineSettings},
    server::default_artifacts,
    telemetry::with_sources,
    trial::{
        CaseReport, Difference, Report, Trial,
        subject::{self, Subject, SubjectError},
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArguments {
    /// A component, a <name>.test.toml, or a folder with either or with the source of a plugin
    #[arg(default_value = ".", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// How one component did.
enum Result {
    Passed,
    /// The plugin is at fault.
    Failed,
    /// Something else is: no such file, no compiler, no memory.
    Environment,
}

pub(super) async fn run(arguments: TestArguments) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(&EngineSettings { workers: 1, artifacts: default_artifacts() })
        .map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error}"))?;
    let mut worst = 0;
    for path in &arguments.paths {
        match subject::find(path) {
            Ok(subjects) => {
                for subject in subjects {
                    worst = worst.max(match test(&engine, &subject) {
                        Result::Passed => 0,
                        Result::Failed => 1,
                        Result::Environment => 2,
                    });
                }
            }
            Err(error) => {
                tell_environment(&error);
                worst = 2;
            }
        }
    }
    Ok(ExitCode::from(worst))
}

fn test(engine: &Engine, subject: &Subject) -> Result {
    let colors = Colors::of_terminal();
    if let Some(command) = subject.component.command() {
        eprintln!("{}", colors.faint(&format!("building: {command}")));
    }
    let bytes = match subject.component.make() {
        Ok(bytes) => bytes,
        Err(error) => {
            tell_environment(&error);
            return Result::Environment;
        }
    };
    println!("{}", colors.bold(&subject.name));
    let code = match engine.load(&bytes) {
        Ok(code) => code,
        Err(error) => {
            println!("  {} it is {}", colors.red("FAIL"), with_sources(&error));
            return Result::Failed;
        }
    };
    let trial = Trial { name: subject.name.clone(), code: Arc::clone(&code) };
    let Some((file, _)) = &subject.tests else { return Result::Passed };
    let report = trial.run(file);
    for case in &report.cases {
        tell_case(case, &colors);
    }
    tell_summary(&report, &colors);
    if report.has_passed() { Result::Passed } else { Result::Failed }
}

fn tell_case(case: &CaseReport, colors: &Colors) {
    let time = colors.faint(&format!("{:.1} ms", case.time.as_secs_f64() * 1e3));
    if case.has_passed() {
        println!("  {} {} {time}", colors.green("ok  "), case.name);
        return;
    }
    println!("  {} {} {time}", colors.red("FAIL"), case.name);
    for (number, step) in case.steps.iter().enumerate() {
        for difference in &step.differences {
            let place = match case.steps.len() {
                1 => String::new(),
                _ => format!("step {}: ", number + 1),
            };
            tell_difference(&place, difference, colors);
        }
    }
}

fn tell_difference(place: &str, difference: &Difference, colors: &Colors) {
    println!("       {place}{}", difference.place());
    for line in difference.expected.lines() {
        println!("         {}", colors.green(&format!("- {line}")));
    }
    for line in difference.actual.lines() {
        println!("         {}", colors.red(&format!("+ {line}")));
    }
}

fn tell_summary(report: &Report, colors: &Colors) {
    let failed = report.cases.iter().filter(|case| !case.has_passed()).count();
    let passed = report.cases.len() - failed;
    let text = format!("{passed} passed, {failed} failed");
    println!("  {}", if failed == 0 { colors.green(&text) } else { colors.red(&text) });
}

fn tell_environment(error: &SubjectError) {
    match error {
        SubjectError::Tests(problems) => eprintln!("{}", problems.render(std::io::stderr().is_terminal())),
        error => eprintln!("error: {}", with_sources(error)),
    }
}

/// Colours, where there is a terminal to show them.
struct Colors(bool);

impl Colors {
    /// As <https://no-color.org> asks for.
    fn of_terminal() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }
}

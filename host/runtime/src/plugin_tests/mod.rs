//! Does a plugin do what its tests say?
//!
//! [`TestFile`] is what the tests say, [`PluginUnderTest::run`] lets the component go through it, and a [`Report`] is what came
//! of it. Nothing here prints, and nothing opens a socket.

mod bless;
mod check;
pub mod conformance;
mod difference;
mod expect;
mod file;
pub mod junit;
pub mod recorded;
mod run;
pub mod subject;
mod values;
mod words;
mod world;

pub use bless::{Blessed, bless};
pub use check::Check;
pub use difference::Difference;
pub use expect::compare;
pub use file::{
    Answered, Case, Ended, Endpoint, Expect, Fault, Grants, Instance, Level, Picks, Request, Response,
    Scheme, SendFault, Step, StepInstance, TestFile, Verdict,
};
pub use run::{NotSet, StepOutcome, TestRun, fault};
pub use values::{Expected, Moment};
pub use words::header_value;
pub use world::Props;

use std::{
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config,
    plugin::{Code, Logged, StartError},
    telemetry::with_sources,
};

/// A component that is tried.
#[derive(Debug, Clone)]
pub struct PluginUnderTest {
    /// What the plugin is called, in its own log, too.
    pub name: String,
    pub code: Arc<Code>,
}

/// What came of a file of tests.
#[derive(Debug)]
pub struct Report {
    pub cases: Vec<CaseReport>,
}

/// What came of a case.
#[derive(Debug)]
pub struct CaseReport {
    pub name: String,
    pub steps: Vec<StepReport>,
    /// How long it took, with the start of its instances.
    pub time: Duration,
}

/// What came of a step.
#[derive(Debug)]
pub struct StepReport {
    /// None if there was no instance for it.
    pub outcome: Option<StepOutcome>,
    /// What the plugin said to its configuration, if it refused that.
    pub refusal: Option<String>,
    /// Nothing if it went as expected.
    pub differences: Vec<Difference>,
    /// What the plugin has logged and printed meanwhile, such as why it panicked.
    pub logs: Vec<Logged>,
}

impl Report {
    pub fn has_passed(&self) -> bool {
        self.cases.iter().all(CaseReport::has_passed)
    }
}

impl CaseReport {
    pub fn has_passed(&self) -> bool {
        self.steps.iter().all(|step| step.differences.is_empty())
    }
}

impl PluginUnderTest {
    /// Lets the component go through all cases of a file, in order.
    pub fn run(&self, file: &TestFile) -> Report {
        self.run_by_chance(file, 0)
    }

    /// The same, but no case begins after this. The report lacks those that have not.
    pub fn run_until(&self, file: &TestFile, until: Instant) -> Report {
        let mut stage = None;
        let in_time = file.cases.iter().take_while(|_| Instant::now() < until);
        Report { cases: in_time.map(|case| self.case(file, case.get_ref(), 0, &mut stage)).collect() }
    }

    /// The same with other random numbers: the same for the same seed.
    pub fn run_by_chance(&self, file: &TestFile, seed: u64) -> Report {
        let mut stage = None;
        let mut run = |case: &Case| self.case(file, case, seed, &mut stage);
        Report { cases: file.cases.iter().map(|case| run(case.get_ref())).collect() }
    }

    /// `stage` is that of the case before, and afterwards that of this one.
    fn case(&self, file: &TestFile, case: &Case, seed: u64, stage: &mut Option<TestRun>) -> CaseReport {
        let started = Instant::now();
        let steps = case.steps();
        if case.instance.unwrap_or(file.instance) == Instance::Fresh {
            *stage = None;
        }
        let start = match stage {
            Some(stage) => {
                if let Some(time) = case.time {
                    stage.set_time(time);
                }
                Ok(())
            }
            None => {
                let (settings, props) =
                    (settings(file, case), Props { seed: Some(seed), ..Props::of(file, Some(case)) });
                let started =
                    TestRun::set(&self.code, &self.name, &settings, &props, case.time.unwrap_or(file.time));
                started.map(|started| *stage = Some(started))
            }
        };
        let mut reports: Vec<StepReport> = match (&start, stage) {
            (Ok(()), Some(stage)) => steps.iter().map(|step| act(stage, step)).collect(),
            (Err(NotSet { error, logs }), _) => vec![not_started(error, logs.clone(), steps.first())],
            (Ok(()), None) => Vec::new(),
        };
        if steps.iter().all(|step| step.expect.is_none())
            && let Some(report) = reports.last_mut()
            && report.differences.is_empty()
        {
            report.differences.push(Difference {
                at: vec!["expect".into()],
                expected: "an expectation".into(),
                actual: "the case expects nothing (--bless writes down what happens)".into(),
            });
        }
        CaseReport { name: case.name.clone(), steps: reports, time: started.elapsed() }
    }
}

/// The settings of the plugin in a case.
pub fn settings(file: &TestFile, case: &Case) -> config::Plugin {
    config::Plugin {
        config: case.config.as_ref().unwrap_or(&file.config).clone(),
        limits: case.limits.as_ref().unwrap_or(&file.limits).clone(),
        // However often it fails, it is asked.
        breaker: config::PluginBreaker { failures: NonZero::<u32>::MAX, ..config::PluginBreaker::default() },
        ..config::Plugin::default()
    }
}

fn act(stage: &mut TestRun, step: &Step) -> StepReport {
    let outcome = stage.act(step);
    let mut differences = compare(step, &outcome);
    if let Some(words) = step.expect.as_ref().and_then(|expect| expect.refused.as_ref()) {
        differences.push(refusal(format!("refused with {words:?}"), "accepted"));
    }
    let logs = outcome.logs.clone();
    StepReport { outcome: Some(outcome), refusal: None, differences, logs }
}

/// What is to be said of a case whose plugin could not be started.
fn not_started(error: &StartError, logs: Vec<Logged>, step: Option<&Step>) -> StepReport {
    let expect = step.and_then(|step| step.expect.as_ref());
    let refused = expect.and_then(|expect| expect.refused.as_deref());
    let expected_error = expect.and_then(|expect| expect.error);
    let (refusal_text, difference) = match error {
        StartError::Refused(message) => {
            let difference = match refused {
                Some(words) if message.contains(words) => None,
                Some(words) => Some(refusal(format!("refused with {words:?}"), message)),
                None => Some(refusal("accepted", format!("refused: {message}"))),
            };
            (Some(message.clone()), difference)
        }
        StartError::Configure(_)
        | StartError::Begin(_)
        | StartError::Instantiate(_)
        | StartError::NoRoom(_)
        | StartError::NoTime => {
            let kind = match error {
                StartError::Configure(error) | StartError::Begin(error) => fault(error),
                StartError::Instantiate(_)
                | StartError::NoRoom(_)
                | StartError::NoTime
                | StartError::Refused(_) => Fault::Start,
            };
            let difference = (expected_error != Some(kind)).then(|| Difference {
                at: vec!["error".into()],
                expected: expected_error.map_or("no failure".into(), |fault| fault.to_string()),
                actual: format!("{kind}: the plugin {}", with_sources(error)),
            });
            (None, difference)
        }
    };
    StepReport { outcome: None, refusal: refusal_text, differences: difference.into_iter().collect(), logs }
}

fn refusal(expected: impl Into<String>, actual: impl Into<String>) -> Difference {
    Difference { at: vec!["refused".into()], expected: expected.into(), actual: actual.into() }
}

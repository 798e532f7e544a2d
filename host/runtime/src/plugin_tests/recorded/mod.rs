//! How do calls of a plugin that serves become cases of its tests, without what is nobody's business?
//!
//! `case` writes a call down, `redaction` says what may stand there. What was written is tried on the plugin, so that no
//! case fails on what it was recorded from.

mod case;
mod redaction;

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use self::{case::Strictness, redaction::Redaction};
use super::{PluginUnderTest, TestFile};
use crate::plugin::{Call, Plugin};

/// What was written of calls.
#[derive(Debug)]
pub struct Written {
    /// In the form of `<name>.test.toml`.
    pub text: String,
    /// Cases that pass.
    pub cases: usize,
    /// Cases that stand there as comments, since they do not.
    pub left: usize,
}

/// Writes calls of a plugin down as cases. Headers, cookies, parameters of queries and notes that are `wanted` by name
/// keep their values, unless one is among the plugin's secrets.
///
/// Each case is tried on the plugin. What does not pass becomes a comment: what it has decided by was replaced, or is
/// nothing that a case holds.
pub fn cases(calls: &[Call], wanted: &BTreeSet<String>, plugin: &Plugin) -> Written {
    let rehearsal = Rehearsal::of(plugin);
    let mut written = Written { text: String::new(), cases: 0, left: 0 };
    for (number, call) in calls.iter().enumerate() {
        let secrets = &plugin.capabilities().secrets;
        // Anew for each: who compares cases learns nothing of whose they are.
        let mut redaction = Redaction::new(wanted, secrets);
        let mut case = |strictness| case::text_of(number + 1, call, strictness, &mut redaction);
        // What is replaced last may have stood somewhere first.
        case(Strictness::Exact);
        match rehearsal.proven(call, case) {
            Ok(text) => {
                written.cases += 1;
                written.text.push_str(&text);
            }
            Err((text, reason)) => {
                written.left += 1;
                written.text.push_str(&format!("# Not a test as it stands: {reason}.\n"));
                for line in text.lines() {
                    written.text.push_str(&format!("# {line}\n"));
                }
            }
        }
        written.text.push('\n');
    }
    written
}

/// A plugin that goes through its cases once more.
struct Rehearsal {
    plugin: PluginUnderTest,
    config: toml::Table,
    /// No case is tried after this.
    until: Instant,
}

impl Rehearsal {
    /// For all cases together.
    const TIME: Duration = Duration::from_secs(20);

    fn of(plugin: &Plugin) -> Self {
        // What was made of a table becomes one again.
        let config = serde_json::from_str(&plugin.config).unwrap_or_default();
        let plugin = PluginUnderTest { name: plugin.name.to_string(), code: plugin.code.clone() };
        Self { plugin, config, until: Instant::now() + Self::TIME }
    }

    /// The strictest form of a case that passes, whatever chance has in store; or why there is none.
    fn proven(
        &self,
        call: &Call,
        mut case: impl FnMut(Strictness) -> String,
    ) -> Result<String, (String, String)> {
        let exact = case(Strictness::Exact);
        let Err(reason) = self.passes(&exact, call) else { return Ok(exact) };
        let loose = case(Strictness::Loose);
        if loose != exact && self.passes(&loose, call).is_ok() {
            return Ok(loose);
        }
        Err((exact, reason))
    }

    fn passes(&self, text: &str, call: &Call) -> Result<(), String> {
        let seeds = 0..if call.pick.is_some() { 8 } else { 2 };
        let cannot = |_| "it cannot be written down".to_owned();
        let (mut file, _) =
            TestFile::read_text(Path::new("recorded.test.toml"), text.to_owned()).map_err(cannot)?;
        file.config.clone_from(&self.config);
        for seed in seeds {
            if Instant::now() > self.until {
                return Err("there was no time to try it".to_owned());
            }
            let report = self.plugin.run_by_chance(&file, seed);
            let steps = report.cases.iter().flat_map(|case| &case.steps);
            // What comes out may be anybody's secret: only the place is told.
            if let Some(difference) = steps.flat_map(|step| &step.differences).next() {
                return Err(format!("`{}` comes out otherwise when it is replayed", difference.place()));
            }
        }
        Ok(())
    }
}

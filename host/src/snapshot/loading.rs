//! Which plugins of a configuration are loaded, and what serves in the place of one that is not?
//!
//! Whatever is wrong with a new version of a plugin, the active version stays, and the operator is told why.

use std::borrow::Cow;

use super::{
    builder::Builder,
    building::{Loading, is_to_be_tried},
    compiling::{Budget, Terms, Unneeded},
    diagnosis::{Diagnosis, Subject},
    error::PluginError,
    files::stem,
    loaded::{Loaded, Origin, Settings, place_of_settings},
    progress::{Refused, Stage},
    settings::{needed_plugins, settings},
};
use crate::{
    config::{Config, Problem},
    upstream::Origins,
};

/// Plugins that were not loaded, and that nothing needs.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub not_loaded: Vec<(String, Refused)>,
    /// Those that have still to be compiled.
    pub untried: Vec<String>,
}

impl Builder {
    /// All plugins that the configuration names, and all in the drop folder. One that cannot be loaded is a problem if
    /// anybody needs it.
    pub(super) fn plugins(
        &self,
        config: &Config,
        previous: Option<&[Loaded]>,
        unneeded: Unneeded,
        left_out: &mut LeftOut,
        problems: &mut Vec<Problem>,
    ) -> Vec<Loaded> {
        let needed = needed_plugins(config);
        let mut loaded = Vec::new();
        let folder = self.plugin_dir(config);
        let before = previous.unwrap_or_default();
        let budget = Budget::new(config);
        // Those that serve come first, so that others cannot take their time and their room.
        let serves = |name: &str, settings: &Result<Settings, PluginError>| {
            needed.contains_key(name) || settings.as_ref().map_or(true, |settings| settings.is_beside)
        };
        let (first, last): (Vec<_>, Vec<_>) = settings(config, &folder, &needed, before)
            .into_iter()
            .partition(|(name, settings)| serves(name, settings));
        let is_first = std::iter::repeat_n(true, first.len()).chain(std::iter::repeat(false));
        for ((name, settings), serves) in first.into_iter().chain(last).zip(is_first) {
            let known = before.iter().find(|known| *known.plugin.name == *name);
            let is_beside = settings.as_ref().map_or(true, |settings| settings.is_beside);
            let written = settings.as_ref().ok().cloned();
            let terms = Terms { config, budget: &budget, serves, unneeded };
            let error = match settings.and_then(|settings| self.plugin(&name, &settings, terms, known)) {
                Ok(plugin) => {
                    loaded.push(plugin);
                    continue;
                }
                Err(error) => error,
            };
            if let PluginError::Later = error {
                loaded.extend(known.cloned());
                left_out.untried.push(name);
                continue;
            }
            let file = written.as_ref().and_then(|settings| settings.table.file.as_deref()).unwrap_or(&name);
            let settings = place_of_settings(&name, is_beside);
            let subject = Subject { name: &name, file, settings: &settings, plugin_dir: &folder };
            let Diagnosis { stage, span: within, help } = Diagnosis::new(&error, &subject);
            let refused = Refused::new(stage, error.to_string());
            self.loads.note(&name, stage);
            // Only files have changed, or gone: what was loaded from them stays in force.
            let stays = |known: &&Loaded| {
                known.settings.keys == config.plugin_keys
                    && (written.as_ref() == Some(&known.settings) || (is_beside && known.settings.is_beside))
            };
            let (stage, reason) = (refused.stage.name(), &refused.reason);
            if let Some(known) = known.filter(stays) {
                tracing::warn!(
                    plugin = name,
                    stage,
                    error = reason,
                    help,
                    "new version not used, the loaded one stays in force"
                );
                // What lies there is not the candidate any more, unless nobody has come to look.
                let candidate = known.candidate.clone().filter(|_| refused.stage == Stage::Settings);
                loaded.push(Loaded { refused: Some(refused), candidate, ..known.clone() });
            } else if let Some(span) = needed.get(name.as_str()) {
                let place = within.filter(|_| !is_beside).unwrap_or_else(|| span.clone());
                problems.push(Problem { help, ..Problem::at(place, refused.reason) });
            } else if is_beside && (previous.is_none() || known.is_some()) {
                // It may be on all routes, and these would be open without it. Where it has never been, they are as
                // they were.
                problems.push(Problem { help, ..Problem::general(format!("the plugin `{name}`: {reason}")) });
            } else {
                tracing::warn!(
                    plugin = name,
                    stage,
                    error = reason,
                    help,
                    "plugin cannot be loaded; no route uses it, so the rest of the configuration does without it"
                );
                left_out.not_loaded.push((name, refused));
            }
        }
        self.forget_tried();
        loaded
    }

    fn plugin(
        &self,
        name: &str,
        settings: &Settings,
        terms: Terms<'_>,
        known: Option<&Loaded>,
    ) -> Result<Loaded, PluginError> {
        let table = &settings.table;
        let Terms { config, .. } = terms;
        let chosen = self.choose(name, table, config, known)?;
        if terms.unneeded == Unneeded::Later && !terms.serves && !self.is_at_hand(chosen.digest) {
            return Err(PluginError::Later);
        }
        let code = self.compiled(&chosen, terms).map_err(|source| {
            let path = match &chosen.origin {
                Origin::Shipped => {
                    format!("the shipped `{}`", stem(table.file.as_deref().unwrap_or(name)))
                }
                origin @ (Origin::File(_) | Origin::Kept(_)) => origin.to_string(),
            };
            PluginError::Load { path, source }
        })?;
        let known_origins = known.map(|known| &*known.origins);
        let origins =
            Origins::new(name, &table.grants.http, &self.folder, known_origins).map_err(|mut problems| {
                let general = || Problem::general("an origin cannot be reached by TLS as it is written");
                PluginError::Origin(if problems.is_empty() { general() } else { problems.swap_remove(0) })
            })?;
        let loaded = Loading { builder: self, name, settings, terms, origins: origins.into(), known };
        // Where it is written which version is to serve, no other does beside it.
        let rule = table.canary.as_ref().filter(|_| table.sha256.is_none());
        let serving = match known {
            Some(known) if rule.is_none() || self.is_still_trusted(name, known, settings, config) => {
                Some(Cow::Borrowed(known))
            }
            Some(_) => None,
            None => rule.and_then(|_| loaded.last_served(&chosen, config)),
        };
        match (rule, serving) {
            (Some(rule), Some(serving)) if is_to_be_tried(name, table, config, &serving, &code, &chosen) => {
                loaded.beside(&serving, code, chosen, rule)
            }
            _ => loaded.alone(code, chosen),
        }
    }

    /// Whether what serves may go on beside a candidate: it was trusted by what was asked when it was loaded.
    fn is_still_trusted(&self, name: &str, known: &Loaded, settings: &Settings, config: &Config) -> bool {
        let was = &known.settings;
        if was.keys == settings.keys && was.table.public_key == settings.table.public_key {
            return true;
        }
        let kept = self.kept(known.plugin.code.digest(), &settings.table, config);
        kept.inspect_err(|error| {
            tracing::warn!(plugin = name, %error, "the version in force is not trusted any more, and no other is tried beside it");
        })
        .is_ok()
    }
}

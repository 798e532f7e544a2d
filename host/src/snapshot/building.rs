//! How does a component become a plugin that serves?
//!
//! It imports nothing that it was not granted, it accepts its configuration, and it passes the tests that lie beside it. Then
//! it serves alone, or as a canary beside the active version.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use super::{
    builder::Builder,
    choosing::Chosen,
    compiling::{Terms, compile_limits},
    diagnosis::warn_of,
    error::PluginError,
    loaded::{Candidate, Loaded, Origin, Settings},
    tested::{Tested, test},
};
use crate::{
    config::{self, Config},
    plugin::{Capabilities, Capability, Code, Comparison, Ended, Hooks, Plugin, StartError, Surroundings},
    telemetry::with_sources,
    upstream::Origins,
};

/// A plugin on its way into force.
pub(super) struct Loading<'a> {
    pub builder: &'a Builder,
    pub name: &'a str,
    pub settings: &'a Settings,
    pub terms: Terms<'a>,
    pub origins: Arc<Origins>,
    pub known: Option<&'a Loaded>,
}

impl Loading<'_> {
    /// Has it serve all requests.
    pub fn alone(self, code: Arc<Code>, chosen: Chosen<'_>) -> Result<Loaded, PluginError> {
        let Self { builder, known, .. } = self;
        let candidate = known.and_then(|known| known.candidate.as_ref());
        let candidate = candidate.filter(|candidate| candidate.digest() == code.digest());
        let before = known.map(|known| &known.plugin);
        let (plugin, is_new) =
            self.make(&code, candidate.map(|candidate| &candidate.plugin).or(before), before)?;
        let passed = candidate.map_or(known.and_then(|known| known.tested), |candidate| candidate.tested);
        let tested = self.test(&code, &chosen.origin, passed)?;
        let same = known.filter(|known| Arc::ptr_eq(&known.plugin, &plugin));
        // One that was loaded before may have been signed since.
        if is_new || chosen.signature.is_some() {
            builder.versions.keep(chosen.digest, &chosen.bytes, chosen.signature.as_deref());
        }
        Ok(Loaded {
            plugin,
            origin: chosen.origin,
            origins: self.origins,
            refused: chosen.refused,
            tested,
            since: same.map_or_else(SystemTime::now, |known| known.since),
            candidate: None,
            settings: self.settings.clone(),
        })
    }

    /// Has it serve a share of the requests, and the one that has served until now the others. What is said of the plugin
    /// holds for both.
    pub fn beside(
        self,
        serving: &Loaded,
        code: Arc<Code>,
        chosen: Chosen<'_>,
        rule: &config::Canary,
    ) -> Result<Loaded, PluginError> {
        let Self { builder, .. } = self;
        let candidate = serving.candidate.as_ref().filter(|candidate| candidate.digest() == chosen.digest);
        if candidate.is_some_and(|candidate| candidate.comparison.ended().is_some()) {
            return Err(PluginError::NotAsGood);
        }
        if let Some(hook) = lacking(serving.plugin.code.hooks(), code.hooks(), code.waits()) {
            return Err(PluginError::LacksHook(hook));
        }
        let (in_force, _) = self.make(&serving.plugin.code, Some(&serving.plugin), Some(&serving.plugin))?;
        let known = candidate.map_or(&serving.plugin, |candidate| &candidate.plugin);
        let (plugin, _) = self.make(&code, Some(known), Some(&in_force))?;
        let passed = candidate.and_then(|candidate| candidate.tested);
        let tested = self.test(&code, &chosen.origin, passed)?;
        let comparison = candidate.map(|candidate| candidate.comparison.clone()).unwrap_or_else(|| {
            builder.versions.keep(chosen.digest, &chosen.bytes, chosen.signature.as_deref());
            Comparison::new(chosen.digest).into()
        });
        Ok(Loaded {
            plugin: in_force,
            origin: match &serving.origin {
                Origin::Kept(_) => serving.origin.clone(),
                Origin::File(_) | Origin::Shipped => Origin::Kept(chosen.origin.into()),
            },
            origins: self.origins,
            refused: None,
            tested: serving.tested,
            since: serving.since,
            candidate: Some(Candidate { plugin, rule: rule.clone(), comparison, tested }),
            settings: self.settings.clone(),
        })
    }

    /// The plugin with this code: the one that is known, if it would be the same. Whether it is another. What it keeps,
    /// it shares with the one before.
    fn make(
        &self,
        code: &Arc<Code>,
        known: Option<&Arc<Plugin>>,
        before: Option<&Arc<Plugin>>,
    ) -> Result<(Arc<Plugin>, bool), PluginError> {
        let Self { builder, name, settings: Settings { table, .. }, .. } = self;
        check_grants(code, &table.grants, &self.settings.place(name))?;
        if table.routes.is_some() && !code.hooks().are_for_routes() {
            return Err(PluginError::NothingOnRoutes);
        }
        let before = before.map(|before| &**before);
        let kept = before.map(Plugin::capabilities);
        let capabilities = Capabilities::granted(&table.grants, &builder.folder, kept)?;
        let warm = match self.terms.serves {
            true => builder.warm + usize::from(table.tick.is_some() || code.hooks().complete),
            // Nobody calls it: it takes no room that others need.
            false => 0,
        };
        let is_same = |known: &&Arc<Plugin>| {
            known.is_same(code, table, &capabilities) && (known.reserved() > 0) == (warm > 0)
        };
        if let Some(known) = known.filter(is_same) {
            return Ok((known.clone(), false));
        }
        warn_of(name, code, table);
        let budget = self.terms.budget;
        budget.start(name, || {
            let surroundings = Surroundings { capabilities, ..Surroundings::default() };
            let (name, until) = ((*name).into(), Some(budget.until()));
            let plugin = Plugin::within(surroundings, name, code.clone(), table, before, warm, until);
            plugin.map(|plugin| (plugin.into(), true)).map_err(|error| match error {
                StartError::NoTime => PluginError::NoTime(budget.of_starts),
                error => error.into(),
            })
        })
    }

    /// Has it go through the tests beside its file.
    fn test(
        &self,
        code: &Arc<Code>,
        origin: &Origin,
        passed: Option<Tested>,
    ) -> Result<Option<Tested>, PluginError> {
        let Self { name, settings, terms, .. } = self;
        terms.budget.start(name, || {
            test(name, code, origin.own_file(), &settings.table, terms.config, terms.budget.until(), passed)
        })
    }

    /// What served before the process started, where another version is now to be tried beside it.
    pub fn last_served(&self, chosen: &Chosen<'_>, config: &Config) -> Option<Cow<'static, Loaded>> {
        let versions = &self.builder.versions;
        let last = versions.last_good(self.name).filter(|last| last.digest != chosen.digest)?.digest;
        let load = || -> Result<Loaded, String> {
            let table = &self.settings.table;
            let bytes = self.builder.kept(last, table, config).map_err(|error| error.to_string())?;
            let limits = compile_limits(config);
            let code =
                self.builder.engine.load_within(&bytes, limits).map_err(|error| with_sources(&error))?;
            let (plugin, _) = self.make(&code, None, None).map_err(|error| error.to_string())?;
            Ok(Loaded {
                plugin,
                origin: Origin::Kept(chosen.origin.clone().into()),
                origins: self.origins.clone(),
                refused: None,
                tested: None,
                since: SystemTime::now(),
                candidate: None,
                settings: self.settings.clone(),
            })
        };
        let loaded = load().inspect_err(|error| {
            tracing::warn!(plugin = self.name, digest = %last, error, "what served last cannot serve beside it");
        });
        loaded.ok().map(Cow::Owned)
    }
}

/// The hook that the active version has and a candidate with the hooks `has` lacks. A balancer must not wait.
fn lacking(had: Hooks, has: Hooks, waits: bool) -> Option<&'static str> {
    if had.are_for_routes() && !has.are_for_routes() {
        return Some("`on-request`, `on-response` or `on-complete`");
    }
    (had.balance && (!has.balance || waits)).then_some("`pick`, which must not wait")
}

/// Whether a version is to be tried beside the one that serves: it is another, there is something to compare, and it was not
/// found to be as good already.
pub(super) fn is_to_be_tried(
    name: &str,
    table: &config::Plugin,
    config: &Config,
    serving: &Loaded,
    code: &Code,
    chosen: &Chosen<'_>,
) -> bool {
    let has_passed = serving.candidate.as_ref().is_some_and(|candidate| {
        candidate.digest() == chosen.digest && candidate.comparison.ended() == Some(&Ended::Passed)
    });
    let is_called = |hooks: Hooks| hooks.request || hooks.response || hooks.balance;
    let is_named = || {
        let routes = config.routes.iter().flat_map(|route| &route.get_ref().plugins);
        let balancers = config.upstreams.values().flat_map(|upstream| &upstream.balance);
        table.routes.is_some() || routes.chain(balancers).any(|named| named.get_ref() == name)
    };
    serving.plugin.code.digest() != chosen.digest
        && chosen.refused.is_none()
        && !has_passed
        && is_called(code.hooks())
        && is_called(serving.plugin.code.hooks())
        && is_named()
}

/// A component gets what its table grants, and one that asks for more is not run. `place` is where the table stands.
pub(super) fn check_grants(code: &Code, grants: &config::Grants, place: &str) -> Result<(), PluginError> {
    not_granted(code.imports(), grants, place).map_or(Ok(()), Err)
}

fn not_granted(imports: &[Capability], grants: &config::Grants, place: &str) -> Option<PluginError> {
    let missing: Vec<_> = imports.iter().filter(|capability| !capability.is_in(grants)).collect();
    if missing.is_empty() {
        return None;
    }
    let interfaces = missing.iter().map(|capability| format!("`tollgate:policy/{}`", capability.interface()));
    Some(PluginError::NotGranted {
        interfaces: interfaces.collect::<Vec<_>>().join(" and "),
        grants: missing.iter().map(|capability| capability.grant()).collect::<Vec<_>>().join(", "),
        place: place.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_has_the_hooks_that_are_called() {
        let none = Hooks { request: false, response: false, balance: false, complete: false };
        let request = Hooks { request: true, ..none };
        let response = Hooks { response: true, ..none };
        let balance = Hooks { balance: true, ..none };
        for (had, has, waits, lacks) in [
            (request, request, true, None),
            (request, response, false, None),
            (request, balance, false, Some("on-request")),
            (balance, balance, false, None),
            (balance, balance, true, Some("must not wait")),
            (balance, request, false, Some("pick")),
            (none, none, false, None),
        ] {
            let found = lacking(had, has, waits);
            assert_eq!(found.is_some(), lacks.is_some(), "{had:?} {has:?} {waits}");
            assert!(found.unwrap_or_default().contains(lacks.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn all_that_was_not_granted_is_named_with_what_grants_it() {
        let imports = [Capability::Store, Capability::Body];
        let grants = |text: &str| toml::from_str::<config::Grants>(text).unwrap();
        let error =
            |text| not_granted(&imports, &grants(text), "under [plugins.a]").map(|error| error.to_string());
        assert_eq!(error("store = true\nbody = true"), None);
        let none = error("").unwrap();
        assert!(none.contains("`tollgate:policy/store` and `tollgate:policy/body`"), "{none}");
        assert!(none.ends_with("write `grants = { store = true, body = true }` under [plugins.a]"), "{none}");
        let some = error("store = true").unwrap();
        assert!(!some.contains("store") && some.contains("`grants = { body = true }`"), "{some}");
    }
}

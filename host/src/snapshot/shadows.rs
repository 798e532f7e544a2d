//! Which candidates stand in the shadow of plugins?
//!
//! Each is made as the plugin would be, with the settings of its table, but in surroundings in which nothing that it does has
//! an effect.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use toml::Spanned;

use super::{
    builder::Builder,
    building::check_grants,
    compiling::compile_limits,
    diagnosis::{Diagnosis, Subject},
    error::PluginError,
    files::{read, signature_of},
    loaded::{Loaded, place_of_settings},
};
use crate::{
    config::{Config, Problem, ShadowOf},
    plugin::{Capabilities, Capability, Demand, Digest, Journal, Plugin, Shadow, Surroundings, shipped},
};

impl Builder {
    /// The candidates that routes name, each once. One that cannot be shown anything any more stays as it was, and is a
    /// problem where it has never been.
    pub(super) fn shadows(
        &self,
        config: &Config,
        previous: &[Arc<Shadow>],
        plugins: &[Loaded],
        places: &HashMap<&str, usize>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Arc<Shadow>> {
        let written = config.routes.iter().filter_map(|route| route.get_ref().shadow.as_ref());
        let wanted: BTreeMap<(&str, &str), &Spanned<ShadowOf>> = written
            .map(|shadow| ((shadow.get_ref().plugin.as_str(), shadow.get_ref().file.as_str()), shadow))
            .collect();
        let mut all = Vec::new();
        for ((name, file), shadow) in wanted {
            // A plugin that is not there is told of where it is named.
            let Some(of) = places.get(name).map(|place| &plugins[*place]) else { continue };
            let known = previous.iter().find(|known| *known.of == *name && known.file == file);
            match (self.shadow(of, file, config, known), known) {
                (Ok(made), _) => all.push(made),
                (Err(error), Some(known)) => {
                    let error = error.to_string();
                    tracing::warn!(plugin = name, candidate = file, error, "new candidate not used");
                    all.push(known.clone());
                }
                (Err(error), None) => {
                    let (settings, plugin_dir) = (place_of_settings(name, false), self.plugin_dir(config));
                    let subject = Subject { name, file, settings: &settings, plugin_dir: &plugin_dir };
                    let help = Diagnosis::new(&error, &subject).help;
                    problems.push(Problem { help, ..Problem::at(shadow.span(), error.to_string()) });
                }
            }
        }
        all
    }

    fn shadow(
        &self,
        of: &Loaded,
        file: &str,
        config: &Config,
        known: Option<&Arc<Shadow>>,
    ) -> Result<Arc<Shadow>, PluginError> {
        let (name, table) = (&of.plugin.name, of.table());
        let path = self.plugin_dir(config).join(file);
        let bytes = match read(&path, config.limits.plugin_size)? {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(
                shipped::find(file.trim_end_matches(".wasm"))
                    .ok_or_else(|| PluginError::Missing(path.clone()))?,
            ),
        };
        // What the table says of one file does not hold for another, but who may have made it does.
        let (signer, signers): (_, &[_]) = match bytes {
            Cow::Owned(_) => (table.public_key, &config.plugin_keys),
            // Nobody has to vouch for what is part of the executable.
            Cow::Borrowed(_) => (None, &[]),
        };
        let demand = Demand { sha256: None, signer, signers, signature: None };
        let beside = match demand.wants_signature() {
            true => signature_of(&path)?,
            false => None,
        };
        let shown = path.display().to_string();
        demand
            .check(&bytes, beside.as_deref())
            .map_err(|source| PluginError::Untrusted { path: shown.clone(), source })?;
        let code = self
            .engine
            .load_within(&bytes, compile_limits(config))
            .map_err(|source| PluginError::Load { path: shown, source: source.into() })?;
        if code.imports().contains(&Capability::HttpClient) {
            return Err(PluginError::Asks(Capability::HttpClient.interface()));
        }
        if table.yields {
            return Err(PluginError::Yields(name.to_string()));
        }
        if !(code.hooks().request || code.hooks().response) {
            return Err(PluginError::NothingToShow);
        }
        check_grants(&code, &table.grants, &of.place())?;
        let before = known.map(|known| &*known.plugin);
        let kept = before.map(Plugin::capabilities);
        let capabilities = Capabilities::granted(&table.grants, &self.folder, kept)?;
        if let Some(known) = known.filter(|known| known.plugin.is_same(&code, table, &capabilities)) {
            return Ok(known.clone());
        }
        let surroundings =
            Surroundings { capabilities, journal: Some(Journal::closed().into()), ..Surroundings::default() };
        let own: Arc<str> = format!("{name}@{file}").into();
        let plugin = Plugin::within(surroundings, own, code, table, before, self.warm, None)?;
        tracing::info!(plugin = %name, candidate = file, digest = %Digest::of(&bytes), "candidate is shown requests");
        Ok(Shadow::new(plugin.into(), name.clone(), file.to_owned()).into())
    }
}

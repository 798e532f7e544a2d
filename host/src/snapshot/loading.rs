//! What has to be true of a plugin before it serves?
//!
//! Its file is there, is not too large, and is the one that the operator asked for; it compiles, in time; it asks for
//! nothing that it was not granted; it takes its configuration; and it passes the tests that lie beside it. Whatever
//! fails, the version that was in force before stays, and everybody is told why.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Builder, Snapshot,
    files::{beside, dropped_files, read, signature_of, stem},
    progress::{Refused, Stage},
    tested::{Tested, test},
};
use crate::{
    config::{self, ByteSize, Config, Problem, PublicKey},
    plugin::{
        CallError, Capabilities, Capability, Code, Comparison, CompileLimits, Demand, Digest, Ended, Hook,
        Hooks, LoadError, Plugin, SecretError, StartError, Surroundings, TrustError, shipped,
    },
    telemetry::with_sources,
    upstream::Origins,
};

/// A plugin, and where its code came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    pub origin: Origin,
    /// Where it may send requests.
    pub origins: Arc<Origins>,
    /// Why what lies in its file was not put in its place.
    pub refused: Option<Refused>,
    /// The tests that it has passed, if there were any.
    pub tested: Option<Tested>,
    /// Since when it is in force.
    pub since: SystemTime,
    /// The version that is tried beside it.
    pub candidate: Option<Candidate>,
    settings: Settings,
}

/// A version that has passed all that can be asked of it alone, and serves a share of the requests to show the rest.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub plugin: Arc<Plugin>,
    pub rule: config::Canary,
    /// With the version in force. It outlasts reloads that leave the candidate what it is.
    pub comparison: Arc<Comparison>,
    tested: Option<Tested>,
}

impl Candidate {
    pub fn digest(&self) -> Digest {
        self.plugin.code.digest()
    }

    /// Its part of the requests.
    pub fn share(&self) -> f64 {
        self.rule.share.get()
    }
}

/// Where the code of a plugin came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// It is part of the executable.
    Shipped,
    /// It has served before and was kept, and does so again in the place of what is there.
    Kept(Box<Origin>),
}

impl Origin {
    /// The file that it is from, or would be.
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Shipped => None,
            Self::Kept(other) => other.file(),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Shipped => formatter.write_str("the executable"),
            Self::Kept(other) => write!(formatter, "what was kept, in the place of {other}"),
        }
    }
}

/// What is written about a plugin, and where.
#[derive(Debug, Clone, Default, PartialEq)]
struct Settings {
    table: config::Plugin,
    /// Whether it is in a file beside the plugin's.
    is_beside: bool,
    /// `plugin-keys`, which say of every plugin who must have signed it.
    keys: Vec<PublicKey>,
}

/// Why a plugin could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginError {
    #[error("there is no file {} and no plugin of this name is shipped", .0.display())]
    Missing(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {most}, which `limits.plugin-size` says", path.display())]
    TooLarge { path: PathBuf, most: ByteSize },
    #[error("{path} is not trusted: {source}")]
    Untrusted { path: String, source: TrustError },
    #[error("its settings cannot be used: {0}")]
    Settings(String),
    #[error("a plugin has the name of its file without `.wasm`: write `{}`", stem(.0))]
    NamedAsFile(String),
    #[error("there is the table [plugins.{name}], and {} beside the plugin: remove one of them", path.display())]
    TwoTables { name: String, path: PathBuf },
    #[error("`routes` puts it on all routes, and it has no hook for requests or responses")]
    NothingOnRoutes,
    #[error("version {0} was rolled back, and no other version that has served is kept")]
    TakenBack(Digest),
    #[error("version {digest} is to serve again, and cannot be read: {source}")]
    Kept { digest: Digest, source: io::Error },
    #[error("{} is not usable: {}", path, with_sources(&**source))]
    Load { path: String, source: Arc<LoadError> },
    #[error(
        "the plugin imports {interfaces}, which it has not been granted: write `grants = {{ {grants} }}` {place}"
    )]
    NotGranted { interfaces: String, grants: String, place: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}", .0.message)]
    Origin(Problem),
    #[error("the plugin {}", with_sources(.0))]
    Start(#[from] StartError),
    #[error(
        "it was not started: the plugins of this reload have taken {} s to start and to go through their tests, which is all they \
         have; raise `limits.plugin-start` if they need more", .0.as_secs_f64()
    )]
    NoTime(Duration),
    #[error("its tests cannot be read: {0}")]
    Tests(String),
    #[error("it fails its tests: {0}")]
    Fails(String),
    #[error("it was tried beside the version in force, and is not to take over")]
    NotAsGood,
    #[error(
        "it imports `tollgate:policy/{0}`, and what it asks others would be asked once more for a candidate"
    )]
    Asks(&'static str),
    #[error(
        "a candidate is not called in turns with others, and `[plugins.{0}]` says `yields = true`: take that out, or try the \
         candidate with `canary`"
    )]
    Yields(String),
    #[error("it has neither `on-request` nor `on-response`, so there is nothing to show it")]
    NothingToShow,
    #[error("it lacks a hook that the version in force has and that is called: {0}")]
    LacksHook(&'static str),
    /// Nobody is told: it is loaded soon.
    #[error("nothing needs it, and it is compiled once the configuration is in force")]
    Later,
}

/// What to do about a component that is not usable, where the error does not say it.
fn remedy_of_load(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Invalid(_) => Some(
            "build it for wasm32-wasip2; if that is what it was, copy the file once more and move it into place",
        ),
        LoadError::UnknownImport(_) | LoadError::Misfit(_) => {
            Some("build it against wit/policy.wit of this version, which says what there is to import")
        }
        LoadError::NoLifecycle => Some("`tollgate plugin new` begins a project that exports it"),
        LoadError::CoreModule
        | LoadError::Contract { .. }
        | LoadError::Compile(_)
        | LoadError::Costly(_)
        | LoadError::NoTime(_)
        | LoadError::NoThread(_) => None,
    }
}

/// What is to be loaded.
struct Chosen<'a> {
    bytes: Cow<'a, [u8]>,
    digest: Digest,
    origin: Origin,
    /// What stands in the file of its signature, or in its table.
    signature: Option<Vec<u8>>,
    /// Why it is not what lies in the file.
    refused: Option<Refused>,
}

impl Builder {
    /// All plugins that the configuration names, and all in the drop folder. One that cannot be loaded is a problem if
    /// anybody needs it.
    pub(super) fn plugins(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        unneeded: Unneeded,
        left_out: &mut LeftOut,
        problems: &mut Vec<Problem>,
    ) -> Vec<Loaded> {
        let needed = needed_plugins(config);
        let mut loaded = Vec::new();
        let budget = Budget::new(config);
        // Those that serve come first, so that others cannot take their time and their room.
        let serves = |name: &str, settings: &Result<Settings, PluginError>| {
            needed.contains_key(name) || settings.as_ref().map_or(true, |settings| settings.is_beside)
        };
        let (first, last): (Vec<_>, Vec<_>) = self
            .settings(config, &needed, previous)
            .into_iter()
            .partition(|(name, settings)| serves(name, settings));
        let is_first = std::iter::repeat_n(true, first.len()).chain(std::iter::repeat(false));
        for ((name, settings), serves) in first.into_iter().chain(last).zip(is_first) {
            let known = previous.and_then(|previous| previous.plugin(&name));
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
            let refused = Refused::new(error.stage(), error.to_string());
            self.loads.note(&name, refused.stage);
            let file = written.as_ref().and_then(|settings| settings.table.file.as_deref()).unwrap_or(&name);
            let help = self.remedy(&error, &name, file, &place_of_settings(&name, is_beside), config);
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
                let place = error.place().filter(|_| !is_beside).unwrap_or_else(|| span.clone());
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

    /// What to write or to do, where the error does not say it. `file` is where the component was to come from, `place`
    /// where its settings stand.
    pub(super) fn remedy(
        &self,
        error: &PluginError,
        name: &str,
        file: &str,
        place: &str,
        config: &Config,
    ) -> Option<String> {
        let too_little = |error: &CallError| match error {
            CallError::Memory(_) => Some(("memory", "64MiB")),
            CallError::MemoryInAll(_) => Some(("memory-in-all", "512MiB")),
            CallError::Deadline(_) => Some(("time", "2s")),
            CallError::Trap(_)
            | CallError::Unsent(_)
            | CallError::InvalidReply(_)
            | CallError::UnknownUpstream(_)
            | CallError::UpstreamNotGranted(_)
            | CallError::Start(_)
            | CallError::Busy(_)
            | CallError::Broken => None,
        };
        match error {
            PluginError::Missing(_) => Some(self.missing(file, config)),
            PluginError::Untrusted { source: TrustError::OtherDigest(digest), .. } => {
                Some(format!("if this is the file that you mean, write sha256 = \"{digest}\""))
            }
            PluginError::Untrusted { source: TrustError::NotSigned, .. } => Some(
                "sign this very file with that key, or name whoever has signed it: `public-key` of the plugin, or \
                 `plugin-keys`"
                    .into(),
            ),
            PluginError::Load { source, .. } => remedy_of_load(source).map(Into::into),
            PluginError::Start(StartError::Begin(error) | StartError::Configure(error)) => {
                let (key, value) = too_little(error)?;
                Some(format!("if that is what it needs, raise limits = {{ {key} = \"{value}\" }} {place}"))
            }
            PluginError::Fails(_) => {
                let path = self.plugin_dir(config).join(format!("{}.wasm", stem(file)));
                Some(format!("`tollgate plugin test {}` tells all of it", path.display()))
            }
            PluginError::Secret(error) => Some(error.help().into()),
            PluginError::NothingOnRoutes => Some(format!(
                "leave `routes` out; a plugin that balances is named by an upstream: balance = \"{name}\""
            )),
            PluginError::Asks(_) | PluginError::NothingToShow => {
                Some(format!("try it with a share of the requests: `canary` {place}"))
            }
            PluginError::Settings(told) if told.contains("unknown key `plugins`") => {
                Some(format!("in that file the keys stand by themselves, without [plugins.{name}] above them"))
            }
            PluginError::Settings(_)
            | PluginError::NamedAsFile(_)
            | PluginError::TwoTables { .. }
            | PluginError::Read { .. }
            | PluginError::TooLarge { .. }
            | PluginError::Untrusted { source: TrustError::Unsigned | TrustError::NoSignature, .. }
            | PluginError::TakenBack(_)
            | PluginError::Kept { .. }
            | PluginError::NotGranted { .. }
            | PluginError::Origin(_)
            | PluginError::Start(StartError::Refused(_) | StartError::Instantiate(_) | StartError::NoRoom(_) | StartError::NoTime)
            | PluginError::NoTime(_)
            | PluginError::Tests(_)
            | PluginError::NotAsGood
            | PluginError::Yields(_)
            | PluginError::LacksHook(_)
            | PluginError::Later => None,
        }
    }

    /// What to do about a file that is not there.
    fn missing(&self, file: &str, config: &Config) -> String {
        let folder = self.plugin_dir(config);
        if file.contains('/') {
            let name = Path::new(file).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            return format!("files are named as they are in `plugin-dir`: \"{name}\"");
        }
        // Without the folder there are still the shipped ones to be meant.
        let dropped = dropped_files(&folder, ".wasm");
        if dropped.iter().any(|name| name == stem(file)) {
            return "it is a link that leads nowhere: put the component where it leads, or into its place"
                .into();
        }
        let shipped = shipped::SHIPPED.iter().map(|(name, _)| *name);
        let likeness = |name: &&str| strsim::jaro_winkler(stem(file), name);
        let near = dropped.iter().map(String::as_str).chain(shipped);
        let near =
            near.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.8);
        match near {
            Some(name) if !folder.is_dir() => {
                format!("did you mean `{name}`? there is no folder {}", folder.display())
            }
            Some(name) => format!("did you mean `{name}`?"),
            None if !folder.is_dir() => {
                format!("there is no folder {}: say with `plugin-dir` where plugins are", folder.display())
            }
            None => format!("put it into {}, or say with `file` which file it is", folder.display()),
        }
    }

    /// The names of all plugins, each with its settings.
    fn settings(
        &self,
        config: &Config,
        needed: &BTreeMap<&str, Range<usize>>,
        previous: Option<&Snapshot>,
    ) -> BTreeMap<String, Result<Settings, PluginError>> {
        let folder = self.plugin_dir(config);
        let dropped = dropped_files(&folder, ".wasm");
        let tables: HashMap<&str, &config::Plugin> =
            config.plugins.iter().map(|(name, table)| (name.get_ref().as_str(), table)).collect();
        let mut all = BTreeMap::new();
        for name in dropped_files(&folder, ".toml") {
            let path = folder.join(format!("{name}.toml"));
            let was_beside = || {
                previous
                    .and_then(|previous| previous.plugin(&name))
                    .is_some_and(|known| known.settings.is_beside)
            };
            if !(dropped.contains(&name) || shipped::find(&name).is_some() || was_beside()) {
                // Other programs have files of this kind, too, and the tests of plugins are some.
                if beside(&path, config).is_ok_and(|table| table.routes.is_some()) {
                    let help = self.missing(&name, config);
                    tracing::warn!(path = %path.display(), help, "settings of no plugin: there is no component beside them");
                }
                continue;
            }
            let settings = match tables.get(name.as_str()) {
                Some(_) => Err(PluginError::TwoTables { name: name.clone(), path }),
                None => {
                    let keys = config.plugin_keys.clone();
                    beside(&path, config).map(|table| Settings { table, is_beside: true, keys })
                }
            };
            all.insert(name, settings);
        }
        // A file that a table or a route names under another name is not a plugin of its own name, too.
        let beside = all.values().flatten().map(|settings| &settings.table);
        let claimed = tables.values().copied().chain(beside).filter_map(|table| table.file.as_deref());
        let shadows = config.routes.iter().filter_map(|route| route.get_ref().shadow.as_ref());
        let claimed = claimed.chain(shadows.map(|shadow| shadow.get_ref().file.as_str()));
        let claimed: BTreeSet<String> = claimed.map(|file| stem(file).to_owned()).collect();
        let named = needed.keys().map(|name| (*name).to_owned());
        for name in named.chain(dropped.into_iter().filter(|name| !claimed.contains(name))) {
            let settings = match tables.get(name.as_str()) {
                // It would be another plugin of the same file, without what the plugin's table says.
                None if name.ends_with(".wasm") => Err(PluginError::NamedAsFile(name.clone())),
                table => Ok(Settings {
                    table: table.copied().cloned().unwrap_or_default(),
                    is_beside: false,
                    keys: config.plugin_keys.clone(),
                }),
            };
            all.entry(name).or_insert(settings);
        }
        all
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

    /// What lies in the file or is shipped; in the place of a version that was taken back, the one before it.
    fn choose(
        &self,
        name: &str,
        table: &config::Plugin,
        config: &Config,
        known: Option<&Loaded>,
    ) -> Result<Chosen<'static>, PluginError> {
        let file = stem(table.file.as_deref().unwrap_or(name));
        let path = self.plugin_dir(config).join(format!("{file}.wasm"));
        let (bytes, origin): (Cow<'static, [u8]>, _) = match read(&path, config.limits.plugin_size)? {
            Some(bytes) => (bytes.into(), Origin::File(path)),
            None => {
                // What ran from a file does not turn into another plugin because the file has gone.
                let was_file = known.is_some_and(|known| known.origin.file() == Some(&path));
                let shipped = shipped::find(file).filter(|_| !was_file);
                (shipped.ok_or(PluginError::Missing(path))?.into(), Origin::Shipped)
            }
        };
        let demand = Demand {
            sha256: table.sha256,
            signer: table.public_key,
            // Nobody has to vouch for what is part of the executable.
            signers: if origin == Origin::Shipped { &[] } else { &config.plugin_keys },
            signature: table.signature,
        };
        let digest = Digest::of(&bytes);
        if !self.versions.is_taken_back(name, digest) {
            let beside = match origin.file().map(signature_of).transpose() {
                Ok(beside) => beside.flatten(),
                // Nobody has asked for it: it is only kept with the version.
                Err(_) if !demand.wants_signature() => None,
                Err(error) => return Err(error),
            };
            demand
                .check(&bytes, beside.as_deref())
                .map_err(|source| PluginError::Untrusted { path: origin.to_string(), source })?;
            let signature = table.signature.map(|signature| signature.to_string().into_bytes()).or(beside);
            return Ok(Chosen { bytes, digest, origin, signature, refused: None });
        }
        let kept = self.versions.last_good(name).ok_or(PluginError::TakenBack(digest))?.digest;
        let was_refused = known.and_then(|known| known.refused.as_ref());
        // Of this very version, in whose place the same serves. Another has not been spoken of.
        let is_it = |refused: &&Refused| refused.replaced == Some((digest, kept));
        let refused = was_refused.filter(is_it).cloned().unwrap_or_else(|| {
            let candidate = known.and_then(|known| known.candidate.as_ref());
            let candidate = candidate.filter(|candidate| candidate.digest() == digest);
            let (stage, reason) = match candidate.and_then(|candidate| candidate.comparison.ended()) {
                Some(Ended::Failed(reason)) => (
                    Stage::Canary,
                    format!("version {digest} was tried and rolled back: {reason}; version {kept} serves"),
                ),
                Some(Ended::Passed | Ended::TakenBack) | None => (
                    Stage::TakenBack,
                    format!("version {digest} was rolled back; version {kept} serves in its place"),
                ),
            };
            self.loads.note(name, stage);
            tracing::warn!(plugin = name, "{reason}");
            Refused { stage, reason, at: SystemTime::now(), replaced: Some((digest, kept)) }
        });
        let bytes = self.kept(kept, table, config)?;
        Ok(Chosen {
            bytes: bytes.into(),
            digest: kept,
            origin: Origin::Kept(origin.into()),
            signature: self.versions.signature(kept),
            refused: Some(refused),
        })
    }
}

impl Builder {
    /// A version that has served before, if it is what the configuration asks for now: it may be older than what is asked.
    fn kept(&self, kept: Digest, table: &config::Plugin, config: &Config) -> Result<Vec<u8>, PluginError> {
        let bytes =
            self.versions.component(kept).map_err(|source| PluginError::Kept { digest: kept, source })?;
        let is_shipped = shipped::SHIPPED.iter().any(|(_, shipped)| **shipped == *bytes);
        let demand = Demand {
            sha256: table.sha256,
            signer: table.public_key,
            signers: if is_shipped { &[] } else { &config.plugin_keys },
            // That of the table is of what lies in the file.
            signature: None,
        };
        let signature = self.versions.signature(kept);
        let path = format!("version {kept}");
        demand
            .check(&bytes, signature.as_deref())
            .map_err(|source| PluginError::Untrusted { path, source })?;
        Ok(bytes)
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

/// What a plugin is loaded with.
#[derive(Clone, Copy)]
struct Terms<'a> {
    config: &'a Config,
    budget: &'a Budget,
    /// Whether anybody calls it.
    serves: bool,
    /// What happens to it if nobody does.
    unneeded: Unneeded,
}

/// When components are compiled that lie in the drop folder and that nothing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unneeded {
    /// At once.
    Now,
    /// After the configuration has come into force, which must not wait for them: see [`Builder::try_unneeded`].
    Later,
}

/// What came of compiling a component.
pub(super) type Compiled = Result<Arc<Code>, Arc<LoadError>>;

/// Plugins that were not loaded, and that nothing needs.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub not_loaded: Vec<(String, Refused)>,
    /// Those that have still to be compiled.
    pub untried: Vec<String>,
}

/// The time that the plugins of a reload may take together.
struct Budget {
    /// When all must have started.
    starts: Cell<Duration>,
    of_starts: Duration,
    /// What is left for compiling files that nothing names.
    compiling: Cell<Duration>,
}

impl Budget {
    fn new(config: &Config) -> Self {
        let (starts, compiling) = (config.limits.plugin_start.get(), config.limits.plugin_compile.get());
        Self { starts: Cell::new(starts), of_starts: starts, compiling: Cell::new(compiling) }
    }

    /// Until when what starts now may take.
    fn until(&self) -> Instant {
        Instant::now() + self.starts.get()
    }

    /// Does what counts as the start of a plugin, if there is time for it.
    fn start<T>(&self, name: &str, work: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
        if self.starts.get().is_zero() {
            return Err(PluginError::NoTime(self.of_starts));
        }
        let since = Instant::now();
        let result = work();
        let took = since.elapsed();
        self.starts.set(self.starts.get().saturating_sub(took));
        if took > self.of_starts / 4 {
            tracing::warn!(plugin = name, ?took, "the plugin takes long to start and to be tested");
        }
        result
    }
}

pub(super) fn compile_limits(config: &Config) -> CompileLimits {
    CompileLimits { time: config.limits.plugin_compile.get(), memory: config.limits.plugin_compile_memory }
}

impl Builder {
    /// The code of a component. What nothing needs has all together the time that one has which is needed.
    fn compiled(&self, chosen: &Chosen<'_>, terms: Terms<'_>) -> Compiled {
        if terms.serves || self.engine.is_compiled(chosen.digest) {
            return Ok(self.engine.load_within(&chosen.bytes, compile_limits(terms.config))?);
        }
        let tried = self.tried.lock().expect("no holder of this lock panics").get(&chosen.digest).cloned();
        tried.unwrap_or_else(|| self.compile_unneeded(chosen, terms.config, &terms.budget.compiling))
    }

    fn compile_unneeded(&self, chosen: &Chosen<'_>, config: &Config, time: &Cell<Duration>) -> Compiled {
        let limits = compile_limits(config);
        let left = time.get();
        if left.is_zero() {
            return Err(LoadError::NoTime(limits.time).into());
        }
        let since = Instant::now();
        let loaded = self.engine.load_unasked(&chosen.bytes, CompileLimits { time: left, ..limits });
        time.set(left.saturating_sub(since.elapsed()));
        Ok(loaded?)
    }

    /// Whether a component need not be compiled.
    fn is_at_hand(&self, digest: Digest) -> bool {
        let is_tried = || self.tried.lock().expect("no holder of this lock panics").contains_key(&digest);
        self.engine.is_compiled(digest) || is_tried()
    }

    /// Compiles what a snapshot has left for later, and keeps what came of it for the next one.
    pub fn try_unneeded(&self, snapshot: &Snapshot) {
        let config = &snapshot.config;
        let time = Budget::new(config).compiling;
        let mut tried = HashMap::new();
        for name in &snapshot.untried {
            let table = config.plugins.iter().find(|(known, _)| known.get_ref() == name);
            let table = table.map(|(_, table)| table.clone()).unwrap_or_default();
            // What is wrong with its file is said where it is loaded.
            let Ok(chosen) = self.choose(name, &table, config, snapshot.plugin(name)) else { continue };
            tried.insert(chosen.digest, self.compile_unneeded(&chosen, config, &time));
        }
        *self.tried.lock().expect("no holder of this lock panics") = tried;
    }

    /// What came of them has been used.
    fn forget_tried(&self) {
        self.tried.lock().expect("no holder of this lock panics").clear();
    }
}

/// A plugin on its way into force.
struct Loading<'a> {
    builder: &'a Builder,
    name: &'a str,
    settings: &'a Settings,
    terms: Terms<'a>,
    origins: Arc<Origins>,
    known: Option<&'a Loaded>,
}

impl Loading<'_> {
    /// Has it serve all requests.
    fn alone(self, code: Arc<Code>, chosen: Chosen<'_>) -> Result<Loaded, PluginError> {
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
    fn beside(
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
        let (had, has) = (serving.plugin.code.hooks(), code.hooks());
        if had.are_for_routes() && !has.are_for_routes() {
            return Err(PluginError::LacksHook("`on-request`, `on-response` or `on-complete`"));
        }
        if had.balance && (!has.balance || code.waits()) {
            return Err(PluginError::LacksHook("`pick`, which must not wait"));
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
            test(name, code, origin, &settings.table, terms.config, terms.budget.until(), passed)
        })
    }

    /// What served before the process started, where another version is now to be tried beside it.
    fn last_served(&self, chosen: &Chosen<'_>, config: &Config) -> Option<Cow<'static, Loaded>> {
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

/// Whether a version is to be tried beside the one that serves: it is another, there is something to compare, and it was not
/// found to be as good already.
fn is_to_be_tried(
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

impl Loaded {
    /// Whether the same serves as before, and the same is tried beside it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let tried = |loaded: &Self| loaded.candidate.as_ref().map(|candidate| Arc::as_ptr(&candidate.plugin));
        Arc::ptr_eq(&self.plugin, &other.plugin) && tried(self) == tried(other)
    }

    /// Says what is new of it since `before`, now that it is in force, and what it may take.
    pub(super) fn announce(&self, before: Option<&Self>, builder: &Builder) {
        let plugin = &*self.plugin.name;
        if before.is_none_or(|before| !Arc::ptr_eq(&before.plugin, &self.plugin)) {
            builder.loads.note(plugin, Stage::InForce);
            let (takes, limits) = (self.plugin.code.takes(), &self.plugin.limits);
            let instances = self.plugin.most_instances(builder.warm);
            let memory = limits
                .memory_in_all
                .unwrap_or_else(|| ByteSize::bytes(limits.memory.as_usize().saturating_mul(instances)));
            tracing::info!(
                plugin,
                digest = %self.plugin.code.digest(),
                tests = self.tested.map_or(0, |tested| tested.cases),
                instances,
                reserved = self.plugin.reserved(),
                memories = takes.memories,
                tables = takes.tables,
                memory_bytes = memory.get(),
                "plugin loaded"
            );
        }
        let was_tried = |candidate: &Candidate| {
            let before = before.and_then(|before| before.candidate.as_ref());
            before.is_some_and(|before| Arc::ptr_eq(&before.comparison, &candidate.comparison))
        };
        if let Some(candidate) = self.candidate.as_ref().filter(|candidate| !was_tried(candidate)) {
            let (digest, share, time) = (candidate.digest(), candidate.share(), candidate.rule.time.get());
            tracing::info!(plugin, %digest, share, ?time, "new version tried beside the one in force");
        }
    }

    /// Between two ticks, if it is to tick.
    pub fn tick(&self) -> Option<Duration> {
        self.settings.table.tick.as_ref().map(|tick| tick.get_ref().get())
    }

    /// What is written of it, wherever that stands.
    pub(super) fn table(&self) -> &config::Plugin {
        &self.settings.table
    }

    /// What it has to be called for, whichever version decides; only the one in force is told of requests that have ended.
    pub fn hooks(&self) -> Hooks {
        let (in_force, candidate) = (self.plugin.code.hooks(), self.candidate.as_ref());
        let candidate = candidate.map_or(in_force, |candidate| candidate.plugin.code.hooks());
        Hooks {
            request: in_force.request || candidate.request,
            response: in_force.response || candidate.response,
            ..in_force
        }
    }

    /// Where that stands.
    pub(super) fn place(&self) -> String {
        self.settings.place(&self.plugin.name)
    }

    /// Whether its settings are in a file beside the plugin's.
    pub(super) fn is_beside(&self) -> bool {
        self.settings.is_beside
    }

    /// Whether it is on routes that do not name it.
    pub fn is_on_all_routes(&self) -> bool {
        self.settings.table.routes.is_some()
    }
}

impl PluginError {
    fn stage(&self) -> Stage {
        match self {
            Self::Settings(_)
            | Self::NamedAsFile(_)
            | Self::TwoTables { .. }
            | Self::NothingOnRoutes
            | Self::Secret(_)
            | Self::Origin(_) => Stage::Settings,
            Self::Missing(_) | Self::Read { .. } | Self::TooLarge { .. } => Stage::File,
            Self::Untrusted { .. } => Stage::Trust,
            Self::TakenBack(_) | Self::Kept { .. } => Stage::TakenBack,
            Self::Load { .. } | Self::LacksHook(_) | Self::Asks(_) | Self::NothingToShow | Self::Later => {
                Stage::Component
            }
            Self::Yields(_) => Stage::Settings,
            Self::NotGranted { .. } => Stage::Grants,
            Self::Start(_) | Self::NoTime(_) => Stage::Configure,
            Self::Tests(_) | Self::Fails(_) => Stage::Tests,
            Self::NotAsGood => Stage::Canary,
        }
    }

    /// Where in the configuration it is, if that is not where the plugin is named.
    fn place(&self) -> Option<Range<usize>> {
        match self {
            Self::Secret(error) => Some(error.place.clone()),
            Self::Origin(problem) => problem.span.clone(),
            Self::Missing(_)
            | Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::Untrusted { .. }
            | Self::Settings(_)
            | Self::NamedAsFile(_)
            | Self::TwoTables { .. }
            | Self::NothingOnRoutes
            | Self::TakenBack(_)
            | Self::Kept { .. }
            | Self::Load { .. }
            | Self::NotGranted { .. }
            | Self::Start(_)
            | Self::NoTime(_)
            | Self::Tests(_)
            | Self::Fails(_)
            | Self::NotAsGood
            | Self::Asks(_)
            | Self::Yields(_)
            | Self::NothingToShow
            | Self::LacksHook(_)
            | Self::Later => None,
        }
    }
}

/// A component gets what its table grants, and one that asks for more is not run. `place` is where the table stands.
pub(super) fn check_grants(code: &Code, grants: &config::Grants, place: &str) -> Result<(), PluginError> {
    let missing: Vec<_> = code.imports().iter().filter(|capability| !capability.is_in(grants)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let interfaces = missing.iter().map(|capability| format!("`tollgate:policy/{}`", capability.interface()));
    Err(PluginError::NotGranted {
        interfaces: interfaces.collect::<Vec<_>>().join(" and "),
        grants: missing.iter().map(|capability| capability.grant()).collect::<Vec<_>>().join(", "),
        place: place.to_owned(),
    })
}

/// Where the settings of a plugin stand, or are to.
fn place_of_settings(name: &str, is_beside: bool) -> String {
    match is_beside {
        true => format!("in {name}.toml, beside the plugin"),
        false => format!("under [plugins.{name}]"),
    }
}

impl Settings {
    fn place(&self, name: &str) -> String {
        place_of_settings(name, self.is_beside)
    }
}

/// Tells of what an operator may not have meant.
fn warn_of(name: &str, code: &Code, table: &config::Plugin) {
    let is_unused =
        |capability: &Capability| capability.is_in(&table.grants) && !code.imports().contains(capability);
    for capability in Capability::ALL.into_iter().filter(is_unused) {
        let interface = capability.interface();
        tracing::warn!(
            plugin = name,
            interface,
            "granted, and the plugin does not import it: leave it out of `grants`"
        );
    }
    match (code.exports(Hook::OnTick), &table.tick) {
        (true, None) => {
            tracing::warn!(plugin = name, "has `on-tick`, which is not called: write `tick = \"10s\"`");
        }
        (false, Some(_)) => {
            tracing::warn!(plugin = name, "is to tick, and has no `on-tick`: leave `tick` out");
        }
        (true, Some(_)) | (false, None) => {}
    }
    if table.fail == config::Failure::Open {
        tracing::warn!(plugin = name, "fails open: when it cannot decide, requests pass without it");
    }
}

/// The plugins that the configuration names, and where it does so first.
fn needed_plugins(config: &Config) -> BTreeMap<&str, Range<usize>> {
    let tables = config.plugins.keys();
    let routes = config.routes.iter().flat_map(|route| &route.get_ref().plugins);
    let balancers = config.upstreams.values().flat_map(|upstream| &upstream.balance);
    let mut needed = BTreeMap::new();
    for name in tables.chain(routes).chain(balancers) {
        needed.entry(name.get_ref().as_str()).or_insert_with(|| name.span());
    }
    needed
}

//! What is an operator told about a plugin that is not loaded, or that is hardly meant as it is?

use std::{ops::Range, path::Path};

use toml::Spanned;

use super::{
    error::PluginError,
    files::{dropped_files, stem},
    progress::Stage,
};
use crate::{
    config::{self, ProblemKind},
    plugin::{CallError, Capability, Code, Hook, LoadError, StartError, TrustError, shipped},
};

/// What an error is about, for whoever says what to do.
pub(super) struct Subject<'a> {
    /// The name of the plugin.
    pub name: &'a str,
    /// Where its component was to come from.
    pub file: &'a str,
    /// Where its settings stand.
    pub settings: &'a str,
    pub plugin_dir: &'a Path,
}

/// What follows from an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// Which stage of loading has failed.
    pub stage: Stage,
    /// Where in the configuration it is, if that is not where the plugin is named.
    pub span: Option<Range<usize>>,
    /// What to write or to do, where the error does not say it.
    pub help: Option<String>,
}

impl Diagnosis {
    /// The error says it all.
    fn of(stage: Stage) -> Self {
        Self { stage, span: None, help: None }
    }

    fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The one table of what follows from each error.
    pub fn new(error: &PluginError, subject: &Subject<'_>) -> Self {
        type Row = Diagnosis;
        let Subject { name, file, settings, plugin_dir } = *subject;
        match error {
            PluginError::Settings { kind: ProblemKind::UnknownKey(key), .. } if key == "plugins" => {
                Row::of(Stage::Settings).with_help(format!(
                    "in that file the keys stand by themselves, without [plugins.{name}] above them"
                ))
            }
            PluginError::Settings { .. } | PluginError::NamedAsFile(_) | PluginError::TwoTables { .. } => {
                Row::of(Stage::Settings)
            }
            PluginError::NothingOnRoutes => Row::of(Stage::Settings).with_help(format!(
                "leave `routes` out; a plugin that balances is named by an upstream: balance = \"{name}\""
            )),
            PluginError::Secret(error) => {
                Row { span: Some(error.place.clone()), ..Row::of(Stage::Settings).with_help(error.help()) }
            }
            PluginError::Origin(problem) => Row { span: problem.span.clone(), ..Row::of(Stage::Settings) },
            PluginError::Yields(_) => Row::of(Stage::Settings),
            PluginError::Missing(_) => Row::of(Stage::File).with_help(missing(file, plugin_dir)),
            PluginError::Read { .. } | PluginError::TooLarge { .. } => Row::of(Stage::File),
            PluginError::Untrusted { source, .. } => match source {
                TrustError::OtherDigest(digest) => Row::of(Stage::Trust)
                    .with_help(format!("if this is the file that you mean, write sha256 = \"{digest}\"")),
                TrustError::NotSigned => Row::of(Stage::Trust).with_help(
                    "sign this very file with that key, or name whoever has signed it: `public-key` of the plugin, or \
                     `plugin-keys`",
                ),
                TrustError::Unsigned | TrustError::NoSignature => Row::of(Stage::Trust),
            },
            PluginError::TakenBack(_) | PluginError::Kept { .. } => Row::of(Stage::TakenBack),
            PluginError::Load { source, .. } => {
                Row { help: remedy_of_load(source).map(Into::into), ..Row::of(Stage::Component) }
            }
            PluginError::LacksHook(_) | PluginError::Later => Row::of(Stage::Component),
            PluginError::Asks(_) | PluginError::NothingToShow => Row::of(Stage::Component)
                .with_help(format!("try it with a share of the requests: `canary` {settings}")),
            PluginError::NotGranted { .. } => Row::of(Stage::Grants),
            PluginError::Start(StartError::Begin(error) | StartError::Configure(error)) => {
                let help = too_little(error).map(|(key, value)| {
                    format!("if that is what it needs, raise limits = {{ {key} = \"{value}\" }} {settings}")
                });
                Row { help, ..Row::of(Stage::Configure) }
            }
            PluginError::Start(
                StartError::Refused(_) | StartError::Instantiate(_) | StartError::NoRoom(_) | StartError::NoTime,
            )
            | PluginError::NoTime(_) => Row::of(Stage::Configure),
            PluginError::Tests(_) => Row::of(Stage::Tests),
            PluginError::Fails(_) => {
                let path = plugin_dir.join(format!("{}.wasm", stem(file)));
                Row::of(Stage::Tests).with_help(format!("`tollgate plugin test {}` tells all of it", path.display()))
            }
            PluginError::NotAsGood => Row::of(Stage::Canary),
        }
    }
}

/// Which limit a call has met, and a larger one.
fn too_little(error: &CallError) -> Option<(&'static str, &'static str)> {
    match error {
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
    }
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

/// What to do about a file that is not there.
pub(super) fn missing(file: &str, folder: &Path) -> String {
    if file.contains('/') {
        let name = Path::new(file).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        return format!("files are named as they are in `plugin-dir`: \"{name}\"");
    }
    // Without the folder there are still the shipped ones to be meant.
    let dropped = dropped_files(folder, ".wasm");
    if dropped.iter().any(|name| name == stem(file)) {
        return "it is a link that leads nowhere: put the component where it leads, or into its place".into();
    }
    let shipped = shipped::SHIPPED.iter().map(|(name, _)| *name);
    let likeness = |name: &&str| strsim::jaro_winkler(stem(file), name);
    let near = dropped.iter().map(String::as_str).chain(shipped);
    let near = near.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.8);
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

/// A hint at what was meant.
pub(super) fn nearest<'a>(
    written: &Spanned<String>,
    known: impl Iterator<Item = &'a str>,
    table: &str,
) -> String {
    let written = written.get_ref();
    let near = known
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("define it in a table of its own: [{table}.<name>]"),
    }
}

/// Tells of what an operator may not have meant.
pub(super) fn warn_of(name: &str, code: &Code, table: &config::Plugin) {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plugin::Digest;

    #[test]
    fn a_file_that_is_not_there_is_likely_one_of_those_that_are() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("block-agents.wasm"), "").unwrap();
        let (there, nowhere) = (folder.path(), folder.path().join("nowhere"));
        for (file, folder, told) in [
            ("block-agent", there, "did you mean `block-agents`?"),
            ("api-kay", there, "did you mean `api-key`?"),
            ("api-kay", &nowhere, "did you mean `api-key`? there is no folder "),
            ("zzz", there, "put it into "),
            ("zzz", &nowhere, "there is no folder "),
            ("some/where/a.wasm", there, "files are named as they are in `plugin-dir`: \"a.wasm\""),
        ] {
            let help = missing(file, folder);
            assert!(help.starts_with(told), "{file}: {help}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_likely_one_that_is_alike() {
        let help = |name: &str| {
            nearest(&Spanned::new(0..1, name.to_owned()), ["app", "backend"].into_iter(), "upstreams")
        };
        assert_eq!(help("backends"), "did you mean `backend`?");
        assert_eq!(help("other"), "define it in a table of its own: [upstreams.<name>]");
    }

    #[test]
    fn a_remedy_names_the_plugin_and_the_place_of_its_settings() {
        let digest = Digest::of(b"");
        let untrusted = |source| PluginError::Untrusted { path: "a.wasm".to_owned(), source };
        let load =
            |source| PluginError::Load { path: "a.wasm".to_owned(), source: std::sync::Arc::new(source) };
        let limit = |error| PluginError::Start(StartError::Begin(error));
        let diagnosis = |error: &PluginError| {
            let plugin_dir = Path::new("plugins");
            Diagnosis::new(
                error,
                &Subject { name: "a", file: "b", settings: "under [plugins.a]", plugin_dir },
            )
        };
        for (error, told) in [
            (untrusted(TrustError::OtherDigest(digest)), format!("write sha256 = \"{digest}\"")),
            (untrusted(TrustError::NotSigned), "`plugin-keys`".to_owned()),
            (load(LoadError::NoLifecycle), "`tollgate plugin new`".to_owned()),
            (limit(CallError::Memory(1)), "limits = { memory = \"64MiB\" } under [plugins.a]".to_owned()),
            (
                PluginError::Settings {
                    message: String::new(),
                    kind: ProblemKind::UnknownKey("plugins".to_owned()),
                },
                "without [plugins.a] above them".to_owned(),
            ),
            (PluginError::NothingOnRoutes, "balance = \"a\"".to_owned()),
            (PluginError::NothingToShow, "`canary` under [plugins.a]".to_owned()),
            (PluginError::Fails(String::new()), "`tollgate plugin test plugins/b.wasm`".to_owned()),
        ] {
            let help = diagnosis(&error).help.unwrap_or_default();
            assert!(help.contains(&told), "{error}: {help}");
        }
        for error in [untrusted(TrustError::Unsigned), load(LoadError::CoreModule), limit(CallError::Broken)]
        {
            assert_eq!(diagnosis(&error).help, None, "{error} says it");
        }
    }
}

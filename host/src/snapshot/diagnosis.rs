//! What is an operator told about a plugin that is not loaded, or that is hardly meant as it is?

use std::path::Path;

use toml::Spanned;

use super::{
    error::PluginError,
    files::{dropped_files, stem},
};
use crate::{
    config::{self, ProblemKind},
    plugin::{CallError, Capability, Code, Hook, LoadError, StartError, TrustError, shipped},
};

/// What to write or to do, where the error does not say it. `file` is where the component was to come from, `place`
/// where its settings stand, `plugin_dir` the folder of plugins.
pub(super) fn remedy(
    error: &PluginError,
    name: &str,
    file: &str,
    place: &str,
    plugin_dir: &Path,
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
        PluginError::Missing(_) => Some(missing(file, plugin_dir)),
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
            let path = plugin_dir.join(format!("{}.wasm", stem(file)));
            Some(format!("`tollgate plugin test {}` tells all of it", path.display()))
        }
        PluginError::Secret(error) => Some(error.help().into()),
        PluginError::NothingOnRoutes => Some(format!(
            "leave `routes` out; a plugin that balances is named by an upstream: balance = \"{name}\""
        )),
        PluginError::Asks(_) | PluginError::NothingToShow => {
            Some(format!("try it with a share of the requests: `canary` {place}"))
        }
        PluginError::Settings { kind: ProblemKind::UnknownKey(key), .. } if key == "plugins" => {
            Some(format!("in that file the keys stand by themselves, without [plugins.{name}] above them"))
        }
        PluginError::Settings { .. }
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
        for (error, told) in [
            (untrusted(TrustError::OtherDigest(digest)), format!("write sha256 = \"{digest}\"")),
            (untrusted(TrustError::NotSigned), "`plugin-keys`".to_owned()),
            (load(LoadError::NoLifecycle), "`tollgate plugin new`".to_owned()),
            (limit(CallError::Memory(1)), "limits = { memory = \"64MiB\" } under [plugins.a]".to_owned()),
            (
                PluginError::Settings {
                    told: String::new(),
                    kind: ProblemKind::UnknownKey("plugins".to_owned()),
                },
                "without [plugins.a] above them".to_owned(),
            ),
            (PluginError::NothingOnRoutes, "balance = \"a\"".to_owned()),
            (PluginError::NothingToShow, "`canary` under [plugins.a]".to_owned()),
            (PluginError::Fails(String::new()), "`tollgate plugin test plugins/b.wasm`".to_owned()),
        ] {
            let help =
                remedy(&error, "a", "b", "under [plugins.a]", Path::new("plugins")).unwrap_or_default();
            assert!(help.contains(&told), "{error}: {help}");
        }
        for error in [untrusted(TrustError::Unsigned), load(LoadError::CoreModule), limit(CallError::Broken)]
        {
            let help = remedy(&error, "a", "b", "under [plugins.a]", Path::new("plugins"));
            assert_eq!(help, None, "{error} says it");
        }
    }
}

//! Which plugins are there, and what is written of each?

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::Path,
};

use super::{
    diagnosis::missing,
    error::PluginError,
    files::{beside, dropped_files, stem},
    loaded::{Loaded, Settings},
};
use crate::{
    config::{self, Config},
    plugin::shipped,
};

/// The names of all plugins, each with its settings.
pub(super) fn settings(
    config: &Config,
    folder: &Path,
    needed: &BTreeMap<&str, Range<usize>>,
    previous: &[Loaded],
) -> BTreeMap<String, Result<Settings, PluginError>> {
    let dropped = dropped_files(folder, ".wasm");
    let tables: HashMap<&str, &config::Plugin> =
        config.plugins.iter().map(|(name, table)| (name.get_ref().as_str(), table)).collect();
    let mut all = BTreeMap::new();
    for name in dropped_files(folder, ".toml") {
        let path = folder.join(format!("{name}.toml"));
        let was_beside =
            || previous.iter().any(|known| *known.plugin.name == *name && known.settings.is_beside);
        if !(dropped.contains(&name) || shipped::find(&name).is_some() || was_beside()) {
            // Other programs have files of this kind, too, and the tests of plugins are some.
            if beside(&path, config).is_ok_and(|table| table.routes.is_some()) {
                let help = missing(&name, folder);
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
            None if name.ends_with(".wasm") => Err(PluginError::NamedAsFile(stem(&name).to_owned())),
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

/// The plugins that the configuration names, and where it does so first.
pub(super) fn needed_plugins(config: &Config) -> BTreeMap<&str, Range<usize>> {
    let tables = config.plugins.keys();
    let routes = config.routes.iter().flat_map(|route| &route.get_ref().plugins);
    let balancers = config.upstreams.values().flat_map(|upstream| &upstream.balance);
    let mut needed = BTreeMap::new();
    for name in tables.chain(routes).chain(balancers) {
        needed.entry(name.get_ref().as_str()).or_insert_with(|| name.span());
    }
    needed
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(config: &str, files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config: Config = toml::from_str(config).unwrap();
        let all = settings(&config, folder.path(), &needed_plugins(&config), &[]);
        let all = all.into_iter().map(|(name, settings)| match settings {
            Ok(Settings { is_beside: true, .. }) => format!("{name} beside"),
            Ok(Settings { is_beside: false, .. }) => name,
            Err(error) => format!("{name}: {error}"),
        });
        all.collect()
    }

    const ROUTE: &str = "[[routes]]\nupstream = \"app\"\n";

    #[test]
    fn plugins_are_those_that_are_named_and_those_in_the_folder() {
        let config = format!("[plugins.a]\n{ROUTE}plugins = [\"b\"]\n");
        assert_eq!(found(&config, &[("c.wasm", ""), (".d.wasm", ""), ("e.txt", "")]), ["a", "b", "c"]);
    }

    #[test]
    fn settings_stand_beside_a_plugin_or_in_the_configuration() {
        assert_eq!(found("", &[("a.wasm", ""), ("a.toml", "fail = \"open\"")]), ["a beside"]);
        assert_eq!(found("", &[("api-key.toml", "")]), ["api-key beside"], "a shipped one needs no file");
        assert_eq!(found("", &[("other.toml", "")]), [""; 0], "settings of no plugin");
        let two = found("[plugins.a]\n", &[("a.wasm", ""), ("a.toml", "")]);
        assert!(two[0].starts_with("a: there is the table [plugins.a], and "), "{two:?}");
    }

    #[test]
    fn a_file_of_another_name_is_one_plugin() {
        assert_eq!(found("[plugins.a]\nfile = \"b.wasm\"\n", &[("b.wasm", "")]), ["a"]);
        let named = found(&format!("{ROUTE}plugins = [\"b.wasm\"]\n"), &[]);
        assert!(named[0].ends_with("write `b`"), "{named:?}");
    }
}

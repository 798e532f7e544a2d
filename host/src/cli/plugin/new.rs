//! `tollgate plugin new`

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArguments {
    /// What it is to be written in
    #[arg(value_enum, value_name = "LANGUAGE")]
    language: Language,
    /// What it is to be called: letters, digits and `-`
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to put it; a folder of its name here if absent
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    #[value(alias = "js")]
    Javascript,
}

/// A file of a project: where it is, and what is in it, with [`NAME`] and [`CRATE`] to be filled in.
type Template = (&'static str, &'static str);

/// Stands for the name of the plugin, in paths and texts.
const NAME: &str = "{{name}}";

/// Stands for the name as an identifier.
const CRATE: &str = "{{identifier}}";

/// In every project: what the plugin has to do with the contract, and the contract itself.
const CONTRACT: [Template; 2] = [
    ("wit/world.wit", include_str!("templates/world.wit")),
    ("wit/deps/tollgate/policy.wit", include_str!("../../../../wit/policy.wit")),
];

/// The tests, the same in every language, since the policy is.
const TESTS: &str = include_str!("templates/test.toml");

const RUST: [Template; 5] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.template")),
    (".cargo/config.toml", include_str!("templates/rust/config.toml")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs")),
    ("README.md", include_str!("templates/rust/README.md")),
    (".gitignore", "/target\n"),
];

const JAVASCRIPT: [Template; 4] = [
    ("package.json", include_str!("templates/javascript/package.json")),
    ("plugin.js", include_str!("templates/javascript/plugin.js")),
    ("README.md", include_str!("templates/javascript/README.md")),
    (".gitignore", "/node_modules\n/*.wasm\n"),
];

impl Language {
    fn templates(self) -> &'static [Template] {
        match self {
            Self::Rust => &RUST,
            Self::Javascript => &JAVASCRIPT,
        }
    }

    /// What the tests say of where the component comes from; nothing where it goes without saying.
    fn build(self) -> &'static str {
        match self {
            Self::Rust => "",
            Self::Javascript => "build = \"npm install --no-audit --no-fund && npm run build\"\n",
        }
    }
}

pub(super) async fn run(arguments: NewArguments) -> anyhow::Result<ExitCode> {
    let NewArguments { language, name, dir } = arguments;
    if !is_name(&name) {
        eprintln!("error: `{name}` cannot name a plugin: use small letters, digits and `-`, a letter first");
        return Ok(ExitCode::from(2));
    }
    let folder = dir.unwrap_or_else(|| PathBuf::from(&name));
    let is_empty = fs::read_dir(&folder).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty || folder.is_file() {
        eprintln!("error: {} is there already: name another folder with --dir", folder.display());
        return Ok(ExitCode::from(2));
    }
    let tests = format!("{}{TESTS}", language.build());
    let tests = [("{{name}}.test.toml", tests.as_str())];
    for (path, text) in CONTRACT.iter().chain(language.templates()).copied().chain(tests) {
        let path = folder.join(filled(path, &name));
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, filled(text, &name)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!(
        "{name} is in {}. What to do next:\n\n  cd {}\n  tollgate plugin test\n",
        folder.display(),
        folder.display(),
    );
    Ok(ExitCode::SUCCESS)
}

fn filled(text: &str, name: &str) -> String {
    text.replace(NAME, name).replace(CRATE, &name.replace('-', "_"))
}

/// As a table of the configuration, a file, a package of every language and an interface of WIT can be called.
fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.split('-').all(|word| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_everywhere() {
        for name in ["a", "api-key", "a1-b2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-", "a-", "A", "1a", "a-1", "a_b", "a/b", "..", "ä", "a\n"] {
            assert!(!is_name(name), "{name}");
        }
    }
}

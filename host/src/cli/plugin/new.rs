//! `tollgate plugin new`

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::cli::output::say;

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
    C,
    #[value(alias = "c++")]
    Cpp,
    Zig,
    Go,
    #[value(alias = "js")]
    Javascript,
    #[value(alias = "ts")]
    Typescript,
    Python,
    #[value(alias = "as")]
    Assemblyscript,
}

/// A file of a project: where it is, and what is in it, with [`NAME`], [`CRATE`] and [`COMPONENT`] to be filled in.
type Template = (&'static str, &'static str);

/// Stands for the name of the plugin, in paths and texts.
const NAME: &str = "{{name}}";

/// Stands for the name as an identifier.
const CRATE: &str = "{{identifier}}";

/// What the component is called in the examples, which projects begin with.
const COMPONENT: &str = "policy.wasm";

/// In every project: what the plugin has to do with the contract, and the contract itself.
const CONTRACT: [Template; 2] = [
    ("wit/world.wit", include_str!("templates/world.wit")),
    ("wit/deps/tollgate/policy.wit", include_str!("../../../../wit/policy.wit")),
];

/// A file of an example that is the project's as well.
macro_rules! example {
    ($language:literal, $path:literal) => {
        ($path, include_str!(concat!("../../../../examples/languages/", $language, "/", $path)))
    };
}

/// The tests, the same in every language, since the policy is.
const TESTS: &str = include_str!("../../../../examples/languages/policy.test.toml");

/// What the tests begin with among the examples, and in a project.
const OF_EXAMPLES: &str = "# What the policy promises, in whatever language it is written: `build` puts this file beside each component.\n";
const TESTS_HEAD: &str =
    "# What {{name}} promises: `tollgate plugin test` goes through these cases in the real sandbox.\n";

/// What the examples call themselves on responses.
const ITSELF: &str = "\"api-key\"";

const README: &str = include_str!("templates/README.md");

impl Language {
    /// The source, and what it is built with.
    fn files(self) -> &'static [Template] {
        match self {
            Self::Rust => &[
                ("Cargo.toml", include_str!("templates/rust/Cargo.toml.template")),
                example!("rust", "src/lib.rs"),
            ],
            Self::C => &[example!("c", "Makefile"), example!("c", "policy.c")],
            Self::Cpp => &[example!("cpp", "Makefile"), example!("cpp", "policy.cpp")],
            Self::Zig => &[example!("zig", "Makefile"), example!("zig", "policy.zig")],
            Self::Go => &[
                example!("go", "Makefile"),
                example!("go", "policy/policy.go"),
                example!("go", "policy/memory.go"),
                example!("go", "export_tollgate_policy_lifecycle/export.go"),
                example!("go", "export_tollgate_policy_request_hook/export.go"),
                example!("go", "export_tollgate_policy_response_hook/export.go"),
            ],
            Self::Javascript => {
                &[example!("javascript", "package.json"), example!("javascript", "policy.js")]
            }
            Self::Typescript => &[
                example!("typescript", "package.json"),
                example!("typescript", "tsconfig.json"),
                example!("typescript", "tollgate.d.ts"),
                example!("typescript", "policy.ts"),
            ],
            Self::Python => &[example!("python", "Makefile"), example!("python", "policy.py")],
            Self::Assemblyscript => &[
                example!("assemblyscript", "package.json"),
                example!("assemblyscript", "names.mjs"),
                example!("assemblyscript", "contract.ts"),
                example!("assemblyscript", "reader.ts"),
                example!("assemblyscript", "policy.ts"),
            ],
        }
    }

    /// What has to be there to build it.
    fn tools(self) -> &'static str {
        match self {
            Self::Rust => include_str!("templates/tools/rust.md"),
            Self::C | Self::Cpp | Self::Zig => include_str!("templates/tools/zig.md"),
            Self::Go => include_str!("templates/tools/go.md"),
            Self::Javascript | Self::Typescript => include_str!("templates/tools/node.md"),
            Self::Python => include_str!("templates/tools/python.md"),
            Self::Assemblyscript => include_str!("templates/tools/assemblyscript.md"),
        }
    }

    /// The command that builds it.
    fn build(self) -> &'static str {
        match self {
            Self::Rust => "cargo build --release --target wasm32-wasip2",
            Self::C | Self::Cpp | Self::Zig | Self::Go | Self::Python => "make",
            Self::Javascript | Self::Typescript | Self::Assemblyscript => {
                "npm install --no-audit --no-fund && npm run build"
            }
        }
    }

    /// What stands before the cases of the tests: how the component is built, where that does not go without saying.
    fn head(self) -> String {
        let build = match self {
            Self::Rust => return String::new(),
            _ => format!("component = \"{COMPONENT}\"\nbuild = \"{}\"\n", self.build()),
        };
        match self {
            Self::Go => build + include_str!("../../../../examples/languages/go/head.toml"),
            Self::Python => build + include_str!("../../../../examples/languages/python/head.toml"),
            _ => build,
        }
    }

    /// What is made of the source, and so not kept with it.
    fn made(self) -> &'static str {
        match self {
            Self::Rust => "/target\n",
            Self::C | Self::Cpp | Self::Zig | Self::Go | Self::Python => "/build\n/*.wasm\n",
            Self::Javascript => "/node_modules\n/*.wasm\n",
            Self::Assemblyscript => "/node_modules\n/build\n/*.wasm\n",
            Self::Typescript => "/node_modules\n/policy.js\n/*.wasm\n",
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
    let readme = README.replace("{{tools}}", language.tools()).replace("{{build}}", language.build());
    let tests = format!("{TESTS_HEAD}{}{}", language.head(), TESTS.trim_start_matches(OF_EXAMPLES));
    let own = [
        ("README.md", readme.as_str()),
        ("{{name}}.test.toml", tests.as_str()),
        (".gitignore", language.made()),
    ];
    for (path, text) in CONTRACT.iter().chain(language.files()).copied().chain(own) {
        let path = folder.join(filled(path, &name));
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, filled(text, &name)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say!(
        "{name} is in {}. What to do next:\n\n  cd {}\n  tollgate plugin test\n",
        folder.display(),
        folder.display(),
    );
    Ok(ExitCode::SUCCESS)
}

fn filled(text: &str, name: &str) -> String {
    // What the name has put there is not looked at again: that of `my-policy.wasm` ends like the component's.
    text.replace(COMPONENT, &format!("{NAME}.wasm"))
        .replace(ITSELF, &format!("\"{NAME}\""))
        .replace(CRATE, &name.replace('-', "_"))
        .replace(NAME, name)
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
    fn a_file_has_the_name_of_the_plugin_whatever_that_is() {
        for (name, component) in [("a", "a.wasm"), ("my-policy", "my-policy.wasm"), ("policy", "policy.wasm")]
        {
            assert_eq!(
                filled("cp {{name}}.wasm; make policy.wasm", name),
                format!("cp {component}; make {component}")
            );
        }
        assert_eq!(filled("{{identifier}}.wasm", "my-policy"), "my_policy.wasm");
        assert_eq!(filled("set(\"x-policy\", \"api-key\")", "gate"), "set(\"x-policy\", \"gate\")");
    }

    #[test]
    fn nothing_is_left_in_a_project_of_where_it_comes_from() {
        assert!(TESTS.starts_with(OF_EXAMPLES));
        assert!(!filled(TESTS.trim_start_matches(OF_EXAMPLES), "gate").contains(ITSELF));
    }

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

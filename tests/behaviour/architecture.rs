//! What the source must never be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::{Path, PathBuf},
};

/// The crates of the host, each with the crates below it that it may name. The compiler holds them to it; this list
/// holds their manifests.
const CRATES: [(&str, &[&str]); 6] = [
    ("", &["runtime", "upstream", "cache", "config", "base"]),
    ("runtime", &["config", "base"]),
    ("upstream", &["config", "base"]),
    ("cache", &["config", "base"]),
    ("config", &["base"]),
    ("base", &[]),
];

/// The folder of a crate of the host.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host").join(name)
}

/// The files of the host's crates, each with its path from the `src` of its crate. No two crates have the same module.
fn files() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = BTreeMap::new();
    for (name, _) in CRATES {
        let source = folder(name).join("src");
        let mut paths = Vec::new();
        walk(&source, &mut paths);
        for path in paths {
            let file = path.strip_prefix(&source).expect("it is below").display().to_string();
            if file == "lib.rs" || file == "main.rs" {
                continue;
            }
            let text = fs::read_to_string(&path).expect("it is text");
            assert!(files.insert(file, text).is_none(), "{path:?} has the name of another file");
        }
    }
    files.into_iter().collect()
}

/// The modules in the order of each `lib.rs`, from the highest crate down.
fn modules() -> Vec<String> {
    let text = |name: &str| fs::read_to_string(folder(name).join("src/lib.rs")).expect("the file is there");
    let texts: String = CRATES.iter().map(|(name, _)| text(name)).collect();
    let names = texts.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

#[test]
fn a_crate_depends_only_on_crates_below_it() {
    for (name, below) in CRATES {
        let manifest = fs::read_to_string(folder(name).join("Cargo.toml")).expect("the file is there");
        let own = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("tollgate-")?.strip_suffix(".workspace = true"));
        assert_eq!(BTreeSet::from_iter(own), BTreeSet::from_iter(below.iter().copied()), "{name}");
        let has_runtime = manifest.lines().any(|line| line.starts_with("wasmtime"));
        assert_eq!(has_runtime, name == "runtime", "only the plugin runtime knows wasmtime, not {name}");
    }
}

/// The modules that a file names: `crate::x`, and each `x` of `crate::{x::y, x}`.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (place, _) in text.match_indices("crate::") {
        let rest = &text[place + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut item) = (1, String::new());
        for c in group.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 || (depth == 1 && c == ',') {
                names.insert(word(item.trim()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn a_module_names_only_modules_below_it() {
    let modules = modules();
    assert!(modules.len() > 10, "{modules:?}");
    let place = |name: &str| modules.iter().position(|module| module == name);
    for (file, text) in files() {
        let own = file.split(['/', '.']).next().expect("a path has a beginning");
        let own_place = place(own).unwrap_or_else(|| panic!("{file} belongs to no module of lib.rs"));
        for name in named(&text).iter().filter(|name| *name != own) {
            let named_place =
                place(name).unwrap_or_else(|| panic!("{file} names {name}, which is no module"));
            assert!(named_place > own_place, "{file} names {name}, which stands above {own} in lib.rs");
        }
    }
}

#[test]
fn names_are_found_alone_and_in_groups() {
    let found = named("use crate::a::B; use crate::{b, c::{self, d}, e::F as g};\n crate::h!()");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "e", "h"]);
}

#[test]
fn what_is_generated_from_the_contract_stays_with_the_plugins() {
    for (file, text) in files() {
        // The sample backend and others may use the word in a comment.
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let names_them = code.into_iter().any(|line| line.contains("bindings"));
        assert!(!names_them || file.starts_with("plugin/"), "{file} names the bindings");
    }
}

#[test]
fn every_task_is_one_that_the_end_of_the_process_waits_for() {
    const ALLOWED: [(&str, &str); 4] = [
        ("drain.rs", "it is what spawns"),
        ("server.rs", "a worker's clock and sweep end with the worker, as draining needs them"),
        ("cli/backend.rs", "the sample backend is not the proxy"),
        ("cli/demo.rs", "nor are the three of the demo"),
    ];
    for (file, text) in files() {
        let spawns = ["tokio::spawn(", "spawn_local(", "task::spawn("]
            .iter()
            .any(|call| text.match_indices(call).any(|(place, _)| !text[..place].ends_with("drain.")));
        let is_allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == file);
        assert!(!spawns || is_allowed, "{file} spawns a task by itself");
    }
}

#[test]
fn files_are_read_in_one_place() {
    const ALLOWED: [(&str, &str); 3] = [
        ("file.rs", "it is the place"),
        ("cache/file.rs", "stored responses are opened by `cache/disk.rs`, which has written them"),
        ("cache/disk.rs", "the same"),
    ];
    let reads = ["fs::read(", "fs::read_to_string(", "File::open(", "read(true)"];
    for (file, text) in files() {
        // Tests read what they have written.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let found = reads.iter().find(|read| code.contains(**read));
        let is_allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == file);
        assert!(found.is_none() || is_allowed, "{file} reads a file by itself: {found:?}; use crate::file");
    }
}

/// A file of the host as the modules that it may name others by: `plugin/mod.rs` is `plugin`, `plugin/slot.rs` is
/// `plugin::slot`.
type Module = Vec<String>;

/// A path of a `use`, and what it is called where it is used.
struct Use {
    is_public: bool,
    path: Vec<String>,
    name: String,
}

/// What a file names, without its tests.
struct Names {
    uses: Vec<Use>,
    /// Paths beside those of `use`.
    paths: Vec<Vec<String>>,
}

impl Names {
    fn of(text: &str) -> Self {
        let text = without_comments_and_tests(text);
        let (mut uses, mut rest, mut left) = (Vec::new(), String::new(), text.as_str());
        while let Some(place) = next_use(left) {
            let is_public =
                left[..place].trim_end().rsplit(['\n', ';']).next().unwrap_or_default().contains("pub");
            let end = left[place..].find(';').map_or(left.len(), |end| place + end);
            rest.push_str(&left[..place]);
            for (path, name) in leaves(&left[place + "use ".len()..end]) {
                uses.push(Use { is_public, path, name });
            }
            left = &left[(end + 1).min(left.len())..];
        }
        rest.push_str(left);
        Self { uses, paths: paths(&rest) }
    }
}

/// Code without comments and modules of tests.
fn without_comments_and_tests(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Where the next `use` begins a line.
fn next_use(text: &str) -> Option<usize> {
    let begins = |place: usize| {
        let line = text[..place].rsplit('\n').next().unwrap_or_default().trim_start();
        line.is_empty() || (line.starts_with("pub") && line.ends_with(' ') && !line.contains([';', '=']))
    };
    text.match_indices("use ").map(|(place, _)| place).find(|place| begins(*place))
}

/// Each path in what follows `use`, with its name: `a::{b, c as d}` are `a::b` and `a::c`, which is called `d`.
fn leaves(text: &str) -> Vec<(Vec<String>, String)> {
    fn walk(prefix: &[String], text: &str, found: &mut Vec<(Vec<String>, String)>) {
        let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
        for c in text.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if c == ',' && depth == 0 { parts.push(std::mem::take(&mut part)) } else { part.push(c) }
        }
        parts.push(part);
        for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
            let segments = |text: &str| -> Vec<String> {
                let segments = text.split("::").map(str::trim).filter(|segment| !segment.is_empty());
                prefix.iter().cloned().chain(segments.map(str::to_owned)).collect()
            };
            if let Some((before, group)) = part.split_once('{') {
                walk(&segments(before), group.trim_end().trim_end_matches('}'), found);
                continue;
            }
            let (path, alias) =
                part.split_once(" as ").map_or((part, None), |(path, name)| (path, Some(name)));
            let mut path = segments(path);
            path.pop_if(|last| last == "self" && prefix.last().is_some());
            let name = alias.map(|name| name.trim().to_owned()).or_else(|| path.last().cloned());
            found.extend(name.map(|name| (path, name)));
        }
    }
    let mut found = Vec::new();
    walk(&[], text, &mut found);
    found
}

/// The paths of at least two names in code, without those that say who may see an item: that is no need.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut code = code.split("pub(in ");
    let first = code.next().unwrap_or_default();
    let rest = code.map(|after| after.split_once(')').map_or("", |(_, rest)| rest));
    let code: String = iter::once(first).chain(rest).collect();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches(':'));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with(':'));
    paths.map(|path| path.split("::").map(str::to_owned).collect()).collect()
}

/// Which file names which, for all files of the host. A path that leads through a re-export leads to the file that
/// defines the item.
struct Graph {
    names: BTreeMap<Module, Names>,
}

impl Graph {
    fn of(files: &[(String, String)]) -> Self {
        let module = |file: &str| -> Module {
            let mut module: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            module.pop_if(|last| last == "mod");
            module
        };
        Self { names: files.iter().map(|(file, text)| (module(file), Names::of(text))).collect() }
    }

    /// A path as it is from the root of the crate, if it leads into the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module.as_slice(), &path[1..]].concat()),
            "super" => {
                let levels = path.iter().take_while(|name| *name == "super").count();
                let above = &module[..module.len().checked_sub(levels)?];
                Some([above, &path[levels..]].concat())
            }
            name => {
                let child = [module.as_slice(), &[name.to_owned()]].concat();
                self.names.contains_key(&child).then(|| [module.as_slice(), path].concat())
            }
        }
    }

    /// The file that defines what a path from the root leads to.
    fn definition(&self, path: &[String], depth: usize) -> Option<Module> {
        let lengths = (1..=path.len()).rev();
        let module =
            lengths.map(|length| path[..length].to_vec()).find(|module| self.names.contains_key(module))?;
        let Some(name) = path.get(module.len()).filter(|_| depth < 16) else { return Some(module) };
        let used = self.names[&module].uses.iter().find(|used| used.name == *name);
        let led = used.and_then(|used| self.absolute(&module, &used.path));
        let led = led.and_then(|led| {
            self.definition(&[led.as_slice(), &path[module.len() + 1..]].concat(), depth + 1)
        });
        Some(led.unwrap_or(module))
    }

    /// The files that a file needs. What it only re-exports, it does not need.
    fn needed(&self, module: &Module) -> BTreeSet<Module> {
        let names = &self.names[module];
        let uses = names.uses.iter().filter(|used| !used.is_public);
        let used = uses.filter_map(|used| self.absolute(module, &used.path));
        let by_paths = names.paths.iter().filter_map(|path| {
            let of_module = |used: &&Use| used.name == path[0];
            let led = names.uses.iter().find(of_module).and_then(|used| self.absolute(module, &used.path));
            match led.filter(|led| self.names.contains_key(led)) {
                Some(led) => Some([led.as_slice(), &path[1..]].concat()),
                None => self.absolute(module, path),
            }
        });
        let needed = used.chain(by_paths).filter_map(|path| self.definition(&path, 0));
        needed.filter(|needed| needed != module).collect()
    }

    /// The files of each room that need each other, by the room: those from which a way leads back.
    fn circles(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut reached: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
        for module in self.names.keys() {
            let inside = self.needed(module).into_iter().filter(|needed| needed[0] == module[0]);
            reached.insert(module, inside.collect());
        }
        loop {
            let farther = |found: &BTreeSet<Module>| -> BTreeSet<Module> {
                found
                    .iter()
                    .flat_map(|module| reached[module].iter().cloned())
                    .chain(found.iter().cloned())
                    .collect()
            };
            let next: BTreeMap<_, _> =
                reached.iter().map(|(module, found)| (*module, farther(found))).collect();
            if next == reached {
                break;
            }
            reached = next;
        }
        let mut circles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, found) in reached.iter().filter(|(module, found)| found.contains(**module)) {
            let partners = found.iter().filter(|other| reached[other].contains(*module));
            circles.entry(module[0].clone()).or_default().extend(partners.map(|other| other.join("/")));
        }
        circles
    }
}

#[test]
fn files_of_a_room_do_not_need_each_other() {
    let circles = Graph::of(&files()).circles();
    assert!(circles.is_empty(), "files need each other in a circle: {circles:?}");
}

#[test]
fn circles_are_found_by_whatever_path_a_file_names_another() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        let circles = Graph::of(&files.collect::<Vec<_>>()).circles();
        circles.into_values().flatten().collect::<Vec<_>>().join(" ")
    };
    let root = ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub(super) use c::{C, D as E};\n");
    let named = |b, c| circles(&[root, ("a/b.rs", b), ("a/c.rs", c)]);
    assert_eq!(named("use super::c::C;\n", "struct C;\n"), "");
    assert_eq!(named("use super::c::C;\n", "use super::b::B;\n"), "a/b a/c");
    assert_eq!(named("use super::C;\n", "use crate::{a::B, x};\n"), "a/b a/c", "by re-exports");
    assert_eq!(
        named("use super::E as F;\n", "fn f() -> super::B { 1 }\n"),
        "a/b a/c",
        "in code and by another name"
    );
    assert_eq!(
        named("use super::c;\nfn f() { c::g(); }\n", "use super::{\n    b::{self, B},\n};\n"),
        "a/b a/c"
    );
    assert_eq!(
        named("// super::c::C\n", "use super::B;\n#[cfg(test)]\nmod tests {\n    use super::B;\n}\n"),
        ""
    );
    let seen = "use super::c::C;\npub(in crate::a::c) struct D;\n";
    assert_eq!(named(seen, "pub(in crate::a::b) struct C;\n"), "", "who may see an item is no need");
    assert_eq!(circles(&[("a/mod.rs", "use b::B;\nstruct A;\n"), ("a/b.rs", "use super::A;\n")]), "a a/b");
    assert_eq!(circles(&[("a.rs", "mod b;\npub use b::B;\nstruct A;\n"), ("a/b.rs", "use super::A;\n")]), "");
}

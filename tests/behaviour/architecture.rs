//! What the source must never be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src")
}

/// The files below `host/src`, each with its path from there.
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
    let mut paths = Vec::new();
    walk(&source(), &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(source()).expect("it is below").display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("it is text"))).collect()
}

/// The modules in the order of `lib.rs`.
fn modules() -> Vec<String> {
    let text = fs::read_to_string(source().join("lib.rs")).expect("the file is there");
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
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
        if own == "lib" || own == "main" {
            continue;
        }
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

//! Compiles the default plugins for wasm32-wasip2 and embeds them.
//!
//! A packaging step may put `prebuilt/<name>.wasm` beside this file instead. What is built for fuzzing has none of them.

#[path = "build/component.rs"]
mod component;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let host = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // cargo-fuzz passes `--cfg fuzzing`. No target calls a default plugin, and without them a fuzzer needs neither the
    // target wasm32-wasip2 nor the minutes that they take.
    if env::var_os("CARGO_CFG_FUZZING").is_some() {
        println!("cargo::rerun-if-changed=build.rs");
        return write_list(&out, "&[]");
    }
    let root = host.ancestors().nth(2).expect("the crate is in the workspace");
    let plugins = plugins(&root.join("plugins"))?;
    let prebuilt = host.join("prebuilt");
    let components: Vec<PathBuf> = if prebuilt.is_dir() {
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        plugins.iter().map(|name| prebuilt.join(format!("{name}.wasm"))).collect()
    } else {
        compile(root, &out, &plugins)?
    };
    let mut list = String::from("&[\n");
    for (name, component) in plugins.iter().zip(components) {
        let copy = out.join(format!("{name}.wasm"));
        fs::copy(&component, &copy)
            .map_err(|error| format!("cannot copy {}: {error}", component.display()))?;
        list.push_str(&format!("    ({name:?}, include_bytes!({copy:?})),\n"));
    }
    list.push_str("]\n");
    write_list(&out, &list)
}

/// Writes what `plugin/shipped.rs` includes.
fn write_list(out: &Path, list: &str) -> Result<(), String> {
    fs::write(out.join("shipped.rs"), list)
        .map_err(|error| format!("cannot write the list of plugins: {error}"))
}

/// The crates in the folder that are plugins, sorted by name: those that make a component.
fn plugins(folder: &Path) -> Result<Vec<String>, String> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries =
        fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let manifest = fs::read_to_string(entry.path().join("Cargo.toml"));
            manifest.is_ok_and(|manifest| manifest.contains("\"cdylib\""))
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn compile(root: &Path, out: &Path, plugins: &[String]) -> Result<Vec<PathBuf>, String> {
    println!("cargo::rerun-if-changed={}", root.join("wit").display());
    let packages: Vec<String> = plugins.iter().map(|name| format!("tollgate-plugin-{name}")).collect();
    component::compile(root, out, &packages)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo has not set {name}"))
}

//! Compiles the default plugins for wasm32-wasip2 and embeds them.
//!
//! A packaging step may put `prebuilt/<name>.wasm` beside this file instead.

#[path = "build/component.rs"]
mod component;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Sorted by name.
const PLUGINS: [&str; 2] = ["api-key", "round-robin"];

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
    let prebuilt = host.join("prebuilt");
    let components: Vec<PathBuf> = if prebuilt.is_dir() {
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        PLUGINS.iter().map(|name| prebuilt.join(format!("{name}.wasm"))).collect()
    } else {
        compile(&host, &out)?
    };
    let mut list = String::from("&[\n");
    for (name, component) in PLUGINS.iter().zip(components) {
        let copy = out.join(format!("{name}.wasm"));
        fs::copy(&component, &copy)
            .map_err(|error| format!("cannot copy {}: {error}", component.display()))?;
        list.push_str(&format!("    ({name:?}, include_bytes!({copy:?})),\n"));
    }
    list.push_str("]\n");
    fs::write(out.join("shipped.rs"), list)
        .map_err(|error| format!("cannot write the list of plugins: {error}"))
}

fn compile(host: &Path, out: &Path) -> Result<Vec<PathBuf>, String> {
    let root = host.parent().expect("the host crate is in the workspace");
    for name in PLUGINS {
        println!("cargo::rerun-if-changed={}", root.join("plugins").join(name).join("src").display());
        println!("cargo::rerun-if-changed={}", root.join("plugins").join(name).join("Cargo.toml").display());
    }
    println!("cargo::rerun-if-changed={}", root.join("wit").display());
    component::compile(root, out, &PLUGINS.map(|name| format!("tollgate-plugin-{name}")))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo has not set {name}"))
}

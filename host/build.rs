//! Compiles the default plugins for wasm32-wasip2 and embeds them.
//!
//! A nested cargo does it, in a target folder of its own and free of the flags meant for the host. A packaging
//! step may put `prebuilt/<name>.wasm` beside this file instead.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Sorted by name.
const PLUGINS: [&str; 2] = ["api-key", "round-robin"];
const TARGET: &str = "wasm32-wasip2";

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
    ensure_target()?;
    // <target>/<profile>/build/<package>/out: debug and release builds share the plugins.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("plugins");
    let mut cargo = plain("CARGO", "cargo");
    cargo.args(["build", "--profile", "plugin", "--target", TARGET]);
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--target-dir").arg(&target);
    for name in PLUGINS {
        cargo.args(["--package", &format!("tollgate-plugin-{name}")]);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo for the plugins: {error}"))?;
    if !status.success() {
        return Err("the default plugins do not compile; the reason stands above".into());
    }
    let folder = target.join(TARGET).join("plugin");
    let file = |name: &&str| folder.join(format!("tollgate_plugin_{}.wasm", name.replace('-', "_")));
    Ok(PLUGINS.iter().map(file).collect())
}

/// Adds the target by rustup if the toolchain does not have it.
fn ensure_target() -> Result<(), String> {
    let has_target = || {
        let output =
            plain("RUSTC", "rustc").args(["--print", "target-libdir", "--target", TARGET]).output().ok()?;
        let folder = String::from_utf8(output.stdout).ok()?;
        Path::new(folder.trim()).is_dir().then_some(())
    };
    if has_target().is_some() {
        return Ok(());
    }
    // In the folder of the workspace, so that it is the toolchain named there.
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success()) && has_target().is_some() {
        return Ok(());
    }
    Err(format!("the plugins need the target {TARGET}: run `rustup target add {TARGET}` and build again"))
}

/// The tool of this build, without what the host's build has set for itself.
fn plain(tool: &str, otherwise: &str) -> Command {
    let mut command = Command::new(env::var_os(tool).unwrap_or_else(|| otherwise.into()));
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"]
            .iter()
            .any(|kept| name_text.starts_with(kept));
        let is_flag =
            ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "DEP_", "TARGET", "HOST", "PROFILE", "OPT_LEVEL"]
                .iter()
                .any(|prefix| name_text.starts_with(prefix));
        if is_flag && !is_kept || name_text == "MAKEFLAGS" || name_text == "DEBUG" {
            command.env_remove(&name);
        }
    }
    command
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo has not set {name}"))
}

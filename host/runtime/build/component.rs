//! How does a crate of the workspace become a component? For build scripts.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-wasip2";

/// Compiles packages of the workspace at `root` and says where their components are. `out` is the build script's
/// `OUT_DIR`.
///
/// A nested cargo does it, in a target folder of its own and free of the flags meant for the host.
pub fn compile(root: &Path, out: &Path, packages: &[String]) -> Result<Vec<PathBuf>, String> {
    ensure_target()?;
    // <target>/<profile>/build/<package>/out: debug and release builds share the components.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("plugins");
    let mut cargo = plain("CARGO", "cargo");
    cargo.args(["build", "--profile", "plugin", "--target", TARGET]);
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--target-dir").arg(&target);
    for package in packages {
        cargo.args(["--package", package]);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo for {packages:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{packages:?} do not compile; the reason stands above"));
    }
    let folder = target.join(TARGET).join("plugin");
    Ok(packages.iter().map(|package| folder.join(format!("{}.wasm", package.replace('-', "_")))).collect())
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

//! Compiles the guest that misbehaves on demand, the way `host/build.rs` compiles the default plugins.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, exit},
};

fn main() {
    let tests = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let root = tests.parent().expect("the crate is in the workspace");
    for path in ["guests/src", "guests/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", tests.join(path).display());
    }
    println!("cargo::rerun-if-changed={}", root.join("wit").display());
    // The same folder as the default plugins', so that what they share is compiled once.
    let target = out.ancestors().nth(4).expect("OUT_DIR is where cargo puts it").join("plugins");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_flag = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("RUSTFLAGS");
        if is_flag && !text.starts_with("CARGO_HOME") && !text.starts_with("CARGO_NET") {
            cargo.env_remove(&name);
        }
    }
    cargo.args(["build", "--profile", "plugin", "--target", "wasm32-wasip2", "--package", "tollgate-guest"]);
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--target-dir").arg(&target);
    if !cargo.status().is_ok_and(|status| status.success()) {
        println!("cargo::error=the guest of the tests does not compile; the reason stands above");
        exit(1);
    }
    let guest: &Path = &target.join("wasm32-wasip2/plugin/tollgate_guest.wasm");
    let copy = out.join("guest.wasm");
    if let Err(error) = std::fs::copy(guest, copy) {
        println!("cargo::error=cannot copy {}: {error}", guest.display());
        exit(1);
    }
}

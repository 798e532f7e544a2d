//! Compiles the guest that misbehaves on demand.

#[path = "../host/build/component.rs"]
mod component;

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let tests = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let root = tests.parent().expect("the crate is in the workspace");
    for path in ["guests/src", "guests/Cargo.toml", "../wit"] {
        println!("cargo::rerun-if-changed={}", tests.join(path).display());
    }
    let copied = component::compile(root, &out, &["tollgate-guest".to_owned()]).and_then(|components| {
        fs::copy(&components[0], out.join("guest.wasm"))
            .map_err(|error| format!("cannot copy the guest: {error}"))
    });
    match copied {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

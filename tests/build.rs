//! Compiles the guests: plugins that do as they are told, however bad.

#[path = "../host/runtime/build/component.rs"]
mod component;

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let tests = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let root = tests.parent().expect("the crate is in the workspace");
    for path in [
        "guests",
        "../wit",
        "../examples/block-agents",
        "../examples/privacy-routing/router",
        "../examples/privacy-routing/body-router",
    ] {
        println!("cargo::rerun-if-changed={}", tests.join(path).display());
    }
    let guests = [
        "guest",
        "granted-guest",
        "waiting-guest",
        "told-guest",
        "example-block-agents",
        "example-privacy-router",
        "example-privacy-body-router",
    ];
    let packages = guests.map(|guest| format!("tollgate-{guest}"));
    let copied = component::compile(root, &out, &packages).and_then(|components| {
        for (guest, component) in guests.iter().zip(components) {
            fs::copy(component, out.join(format!("{guest}.wasm")))
                .map_err(|error| format!("cannot copy a guest: {error}"))?;
        }
        Ok(())
    });
    match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

//! Which functions of the host can a component import?

use wasmtime::{Engine, Result, component::Linker};
use wasmtime_wasi::{
    WasiView,
    cli::{WasiCli, WasiCliView},
    clocks::{WasiClocks, WasiClocksView},
    filesystem::{WasiFilesystem, WasiFilesystemView},
    p2::bindings::{
        cli, clocks, filesystem, random,
        sync::{
            self,
            io::{poll, streams},
        },
    },
    random::{WasiRandom, WasiRandomView},
};
use wasmtime_wasi_io::bindings::wasi::io as waiting;

use super::{
    alarm::ByAlarms,
    bindings,
    host::Ambient,
    state::State,
    wasi::{Errors, OnlySleeps},
};

/// A linker with all that a component may import, but for what is granted by name.
pub(super) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    bindings::Host_::add_to_linker::<_, Ambient>(&mut linker, |state| state)?;
    add_wasi(&mut linker)?;
    Ok(linker)
}

/// Adds what of WASI works.
fn add_wasi(linker: &mut Linker<State>) -> Result<()> {
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, ByAlarms>(linker, State::clock)?;
    random::random::add_to_linker::<State, WasiRandom>(linker, State::random)?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, State::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, State::random)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    // Without preopened folders there is no descriptor to call any of these with.
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    sync::filesystem::types::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    waiting::error::add_to_linker::<State, Errors>(linker, |state| state.ctx().table)?;
    poll::add_to_linker::<State, OnlySleeps>(linker, State::waiting)?;
    streams::add_to_linker::<State, OnlySleeps>(linker, State::waiting)
}

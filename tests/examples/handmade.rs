//! Writes the plugins that no compiler makes into a folder, for benchmarks: `handmade FOLDER NAME...`.

use std::{env, fs, path::Path, process::ExitCode};

use tollgate_tests::Handmade;

/// What the benchmarks use.
const KNOWN: [Handmade; 3] = [Handmade::Harmless, Handmade::HasManyMemories, Handmade::CostsToCompile];

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("error: say into which folder, and which plugins");
        return ExitCode::from(2);
    };
    for name in arguments {
        let Some(plugin) = KNOWN.into_iter().find(|plugin| plugin.name() == name) else {
            eprintln!("error: there is no handmade plugin `{name}`");
            return ExitCode::from(2);
        };
        let path = Path::new(&folder).join(format!("{name}.wasm"));
        if let Err(error) = fs::write(&path, plugin.component()) {
            eprintln!("error: cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

//! What lies in the folder of plugins?

use std::{
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::loading::PluginError;
use crate::{
    config::{self, ByteSize, Config, Problem, Problems, read_document},
    plugin::{Demand, signature_file},
};

/// The file of a plugin, if it is there.
pub(super) fn read(path: &Path, most: ByteSize) -> Result<Option<Vec<u8>>, PluginError> {
    let read = || -> io::Result<Vec<u8>> {
        // To open a pipe would wait until somebody writes to it, and hold up every reload until then.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        // One more than may be, which tells that it is too much whatever the file says of its size.
        fs::File::open(path)?.take(most.get().saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > most.get() => {
            Err(PluginError::TooLarge { path: path.to_owned(), most })
        }
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PluginError::Read { path: path.to_owned(), source }),
    }
}

/// The settings that lie beside a plugin. They are trusted as the plugin is.
pub(super) fn beside(path: &Path, config: &Config) -> Result<config::Plugin, PluginError> {
    let text = fs::read(path).map_err(|source| PluginError::Read { path: path.to_owned(), source })?;
    let demand = Demand { sha256: None, signer: None, signers: &config.plugin_keys, signature: None };
    if demand.wants_signature() {
        let beside = fs::read(signature_file(path)).ok();
        let path = path.display().to_string();
        demand.check(&text, beside.as_deref()).map_err(|source| PluginError::Untrusted { path, source })?;
    }
    let not_text = |_| PluginError::Settings(format!("{} is not text in UTF-8", path.display()));
    let text = String::from_utf8(text).map_err(not_text)?;
    let (table, _) = read_document(path, text, Some(&|name| env::var(name).ok()))
        .map_err(|problems| PluginError::Settings(in_a_line(path, &problems)))?;
    Ok(table)
}

/// The files that settings beside plugins name, relative to the folder of the configuration.
pub fn files_named_beside(plugins: &Path, config: &Config) -> Vec<PathBuf> {
    let tables = dropped_files(plugins, ".toml").into_iter();
    // What cannot be read is told of where it is loaded.
    let tables = tables.filter_map(|name| beside(&plugins.join(format!("{name}.toml")), config).ok());
    tables.flat_map(|table| table.grants.files().map(Path::to_owned).collect::<Vec<_>>()).collect()
}

/// The names of the files in the drop folder that end like this. A folder that is not there is an empty one.
pub(super) fn dropped_files(folder: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect()
}

/// The name of a plugin's file without its ending.
pub(super) fn stem(file: &str) -> &str {
    file.strip_suffix(".wasm").unwrap_or(file)
}

/// The first problem of a file, with its place.
pub(super) fn in_a_line(path: &Path, problems: &Problems) -> String {
    let tell = |problem: &Problem| {
        let line = problems.place(problem).map_or_else(String::new, |(line, _)| format!(":{line}"));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        format!("{}{line}: {}{help}", path.display(), problem.message)
    };
    problems.iter().next().map(tell).unwrap_or_default()
}

//! What lies in the folder of plugins?

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use super::error::PluginError;
use crate::{
    config::{self, ByteSize, Config, Problem, ProblemKind, Problems, read_document},
    file,
    plugin::{Demand, TrustError, signature_file},
};

/// The file of a plugin, if it is there.
pub(super) fn read(path: &Path, most: ByteSize) -> Result<Option<Vec<u8>>, PluginError> {
    match file::read(path, most.get()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            io::ErrorKind::FileTooLarge => Err(PluginError::TooLarge { path: path.to_owned(), most }),
            _ => Err(PluginError::Read { path: path.to_owned(), source: error }),
        },
    }
}

/// What stands in the file of a file's signature, if there is one.
pub(super) fn signature_of(path: &Path) -> Result<Option<Vec<u8>>, PluginError> {
    let path = signature_file(path);
    match file::read(&path, file::SIGNATURE) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PluginError::Read { path, source }),
    }
}

/// The text of a file that lies beside a plugin, if it is there. Where `plugin-keys` are configured, one of them must have
/// signed it, and a file without a signature is not even read.
pub(super) fn read_beside(path: &Path, most: u64, config: &Config) -> Result<Option<String>, PluginError> {
    let demand = Demand { sha256: None, signer: None, signers: &config.plugin_keys, signature: None };
    let untrusted = |source| PluginError::Untrusted { path: path.display().to_string(), source };
    let signature = match demand.wants_signature() {
        true => signature_of(path)?,
        false => None,
    };
    if demand.wants_signature() && signature.is_none() {
        return match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => Err(untrusted(TrustError::Unsigned)),
        };
    }
    let bytes = match file::read(path, most) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PluginError::Read { path: path.to_owned(), source }),
    };
    demand.check(&bytes, signature.as_deref()).map_err(untrusted)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8");
        PluginError::Read { path: path.to_owned(), source }
    })?;
    Ok(Some(text))
}

/// The settings that lie beside a plugin. They are trusted as the plugin is.
pub(super) fn beside(path: &Path, config: &Config) -> Result<config::Plugin, PluginError> {
    let text = read_beside(path, file::SETTINGS, config)?
        .ok_or_else(|| PluginError::Read { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })?;
    let (table, _) = read_document(path, text, Some(&|name| env::var(name).ok())).map_err(|problems| {
        PluginError::Settings {
            message: in_a_line(path, &problems),
            kind: problems.iter().next().map_or(ProblemKind::Other, |first| first.kind.clone()),
        }
    })?;
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

//! Where does the component come from, and where are its tests?
//!
//! A component, a file of tests, or a folder with either or with the source of a plugin: whichever is named, the
//! other is found beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::file::TestFile;
use crate::{
    config::{Problems, Source},
    file,
    plugin::shipped,
};

/// One component, with its tests if it has any.
#[derive(Debug)]
pub struct Subject {
    pub name: String,
    pub component: Component,
    /// What was read of `<name>.test.toml`.
    pub tests: Option<(TestFile, Source)>,
}

/// What gives a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// It is there.
    File(PathBuf),
    /// Cargo makes it from the package in this folder.
    Package(PathBuf),
    /// A command, run in this folder, makes this file.
    Command { command: String, folder: PathBuf, file: PathBuf },
    /// It is part of the executable.
    Shipped(&'static [u8]),
}

/// Why there is no component to be tried. None of this is the plugin's fault.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tests(#[from] Problems),
    #[error("{} is neither a .wasm file, nor a <name>.test.toml, nor a folder", .0.display())]
    Unknown(PathBuf),
    #[error("there is nothing to test in {}: no <name>.test.toml, no .wasm file and no Cargo.toml", .0.display())]
    Empty(PathBuf),
    #[error(
        "there is no component for {}: put {} beside it, name it with `component`, or let `build` make it",
        tests.display(), file.display()
    )]
    NoComponent { tests: PathBuf, file: PathBuf },
    #[error("cannot run `{command}`")]
    Run { command: String, source: io::Error },
    #[error("`{command}` has failed:\n{output}")]
    Build { command: String, output: String },
    #[error("`{command}` has made no component: the crate needs crate-type = [\"cdylib\"]")]
    NoArtifact { command: String },
}

/// How the file of a plugin's tests ends.
const TESTS: &str = ".test.toml";

/// Everything that `path` names.
pub fn find(path: &Path) -> Result<Vec<Subject>, SubjectError> {
    if fs::metadata(path).map_err(|source| SubjectError::Read { path: path.to_owned(), source })?.is_dir() {
        return in_folder(path);
    }
    let subject = match file_name(path) {
        name if name.ends_with(TESTS) => of_tests(path)?,
        name if name.ends_with(".wasm") => of_component(path)?,
        _ => return Err(SubjectError::Unknown(path.to_owned())),
    };
    Ok(vec![subject])
}

fn in_folder(folder: &Path) -> Result<Vec<Subject>, SubjectError> {
    let read = |source| SubjectError::Read { path: folder.to_owned(), source };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        paths.push(entry.map_err(read)?.path());
    }
    paths.sort();
    let mut subjects = Vec::new();
    for path in paths.iter().filter(|path| file_name(path).ends_with(TESTS)) {
        subjects.push(of_tests(path)?);
    }
    for path in paths.iter().filter(|path| file_name(path).ends_with(".wasm")) {
        let is_tested = |subject: &Subject| match &subject.component {
            Component::File(file) | Component::Command { file, .. } => file == path,
            Component::Package(_) | Component::Shipped(_) => false,
        };
        if !file_name(path).starts_with('.') && !subjects.iter().any(is_tested) {
            subjects.push(of_component(path)?);
        }
    }
    if subjects.is_empty() && folder.join("Cargo.toml").is_file() {
        let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_owned()));
        subjects.push(Subject {
            name: name.map_or_else(|| "plugin".into(), |name| name.to_string_lossy().into_owned()),
            component: Component::Package(folder.to_owned()),
            tests: None,
        });
    }
    if subjects.is_empty() {
        return Err(SubjectError::Empty(folder.to_owned()));
    }
    Ok(subjects)
}

fn of_component(path: &Path) -> Result<Subject, SubjectError> {
    let name = file_name(path).trim_end_matches(".wasm").to_owned();
    let tests = path.with_file_name(format!("{name}{TESTS}"));
    let tests = tests.is_file().then(|| TestFile::read(&tests)).transpose()?;
    Ok(Subject { name, component: Component::File(path.to_owned()), tests })
}

fn of_tests(path: &Path) -> Result<Subject, SubjectError> {
    let (tests, source) = TestFile::read(path)?;
    let name = file_name(path).trim_end_matches(TESTS).to_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tests.component.clone().unwrap_or_else(|| format!("{name}.wasm").into());
    let file = folder.join(file);
    let component = if let Some(command) = &tests.build {
        Component::Command { command: command.clone(), folder: folder.to_owned(), file }
    } else if tests.component.is_some() || file.is_file() {
        Component::File(file)
    } else if folder.join("Cargo.toml").is_file() {
        Component::Package(folder.to_owned())
    } else if let Some(shipped) = shipped::find(&name) {
        Component::Shipped(shipped)
    } else {
        return Err(SubjectError::NoComponent { tests: path.to_owned(), file });
    };
    Ok(Subject { name, component, tests: Some((tests, source)) })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Component {
    /// The bytes, after whatever has to be done to have them. May take as long as a compiler does.
    pub fn make(&self) -> Result<Vec<u8>, SubjectError> {
        match self {
            Self::File(path) => read(path),
            Self::Shipped(bytes) => Ok(bytes.to_vec()),
            Self::Package(folder) => read(&package(folder)?),
            Self::Command { command, folder, file } => {
                run(Command::new("sh").arg("-c").arg(command).current_dir(folder), command)?;
                read(file)
            }
        }
    }

    /// The command that is run for it, if one is.
    pub fn command(&self) -> Option<String> {
        match self {
            Self::File(_) | Self::Shipped(_) => None,
            Self::Package(folder) => Some(format!("cargo {} in {}", CARGO.join(" "), folder.display())),
            Self::Command { command, folder, .. } => Some(format!("{command} in {}", folder.display())),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SubjectError> {
    file::read(path, file::COMPONENT).map_err(|source| SubjectError::Read { path: path.to_owned(), source })
}

const CARGO: [&str; 4] = ["build", "--release", "--target", "wasm32-wasip2"];

/// Builds a package and says where its component is.
fn package(folder: &Path) -> Result<PathBuf, SubjectError> {
    let command_line = format!("cargo {}", CARGO.join(" "));
    let mut cargo = Command::new("cargo");
    cargo.args(CARGO).arg("--message-format=json-render-diagnostics").current_dir(folder);
    let output = run(&mut cargo, &command_line)?;
    // The last is that of the package itself: what it depends on comes before it.
    let artifacts = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let files = artifacts
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let mut files = files.filter_map(|file| file.as_str().map(PathBuf::from));
    files
        .rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or(SubjectError::NoArtifact { command: command_line })
}

/// Runs a command to its end, and returns what it printed.
fn run(command: &mut Command, command_line: &str) -> Result<String, SubjectError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SubjectError::Run { command: command_line.to_owned(), source })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    // Cargo's standard output is for programs.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let output = if errors.trim().is_empty() { printed } else { errors };
    Err(SubjectError::Build { command: command_line.to_owned(), output: output.trim_end().to_owned() })
}

//! `tollgate plugin record`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use http::Method;
use serde_json::json;
use toml_edit::{DocumentMut, InlineTable, Value};

use crate::{
    cli::{
        admin::{AdminArguments, encoded},
        output::say,
    },
    file,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct RecordArguments {
    /// The plugin, by the name that it has in the configuration
    #[arg(value_name = "NAME")]
    name: String,
    /// How long; ten minutes at most
    #[arg(long = "for", value_name = "DURATION", default_value = "60s")]
    duration: jiff::SignedDuration,
    /// The part of the requests that is recorded
    #[arg(long, default_value_t = 1.0)]
    sample: f64,
    /// Cases after which it ends; a thousand at most
    #[arg(long, default_value_t = 100)]
    most: usize,
    /// Record bodies, too: those that the plugin reads, makes, sends and gets
    #[arg(long)]
    bodies: bool,
    /// A header, cookie, parameter of queries or note whose values are kept as they are; as often as there are such
    #[arg(long, value_name = "NAME")]
    keep: Vec<String>,
    /// The file that the cases are added to; NAME.test.toml if absent
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) async fn run(arguments: RecordArguments) -> anyhow::Result<ExitCode> {
    /// What the answer takes beside the recording: each case is tried.
    const PATIENCE: Duration = Duration::from_secs(60);
    let RecordArguments { name, duration, sample, most, bodies, keep, output, admin } = arguments;
    let output = output.unwrap_or_else(|| format!("{name}.test.toml").into());
    // What cannot be added to is better known before.
    there(&output)?;
    let time = Duration::try_from(duration).context("--for is a length of time")?;
    let admin = admin.open()?.patient(time + PATIENCE);
    eprintln!("recording {name} for {duration:#}, or until there are {most} cases");
    let wanted = json!({
        "for": format!("{}ms", time.as_millis()), "sample": sample, "most": most, "bodies": bodies, "keep": keep,
    });
    let path = format!("/api/plugins/{}/record", encoded(&name));
    let recording = admin.ask(Method::POST, &path, Some(&wanted)).await?;
    let [cases, left] = ["cases", "left"].map(|key| recording[key].as_u64().unwrap_or_default());
    let calls = &recording["calls"];
    if cases + left == 0 {
        say!("nothing recorded: there were {calls} calls");
        return Ok(ExitCode::from(1));
    }
    // It may have been written to meanwhile.
    let text = match there(&output)? {
        Some(text) => format!("{}\n\n", text.trim_end()),
        None => {
            head(&name, recording["origin"].as_str().unwrap_or_default(), &admin.get("/api/config").await?)
        }
    };
    let text = format!("{text}{}\n", recording["text"].as_str().unwrap_or_default().trim_end());
    fs::write(&output, text).with_context(|| format!("cannot write {}", output.display()))?;
    let comments = match left {
        0 => String::new(),
        left => format!(", and {left} as comments, since they do not pass as they stand"),
    };
    say!("{cases} cases of {calls} calls in {}{comments}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// What a file of tests holds, if it is there.
fn there(path: &Path) -> anyhow::Result<Option<String>> {
    let text = match file::read_text(path, file::TESTS) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    text.parse::<DocumentMut>().with_context(|| format!("{} is not TOML", path.display()))?;
    Ok(Some(text))
}

/// What a file of tests begins with that is not there yet: where the component and its settings are. The settings
/// themselves are not written, since there may be secrets among them.
fn head(name: &str, origin: &str, config: &serde_json::Value) -> String {
    let mut text = String::new();
    if Path::new(origin).is_absolute() {
        text.push_str(&format!("component = {}\n", Value::from(origin)));
    }
    let settings = &config["config"]["plugins"][name]["config"];
    if settings.as_object().is_none_or(serde_json::Map::is_empty) {
        return text + "\n";
    }
    match config["file"].as_str().filter(|file| has_table(Path::new(file), name)) {
        Some(file) => {
            let mut from = InlineTable::new();
            from.insert("file", file.into());
            from.insert("plugin", name.into());
            text.push_str(&format!("config-from = {from}\n"));
        }
        None => text.push_str(&format!(
            "# The cases are of a proxy whose configuration is not here. Write the settings of [plugins.{name}] as\n\
             # config = {{ ... }}\n"
        )),
    }
    text + "\n"
}

/// Whether the table of a plugin is in a configuration that can be read from here. Not so in one of another machine, or of
/// another user.
fn has_table(path: &Path, plugin: &str) -> bool {
    let table =
        file::read_text(path, file::CONFIGURATION).ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_some_and(|table| table.get("plugins").is_some_and(|plugins| plugins.get(plugin).is_some()))
}

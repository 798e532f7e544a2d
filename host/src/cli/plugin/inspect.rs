//! `tollgate plugin inspect`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{engine::engine, print};
use crate::{
    cli::output::say,
    config::ByteSize,
    file,
    plugin::{Anatomy, Range},
    telemetry::with_sources,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArguments {
    /// A component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: InspectArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.file;
    let bytes = match file::read(path, file::COMPONENT) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("error: cannot read {}: {error}", path.display());
            return Ok(ExitCode::from(2));
        }
    };
    let anatomy = Anatomy::of(&bytes).with_context(|| path.display().to_string())?;
    let verdict = engine()?.load(&bytes).map(drop).map_err(|error| with_sources(&error));
    if arguments.json {
        say!("{:#}", to_json(&anatomy, verdict.as_ref().err()));
    } else {
        tell(&anatomy);
        match &verdict {
            Ok(()) => say!("verdict:    this Tollgate can load it"),
            Err(error) => say!("verdict:    {}", print::printable(error)),
        }
    }
    Ok(ExitCode::from(u8::from(verdict.is_err())))
}

fn tell(anatomy: &Anatomy) {
    let list = |items: &[&str]| match items {
        [] => "none".to_owned(),
        items => items.join(", "),
    };
    say!("digest:     {}", anatomy.digest);
    say!("size:       {}", ByteSize::bytes(anatomy.size));
    let contract: Vec<&str> = anatomy.contract.iter().map(String::as_str).collect();
    say!("contract:   {} (this Tollgate speaks {})", list(&contract), Anatomy::spoken());
    say!("hooks:      {}", list(&hooks(anatomy)));
    say!("imports:    {}", list(&anatomy.imported()));
    let grants = grants(anatomy);
    match grants.as_slice() {
        [] => say!("grants:     none needed"),
        lines => {
            say!("grants:     in its table [plugins.<name>]:");
            lines.iter().for_each(|line| say!("              {line}"));
        }
    }
    say!("WASI:       {}", list(&anatomy.wasi()));
    if !anatomy.foreign().is_empty() {
        say!("not known:  {}", list(&anatomy.foreign()));
    }
    for memory in &anatomy.memories {
        say!("memory:     {}", range(memory, |bytes| ByteSize::bytes(bytes as usize).to_string()));
    }
    for table in &anatomy.tables {
        say!("table:      {}", range(table, |elements| format!("{elements} elements")));
    }
    for (kind, name, version) in &anatomy.producers {
        // `processed-by:` is longer than the column.
        say!("{:<11} {}", format!("{kind}:"), format!("{name} {version}").trim());
    }
}

fn range(range: &Range, tell: impl Fn(u64) -> String) -> String {
    match range.maximum {
        Some(maximum) => format!("{}, at most {}", tell(range.initial), tell(maximum)),
        None => format!("{}, without an end of its own", tell(range.initial)),
    }
}

/// The functions that Tollgate would call.
fn hooks(anatomy: &Anatomy) -> Vec<&str> {
    let function = |interface: &'static str| match interface {
        "request-hook" => "on-request",
        "response-hook" => "on-response",
        "balance-hook" => "pick",
        "complete-hook" => "on-complete",
        "tick-hook" => "on-tick",
        other => other,
    };
    let known = ["lifecycle", "request-hook", "response-hook", "balance-hook", "complete-hook", "tick-hook"];
    let exported = anatomy.exported();
    known.into_iter().filter(|interface| exported.contains(interface)).map(function).collect()
}

/// The lines of a plugin's table that let it have what it imports.
fn grants(anatomy: &Anatomy) -> Vec<&'static str> {
    let imported = anatomy.imported();
    let lines = [
        ("body", "grants.body = true"),
        ("store", "grants.store = true"),
        ("http-client", "grants.http = [\"https://api.example.com\"]"),
        ("secret", "grants.secrets = { name = { env = \"VARIABLE\" } }"),
    ];
    lines.into_iter().filter(|(interface, _)| imported.contains(interface)).map(|(_, line)| line).collect()
}

fn to_json(anatomy: &Anatomy, error: Option<&String>) -> serde_json::Value {
    let range = |range: &Range| json!({ "initial": range.initial, "maximum": range.maximum });
    json!({
        "digest": anatomy.digest.to_string(),
        "size": anatomy.size,
        "contract": anatomy.contract,
        "spoken": Anatomy::spoken(),
        "hooks": hooks(anatomy),
        "imports": anatomy.imports,
        "exports": anatomy.exports,
        "grants": grants(anatomy),
        "memories": anatomy.memories.iter().map(range).collect::<Vec<_>>(),
        "tables": anatomy.tables.iter().map(range).collect::<Vec<_>>(),
        "producers": anatomy.producers.iter().map(|(kind, name, version)| {
            json!({ "kind": kind, "name": name, "version": version })
        }).collect::<Vec<_>>(),
        "error": error,
    })
}

/// What a component imports, against what it has to be granted, in a line.
pub(super) fn tell_imports(bytes: &[u8]) {
    let Ok(anatomy) = Anatomy::of(bytes) else { return };
    say!("  imports: {}", anatomy.imported().join(", "));
    match grants(&anatomy).as_slice() {
        [] => say!("  grants: none needed"),
        lines => say!("  grants: {}", lines.join(", ")),
    }
}

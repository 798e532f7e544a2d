//! `tollgate explain`: what would become of a request, and why?

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    admin::{AdminArguments, expect},
    output::say,
};
use crate::file;

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// GET, POST, ...
    #[arg(value_name = "METHOD")]
    method: String,
    /// The URL that a client would ask for; its scheme and port say which listener it comes to
    #[arg(value_name = "URL")]
    url: String,
    /// A header of the request; as often as there are headers
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of the request
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    data: String,
    /// Whose connection it would come by; 127.0.0.1 if absent
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The listener that it would come to, by its address in the configuration
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// The client's certificate in PEM, and those between it and its authority; the key is not needed
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// By HTTP/2
    #[arg(long)]
    http2: bool,
    /// Print what the admin API says, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) async fn run(arguments: ExplainArguments) -> anyhow::Result<()> {
    /// Plugins that wait are waited for; a little longer than the proxy itself does.
    const PATIENCE: Duration = Duration::from_secs(65);
    let ExplainArguments { method, url, headers, data, client, listener, client_cert, http2, json, admin } =
        arguments;
    let headers: Vec<_> = headers.iter().map(|line| pair(line)).collect::<anyhow::Result<_>>()?;
    let mut question = json!({
        "method": method.to_ascii_uppercase(), "url": url, "headers": headers, "body": data, "http2": http2,
    });
    if let Some(client) = client {
        question["client"] = client.to_string().into();
    }
    if let Some(listener) = listener {
        question["listener"] = listener.into();
    }
    if let Some(path) = client_cert {
        question["client-certificate"] = certificates(&path)?.into();
    }
    let admin = admin.open()?.patient(PATIENCE);
    let explanation = admin.ask(Method::POST, "/api/explain", Some(&question)).await?;
    expect(&explanation, "outcome", &admin)?;
    if json {
        say!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        say!("{} {url}", method.to_ascii_uppercase());
        for line in lines(&explanation) {
            say!("{line}");
        }
    }
    Ok(())
}

/// The certificates in a file. A key that stands beside them stays here.
fn certificates(path: &Path) -> anyhow::Result<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let file = file::read_text(path, file::CERTIFICATES)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let blocks = file.split(BEGIN).skip(1).filter_map(|rest| Some(rest.split_once(END)?.0));
    let found: String = blocks.map(|block| format!("{BEGIN}{block}{END}\n")).collect();
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no certificate in PEM, which begins with {BEGIN}",
        path.display()
    );
    Ok(found)
}

fn pair(line: &str) -> anyhow::Result<(&str, &str)> {
    let (name, value) =
        line.split_once(':').with_context(|| format!("`{line}` is not a header such as `accept: */*`"))?;
    Ok((name.trim(), value.trim()))
}

/// What is told, for a person: a stage a line, and below it what there is to say of it.
fn lines(explanation: &Value) -> Vec<String> {
    let mut page = Page::default();
    page.stage(
        "listener",
        &Value::Null,
        &format!("{}, generation {}", text(explanation, "listener"), explanation["generation"]),
    );
    if let Some(prepared) = present(explanation, "prepared") {
        let query = prepared["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
        let (host, path) = (text(prepared, "host"), text(prepared, "path"));
        let (scheme, client) = (text(prepared, "scheme"), text(prepared, "client"));
        page.stage("prepare", prepared, &format!("{path}{query} on {host}, by {scheme}, for {client}"));
        page.changes(prepared);
    }
    if let Some(route) = present(explanation, "route") {
        let found = match route["name"].as_str() {
            Some(name) => format!("{name}, to {}", text(route, "upstream")),
            None => "none".to_owned(),
        };
        page.stage("route", route, &found);
        for near in items(route, "near") {
            page.more(&format!("not {}: {}", text(near, "name"), text(near, "objection")));
        }
    }
    for asked in items(explanation, "plugins") {
        let verdict = match text(asked, "verdict") {
            "reply" => format!("replies {}", asked["status"]),
            "forward" => format!("sends it to {}", text(asked, "upstream")),
            "failed" => {
                let goes_on = if asked["is-passed-over"] == true { ", and it goes on without" } else { "" };
                format!("failed: {}{goes_on}", asked["error"].as_str().unwrap_or("it was given up"))
            }
            next => next.to_owned(),
        };
        page.stage("plugin", asked, &format!("{}: {verdict}", text(asked, "name")));
        page.changes(asked);
        if let Some(target) = asked["target"].as_str() {
            page.more(&format!("target {target}"));
        }
        for (name, value) in fields(asked, "response") {
            page.more(&format!("on the response {name}: {value}"));
        }
        for (name, value) in fields(asked, "notes") {
            page.more(&format!("note {name} = {value}"));
        }
        page.logs(asked);
    }
    if let list @ [_, ..] = items(explanation, "not-asked") {
        page.more(&format!("not asked: {}", names(list)));
    }
    if let Some(cache) = present(explanation, "cache") {
        let forward = cache["forward"].as_str().map(|forward| format!(" ({forward})")).unwrap_or_default();
        page.stage("cache", cache, &format!("{}{forward}", text(cache, "decision")));
        page.more(&format!("key {}", text(cache, "key").escape_debug()));
        if let (Some(age), Some(left)) = (cache["age-seconds"].as_f64(), cache["left-seconds"].as_f64()) {
            page.more(&format!("stored {age:.1} s ago, fresh for another {left:.1} s"));
        }
        if let Some(obstacle) = cache["not-stored"].as_str() {
            page.more(&format!("the answer is not stored: {obstacle}"));
        }
    }
    if let Some(compression) = present(explanation, "compression") {
        let encoding = compression["encoding"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
        page.stage("compress", compression, &format!("{}{encoding}", text(compression, "decision")));
    }
    if let Some(pick) = present(explanation, "pick") {
        let by = pick["by"].as_str().unwrap_or("the proxy itself");
        let chosen = match pick["endpoint"].as_str() {
            Some(endpoint) => format!("{endpoint} of {}, by {by}", text(pick, "upstream")),
            None => format!("none of {}", text(pick, "upstream")),
        };
        page.stage("pick", pick, &chosen);
        if pick["is-panicking"] == true {
            page.more("too few are healthy, so all are used");
        }
        if let Some(limit) = present(pick, "limit") {
            page.more(&format!(
                "{} of {} requests, {} wait",
                limit["requests"], limit["limit"], limit["waiting"]
            ));
        }
        for endpoint in items(pick, "endpoints") {
            if let Some(objection) = endpoint["objection"].as_str() {
                page.more(&format!("not {}: {objection}", text(endpoint, "address")));
            }
        }
        page.logs(pick);
    }
    let outcome = &explanation["outcome"];
    let reason = outcome["reason"].as_str().unwrap_or_default();
    let end = match text(outcome, "verdict") {
        "sent" => {
            let (endpoint, target) = (text(outcome, "endpoint"), text(outcome, "target"));
            format!("it would go to {endpoint} as {target}")
        }
        verdict if outcome["status"].is_null() => format!("{verdict}: {reason}"),
        verdict => format!("{verdict}: {} ({reason})", outcome["status"]),
    };
    page.stage("outcome", explanation, &end);
    if let list @ [_, ..] = items(explanation, "response-hooks") {
        page.more(&format!("its response would pass {}", names(list)));
    }
    page.lines
}

#[derive(Default)]
struct Page {
    lines: Vec<String>,
}

impl Page {
    fn stage(&mut self, name: &str, stage: &Value, what: &str) {
        let time = stage["micros"].as_f64().map(|micros| format!("{micros:.1} us")).unwrap_or_default();
        self.lines.push(format!("{name:<9}{time:>12}  {what}"));
    }

    fn more(&mut self, what: &str) {
        self.lines.push(format!("{:23}{what}", ""));
    }

    fn changes(&mut self, stage: &Value) {
        for (name, value) in fields(stage, "set") {
            self.more(&format!("set {name}: {value}"));
        }
        if let list @ [_, ..] = items(stage, "removed") {
            self.more(&format!("removed {}", names(list)));
        }
    }

    fn logs(&mut self, stage: &Value) {
        for line in items(stage, "logs") {
            self.more(&format!("log {}: {}", text(line, "level"), text(line, "text").escape_debug()));
        }
    }
}

fn present<'a>(explanation: &'a Value, key: &str) -> Option<&'a Value> {
    explanation.get(key).filter(|value| !value.is_null())
}

fn text<'a>(explanation: &'a Value, key: &str) -> &'a str {
    explanation[key].as_str().unwrap_or_default()
}

fn items<'a>(explanation: &'a Value, key: &str) -> &'a [Value] {
    explanation[key].as_array().map_or(&[], Vec::as_slice)
}

fn fields<'a>(explanation: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, String)> {
    let fields = explanation[key].as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default().escape_debug().to_string()))
}

fn names(list: &[Value]) -> String {
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

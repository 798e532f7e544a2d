//! The schema of the configuration: what it says is what is read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;
use tollgate::config;
use tollgate_tests::Executable;

use crate::TOLLGATE;

fn compiled(schema: Value) -> (Schemas, SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("config.json", schema).expect("it is a resource");
    let place = compiler.compile("config.json", &mut schemas).unwrap_or_else(|error| panic!("{error:#}"));
    (schemas, place)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository").to_owned()
}

fn json(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}"));
    serde_json::to_value(table).expect("TOML is JSON, but for dates")
}

/// The configurations in a folder and below.
fn configurations(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            configurations(&path, found);
        } else if path.file_name().is_some_and(|name| name == "config.toml")
            && fs::read_to_string(&path).is_ok_and(|text| text.contains("[[listeners]]"))
        {
            found.push(path);
        }
    }
}

#[test]
fn what_is_shown_is_as_the_schema_says() {
    let (schemas, place) = compiled(config::schema());
    let mut paths = vec![repository().join("config.toml")];
    configurations(&repository().join("examples"), &mut paths);
    assert!(paths.len() > 2, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).expect("it can be read");
        for text in [text.clone(), crate::documented::uncommented(&text)] {
            // What is uncommented may stand twice, once for each way to write it.
            let Ok(table) = text.parse::<toml::Table>() else { continue };
            let value = serde_json::to_value(table).expect("TOML is JSON, but for dates");
            schemas.validate(&value, place).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        }
    }
}

#[test]
fn what_is_wrong_is_found_by_schema_and_reader_alike() {
    let (schemas, place) = compiled(config::schema());
    let good = "[[listeners]]\naddress = \"127.0.0.1:1\"\n[upstreams.app]\nendpoints = [\"http://127.0.0.1:2\"]\n\
                [[routes]]\nupstream = \"app\"\n";
    let read = |text: &str| config::read_text(Path::new("config.toml"), text.to_owned(), &|_| None);
    assert!(schemas.validate(&json(good), place).is_ok() && read(good).is_ok());
    for more in [
        "cache = true\n",
        "cache = { ttl = \"5m\" }\n",
        "compress = false\n",
        "[plugins.p]\nfail = \"open\"\nconfig = { any = [1, { thing = true }] }\n",
        "[plugins.p]\nfail = \"${FAIL:-open}\"\n",
    ] {
        let text = format!("{good}{more}");
        assert!(read(&text).is_ok(), "{more}");
        schemas.validate(&json(&text), place).unwrap_or_else(|error| panic!("{more}: {error:#}"));
    }
    for wrong in [
        "listen = 1\n",
        "[plugins.p]\nfial = \"open\"\n",
        "[plugins.p]\nfail = \"ajar\"\n",
        "[plugins.p]\nlimits = { time = 10 }\n",
        "[plugins.p.limits]\ninstances = 0\n",
        "[plugins.p]\ngrants = { store = \"much\" }\n",
        "[cache]\nentries = \"many\"\n",
        "[upstreams.other]\nendpoints = [{ weight = 1 }]\n",
        "[upstreams.other]\nretry = { budget = 2.5 }\n",
        "[log]\naccess = \"yes\"\n",
        "[[listeners]]\nhttp2 = true\n",
        "[[routes]]\nname = \"nowhere\"\n",
        "[limits]\nconnections = -1\n",
    ] {
        let text = format!("{good}{wrong}");
        assert!(read(&text).is_err(), "the reader takes {wrong}");
        assert!(schemas.validate(&json(&text), place).is_err(), "the schema takes {wrong}");
    }
}

/// Texts of which every key that must be there takes one.
const TEXTS: [&str; 6] = ["127.0.0.1:1", "http://127.0.0.1:1", "/path", "GET", "1MiB", "10.0.0.0/8"];

/// The least that the schema takes at a place, in each way there is to write it.
fn least(schema: &Value) -> Vec<Value> {
    if let Some(kinds) = schema["anyOf"].as_array() {
        return kinds.iter().flat_map(least).collect();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.clone();
    }
    match schema["type"].as_str() {
        Some("string") if schema["pattern"].is_null() => TEXTS.map(Value::from).to_vec(),
        Some("integer") => vec![1.into()],
        Some("number") => vec![0.5.into()],
        Some("boolean") => vec![true.into()],
        Some("array") => least(&schema["items"]).into_iter().map(|item| Value::from(vec![item])).collect(),
        Some("object") => {
            let mut tables = vec![serde_json::Map::new()];
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let values = least(&schema["properties"][key]);
                let with = |table: &serde_json::Map<String, Value>| -> Vec<_> {
                    values.iter().map(|value| with(table.clone(), key, value.clone())).collect()
                };
                tables = tables.iter().flat_map(with).collect();
            }
            // Where one of several keys is enough, it is there alone.
            let ways = schema["oneOf"].as_array().into_iter().flatten().map(|way| &way["required"][0]);
            let ways: Vec<_> = ways.filter_map(Value::as_str).collect();
            if !ways.is_empty() {
                let alone = |key: &&str| {
                    let values = least(&schema["properties"][key]).into_iter();
                    values.map(|value| serde_json::json!({ *key: value })).collect::<Vec<_>>()
                };
                return ways.iter().flat_map(alone).collect();
            }
            tables.into_iter().map(Value::from).collect()
        }
        _ => Vec::new(),
    }
}

fn with(
    mut table: serde_json::Map<String, Value>,
    key: &str,
    value: Value,
) -> serde_json::Map<String, Value> {
    table.insert(key.to_owned(), value);
    table
}

/// What the reader says of a file, if anything.
fn refusal(file: &Value) -> Option<String> {
    let text = toml::to_string(file).expect("it is TOML");
    let read = config::read_text(Path::new("config.toml"), text, &|_| None);
    read.err().map(|problems| problems.to_string())
}

/// Looks at every table of the schema: with the keys alone that it says are required, the reader misses none, and without any
/// one of them it does. `file` puts a value of the table's place into a file that is good without it. Notes what is wrong,
/// and the places that were looked at.
fn look(
    schema: &Value,
    place: &str,
    file: &dyn Fn(Value) -> Value,
    seen: &mut Vec<String>,
    wrong: &mut Vec<String>,
) {
    for kind in schema["anyOf"].as_array().into_iter().flatten() {
        look(kind, place, file, seen, wrong);
    }
    if schema["items"].is_object() {
        look(&schema["items"], &format!("{place}[]"), &|item| file(vec![item].into()), seen, wrong);
    }
    if schema["additionalProperties"].is_object() {
        let named = |value| file(serde_json::json!({ "name": value }));
        look(&schema["additionalProperties"], &format!("{place}.*"), &named, seen, wrong);
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let mut good = None;
    let mut refusals = Vec::new();
    for table in least(schema) {
        match refusal(&file(table.clone())) {
            None => good = good.or(Some(table)),
            Some(refusal) => refusals.push(refusal),
        }
    }
    let missed: Vec<&String> = refusals.iter().filter(|refusal| refusal.contains("is missing")).collect();
    if let [missed, ..] = missed[..] {
        wrong.push(format!("{place}: the schema takes what the reader does not: {missed}"));
        return;
    }
    let Some(Value::Object(good)) = good else {
        let refusal = refusals.last().map_or("there is nothing to try", String::as_str);
        // What this executable cannot do has no good table.
        if !refusals.iter().any(|refusal| refusal.contains("this executable was built without")) {
            wrong.push(format!("{place}: nothing of it is taken: {refusal}"));
        }
        return;
    };
    seen.push(place.to_owned());
    for key in good.keys() {
        let mut without = good.clone();
        without.remove(key);
        if refusal(&file(without.into())).is_none() {
            wrong.push(format!("{place}: the reader does without `{key}`"));
        }
    }
    for (key, inner) in properties {
        let inside = |value| file(with(good.clone(), key, value).into());
        look(inner, &format!("{place}.{key}"), &inside, seen, wrong);
    }
}

#[test]
fn what_the_schema_takes_lacks_nothing() {
    let schema = config::schema();
    let base: serde_json::Map<String, Value> = match json(
        "[[listeners]]\naddress = \"127.0.0.1:1\"\n[upstreams.app]\nendpoints = [\"http://127.0.0.1:2\"]\n\
         [[routes]]\nupstream = \"app\"\n",
    ) {
        Value::Object(base) => base,
        other => panic!("{other} is no table"),
    };
    assert_eq!(refusal(&base.clone().into()), None);
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    for (key, inner) in schema["properties"].as_object().expect("it is a table") {
        let file = |value| with(base.clone(), key, value).into();
        look(inner, key, &file, &mut seen, &mut wrong);
    }
    assert_eq!(wrong, [] as [String; 0]);
    for place in [
        "listeners[].tls.certificates[]",
        "upstreams.*.discover.consul",
        "plugins.*.canary",
        "plugins.*.grants.secrets.*",
        "routes[].cache.query",
    ] {
        assert!(seen.iter().any(|known| known == place), "{place} was not looked at: {seen:?}");
    }
}

#[test]
fn keys_are_described_and_have_defaults() {
    let schema = config::schema();
    let limits = &schema["properties"]["listeners"]["items"]["properties"]["limits"]["properties"];
    assert_eq!(limits["connections"]["default"], 10_000, "{limits:#}");
    let description = limits["connections"]["description"].as_str().unwrap_or_default();
    assert!(description.contains("Client connections to this listener"), "{description}");
    assert_eq!(limits["connections"]["type"], "integer");
    assert_eq!(schema["properties"]["listeners"]["items"]["required"], serde_json::json!(["address"]));
    let upstreams = &schema["properties"]["upstreams"]["additionalProperties"]["properties"];
    assert!(upstreams["balance"].is_object(), "{upstreams:#}");
}

#[tokio::test]
async fn it_is_printed_and_so_are_completions() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (status, printed, _) = Executable::start(TOLLGATE, folder.path(), &["schema"]).end().await;
    assert!(status.success());
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("it is JSON"), config::schema());
    for (shell, words) in
        [("bash", "complete -F _tollgate"), ("zsh", "#compdef tollgate"), ("fish", "complete -c tollgate")]
    {
        let (status, printed, _) =
            Executable::start(TOLLGATE, folder.path(), &["completions", shell]).end().await;
        assert!(status.success() && printed.contains(words) && printed.contains("explain"), "{shell}");
    }
    let (status, ..) = Executable::start(TOLLGATE, folder.path(), &["completions", "none"]).end().await;
    assert_eq!(status.code(), Some(2));
}

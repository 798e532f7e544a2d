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

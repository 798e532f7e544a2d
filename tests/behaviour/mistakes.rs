//! What an operator is told who makes a mistake with a plugin: where it is, and what to write instead.

use std::{fs, path::Path};

use tollgate_tests::{Executable, Handmade, granted_guest, guest, waiting_guest};

use crate::TOLLGATE;

/// A route through the plugin of this name, and more lines.
fn config(plugin: &str, more: &str) -> String {
    format!(
        "[[listeners]]
address = \"127.0.0.1:0\"
[upstreams.app]
endpoints = [\"http://127.0.0.1:1\"]
[[routes]]
upstream = \"app\"
plugins = [\"{plugin}\"]
{more}
"
    )
}

/// What is said of it by a command, with these files among the plugins.
async fn told(command: &str, config: &str, files: &[(&str, &[u8])]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins).expect("a folder can be made");
    let write = |path: &Path, content: &[u8]| fs::write(path, content).expect("a file can be written");
    for (name, content) in files {
        write(&plugins.join(name), content);
    }
    write(&folder.path().join("config.toml"), config.as_bytes());
    let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &[command]).end().await;
    assert_eq!(status.code(), Some(2), "{config}\n{errors}");
    errors
}

/// Each: the plugin that the route names, what else is written, and what is said: the line with the mistake, and what to
/// write in its place.
const IN_THE_TABLE: [(&str, &str, &[&str]); 29] = [
    (
        "api-key",
        "[plugins.api-key]\nconfig = { header = \"host\", keys = { demo = \"k\" } }",
        &["config.toml:8:10", "`header` in `config`: a plugin may set `host`"],
    ),
    (
        "api-key",
        "[plugins.api-key]\nconfig = { header = \"X_Forwarded_For\", keys = { demo = \"k\" } }",
        &["config.toml:8:10", "the proxy itself writes `x_forwarded_for`"],
    ),
    (
        "jwt",
        "[plugins.jwt]\nconfig = { secret = \"0123456789abcdef0123456789abcdef\", claims = { sub = \"via\" } }",
        &["config.toml:8:10", "`claims` in `config`: the proxy itself writes `via`"],
    ),
    (
        "headers",
        "[plugins.headers]\nconfig = { request = { set = { x-request-id = \"1\" } } }",
        &["config.toml:8:10", "`request.set` in `config`: the proxy itself writes `x-request-id`"],
    ),
    ("guest", "[plugins.guest]\nconfg = { a = 1 }", &["config.toml:9:1", "did you mean `config`?"]),
    (
        "guest",
        "[plugins.guest]\ntime = \"10ms\"",
        &["config.toml:9:1", "the keys of this table are", "`limits`"],
    ),
    (
        "guest",
        "[plugins.guest]\nlimits = \"10ms\"",
        &["config.toml:9:10", "the keys of this table are `time`, `memory`"],
    ),
    ("guest", "[plugins.guest]\nlimits = { time = 10 }", &["config.toml:9:19", "such as \"250ms\""]),
    ("guest", "[plugins.guest]\nlimits = { instances = 0 }", &["config.toml:9:24", "a whole number from 1"]),
    (
        "guest",
        "[plugins.guest]\nlimits = { memory = \"64KiB\" }",
        &["config.toml:8:10", "raise limits = { memory = \"64MiB\" } under [plugins.guest]"],
    ),
    (
        "guest",
        "[plugins.guest]\nlimits = { memory-in-all = \"1MiB\" }",
        &["config.toml:8:10", "raise limits = { memory-in-all = \"512MiB\" } under [plugins.guest]"],
    ),
    (
        "granted",
        "[plugins.granted]\ngrants = true",
        &["config.toml:9:10", "a table such as { store = true, body = true, http = [", "found true or false"],
    ),
    (
        "granted",
        "[plugins.granted]\ngrants = [\"store\"]",
        &["config.toml:9:10", "a table such as { store = true, body = true, http = [", "found an array"],
    ),
    (
        "granted",
        "",
        &["config.toml:7:12", "write `grants = { store = true, secrets = { ", "under [plugins.granted]"],
    ),
    (
        "granted",
        "[plugins.granted]\ngrants.store = \"16MiB\"",
        &["config.toml:9:16", "{ memory = \"16MiB\" }"],
    ),
    (
        "granted",
        "[plugins.granted]\ngrants.secrets.token = \"hunter2\"",
        &["config.toml:9:24", "expected { env = \"VARIABLE\" } or { file = \"path\" }"],
    ),
    (
        "granted",
        "[plugins.granted.grants]\nstore = true\nsecrets.token = { env = \"TOLLGATE_NOT_SET\" }",
        &["config.toml:10:17", "`TOLLGATE_NOT_SET` is not set", "set it where `tollgate` is started"],
    ),
    (
        "granted",
        "[plugins.granted.grants]\nstore = true\nsecrets.token = { file = \"gone\" }",
        &["config.toml:10:17", "cannot read gone", "write the file"],
    ),
    (
        "waiting",
        "[plugins.waiting]\ngrants.http = \"https://a\"",
        &["config.toml:9:15", "write it in brackets"],
    ),
    (
        "waiting",
        "[plugins.waiting]\ngrants.http = [\"https://*.example.com\"]",
        &["config.toml:9:16", "an origin is one host"],
    ),
    ("guest", "[plugins.guest]\ncanary = 1", &["config.toml:9:10", "a weight between 0 and 1"]),
    (
        "guest",
        "[plugins.guest]\ncanary = { for = \"5m\" }",
        &["config.toml:9:10", "the key `weight` is missing"],
    ),
    ("guest", "[plugins.guest]\nsha256 = \"abc\"", &["config.toml:9:10", "as `sha256sum` prints it"]),
    (
        "guest",
        "[plugins.guest]\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
        &["config.toml:8:10", "if this is the file that you mean, write sha256 = \""],
    ),
    (
        "guest",
        "[plugins.guest]\npublic-key = \"abc\"",
        &["config.toml:9:14", "`openssl pkey -in key.pem -pubout` prints"],
    ),
    (
        "guest",
        "[plugins.guest]\npublic-key = \"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"\n\
         signature = \"5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==\"",
        &["config.toml:8:10", "sign this very file with that key, or name whoever has signed it"],
    ),
    (
        "guest",
        "[plugins.round-robin]\nroutes = \"all\"",
        &["config.toml:8:10", "leave `routes` out", "balance = \"round-robin\""],
    ),
    ("guest", "[plugins.guest]\nfail = \"close\"", &["config.toml:9:8", "did you mean `closed`?"]),
    ("guest", "[plugins.guest]\nyields = \"yes\"", &["config.toml:9:10", "expected true or false"]),
];

/// The same of the names of plugins and of their files.
const IN_A_NAME: [(&str, &str, &[&str]); 7] = [
    ("gest", "", &["config.toml:7:12", "there is no file plugins/gest.wasm", "did you mean `guest`?"]),
    ("api-keys", "", &["config.toml:7:12", "did you mean `api-key`?"]),
    ("guest.wasm", "", &["config.toml:7:12", "the name of its file without `.wasm`: write `guest`"]),
    (
        "guest",
        "[plugins.guest]\nfile = \"plugins/guest.wasm\"",
        &["config.toml:8:10", "as they are in `plugin-dir`: \"guest.wasm\""],
    ),
    ("nowhere-near", "", &["config.toml:7:12", "put it into plugins, or say with `file` which file it is"]),
    ("guest", "shadow = \"guest@nxt.wasm\"", &["config.toml:8:10", "did you mean `next`?"]),
    ("guest", "shadow = \"guest@waiting.wasm\"", &["config.toml:8:10", "`canary` under [plugins.guest]"]),
];

#[tokio::test]
async fn a_mistake_is_told_with_its_line_and_what_to_write() {
    let (guest, granted, waiting) = (guest(), granted_guest(), waiting_guest());
    let files: [(&str, &[u8]); 4] = [
        ("guest.wasm", &guest),
        ("granted.wasm", &granted),
        ("waiting.wasm", &waiting),
        ("next.wasm", &guest),
    ];
    for (plugin, more, words) in IN_THE_TABLE.iter().chain(&IN_A_NAME) {
        let config = config(plugin, more);
        let shown = told("check", &config, &files).await;
        for word in *words {
            assert!(shown.contains(word), "{word:?} is not in\n{shown}");
        }
    }
    let elsewhere = format!("plugin-dir = \"plugin\"\n{}", config("guest", ""));
    let shown = told("check", &elsewhere, &files).await;
    assert!(shown.contains("there is no folder plugin: say with `plugin-dir` where plugins are"), "{shown}");
    // What is shipped may be meant without any folder.
    let misspelt = format!("plugin-dir = \"plugin\"\n{}", config("api-keys", ""));
    let shown = told("check", &misspelt, &files).await;
    assert!(shown.contains("did you mean `api-key`?"), "{shown}");
    // A proxy that is to start says the same.
    let shown = told("run", &config("gest", ""), &files).await;
    assert!(shown.contains("config.toml:7:12") && shown.contains("did you mean `guest`?"), "{shown}");
}

#[tokio::test]
async fn a_file_that_is_no_plugin_is_told_with_what_to_do_about_it() {
    let guest = guest();
    let (ours, theirs) = (b"@0.1.0", b"@0.9.0");
    let mut other = guest.clone();
    for place in 0..other.len() - ours.len() {
        if other[place..].starts_with(ours) {
            other[place..place + ours.len()].copy_from_slice(theirs);
        }
    }
    let harmless = Handmade::Harmless.component();
    let tests = b"[[case]]\nname = 'it replies'\nrequest = {}\nexpect = { verdict = 'reply' }\n";
    let copied = "copy the file once more";
    for (files, words) in [
        (
            &[("p.wasm", &b"\0asm\x01\0\0\0"[..])][..],
            &["a core WebAssembly module", "build it for wasm32-wasip2"][..],
        ),
        (&[("p.wasm", &other)], &["version 0.9.0 of the contract", "rebuild it against the wit/ folder"]),
        (&[("p.wasm", b"hello")], &["it does not begin with `\\0asm`", copied]),
        (&[("p.wasm", b"")], &["it is empty", copied]),
        (&[("p.wasm", &guest[..guest.len() / 2])], &["not a WebAssembly component", copied]),
        (
            &[("p.wasm", &harmless), ("p.toml", b"fial = \"open\"")],
            &["p.toml:1: unknown key `fial`", "did you mean `fail`?"],
        ),
        (
            &[("p.wasm", &harmless), ("p.toml", b"[plugins.p]\nfail = \"open\"")],
            &["without [plugins.p] above them"],
        ),
        (
            &[("p.wasm", &harmless), ("p.test.toml", tests)],
            &["it fails its tests", "`tollgate plugin test plugins/p.wasm`"],
        ),
        (
            &[("p.wasm", &harmless), ("p.test.toml", b"[[cas]]")],
            &["p.test.toml:1: unknown key `cas`", "did you mean `case`?"],
        ),
    ] {
        let shown = told("check", &config("p", ""), files).await;
        for word in words.iter().chain(&["config.toml:7:12"]) {
            assert!(shown.contains(word), "{word:?} is not in\n{shown}");
        }
    }
    // Settings beside a plugin are where to write what is missing, since there may be no table besides.
    for (name, content, beside, words) in [
        (
            "g",
            &granted_guest()[..],
            "routes = \"all\"",
            &["write `grants = { store = true, ", "` in g.toml, beside the plugin"],
        ),
        (
            "g",
            &guest,
            "routes = \"all\"\nlimits = { memory = \"64KiB\" }",
            &["help: if that", "in g.toml, beside the plugin"],
        ),
    ] {
        let files = [(&*format!("{name}.wasm"), content), (&*format!("{name}.toml"), beside.as_bytes())];
        let shown = told("check", &config("api-key", ""), &files).await;
        assert!(words.iter().all(|word| shown.contains(word)) && !shown.contains("[plugins.g]"), "{shown}");
    }
    // What no route needs is a warning, with the same words, and so are settings of a plugin that is not there.
    let needless: [(&str, &[u8]); 4] = [
        ("guest.wasm", &guest),
        ("gest.toml", b"routes = \"all\""),
        ("p.wasm", b"hello"),
        ("p.test.toml", b""),
    ];
    let shown = told("check", &config("nowhere-near", ""), &needless).await;
    let odd = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = odd.path().join("plugins");
    fs::create_dir(&plugins).expect("a folder can be made");
    std::os::unix::fs::symlink("nowhere", plugins.join("link.wasm")).expect("a link can be made");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        plugins.join("pipe.wasm"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("a pipe can be made");
    fs::write(odd.path().join("config.toml"), config("nowhere-near", "")).expect("a file can be written");
    let (_, _, errors) = Executable::start(TOLLGATE, odd.path(), &["check"]).end().await;
    for words in [
        ["there is no file plugins/link.wasm", "a link that leads nowhere"],
        ["cannot read plugins/pipe.wasm", "it is a FIFO, and only regular files are read"],
    ] {
        let line = errors.lines().find(|line| line.contains(words[0])).unwrap_or_default();
        assert!(line.contains(words[1]), "{words:?} are not in\n{errors}");
    }
    for words in [["p.wasm is not usable", copied], ["settings of no plugin", "did you mean `guest`?"]] {
        let line = shown.lines().find(|line| line.contains(words[0])).unwrap_or_default();
        assert!(line.contains(words[1]), "{words:?} are not in\n{shown}");
    }
    let two: [(&str, &[u8]); 2] = [("p.wasm", &harmless), ("p.toml", b"fail = \"open\"")];
    let shown = told("check", &config("p", "[plugins.p]"), &two).await;
    assert!(shown.contains("config.toml:8:10") && shown.contains("remove one of them"), "{shown}");
}

//! Plugins on trial: what `<name>.test.toml` says, and what comes of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
};

use tollgate::{
    plugin::{Code, Compiler, Engine, EngineSettings},
    plugin_tests::{PluginUnderTest, Report, TestFile, bless, conformance::Finding},
};
use tollgate_tests::{granted_guest, guest, shipped, told_guest, waiting_guest};

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository").to_owned()
}

/// One for all tests, as it is for a process.
pub(crate) fn load(component: &[u8]) -> Arc<Code> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let artifacts = Some(PathBuf::from(concat!(env!("OUT_DIR"), "/artifacts")));
        Engine::new(&EngineSettings { workers: 2, artifacts, compiler: Compiler::InProcess })
            .expect("the engine starts")
    });
    engine.load(component).expect("the component is a plugin")
}

fn read(text: &str) -> TestFile {
    match TestFile::read_text(Path::new("guest.test.toml"), text.to_owned()) {
        Ok((file, _)) => file,
        Err(problems) => panic!("{problems}"),
    }
}

/// Lets the guest go through cases. It does as `x-do`, `x-do-response` and `x-do-pick` say.
fn run(cases: &str) -> Report {
    // Time enough for a build without optimisation on a machine with much to do.
    let config =
        "config = { request = 'obey', response = 'obey', pick = 'obey' }\nlimits = { time = '2s' }\n";
    PluginUnderTest { name: "guest".into(), code: load(&guest()) }.run(&read(&format!("{config}{cases}")))
}

/// What differs, as it is shown: place, expected, actual.
pub(crate) fn differences(report: &Report) -> Vec<(String, String, String)> {
    let steps = report.cases.iter().flat_map(|case| &case.steps);
    let all = steps.flat_map(|step| &step.differences);
    all.map(|difference| (difference.place(), difference.expected.clone(), difference.actual.clone()))
        .collect()
}

#[track_caller]
fn passes(cases: &str) {
    let report = run(cases);
    assert!(!report.cases.is_empty());
    assert_eq!(differences(&report), [], "{cases}");
}

#[track_caller]
fn differs(case: &str, place: &str, expected: &str, actual: &str) {
    let found = differences(&run(&format!("[[case]]\nname = 'a case'\n{case}")));
    assert_eq!(found, [(place.to_owned(), expected.to_owned(), actual.to_owned())], "{case}");
}

#[test]
fn a_plugin_that_sleeps_moves_its_clock() {
    passes(
        "[[case]]\nname = 'a nap'\nrequest = { headers = { x-do = 'nap', x-says = '1900000' } }\nexpect = { verdict = 'next' }\n",
    );
    let report = run(
        "[[case]]\nname = 'a case'\nrequest = { headers = { x-do = 'sleep' } }\nexpect = { verdict = 'next' }\n",
    );
    let found = format!("{:?}", differences(&report));
    assert!(found.contains("ran longer than 2000 ms"), "{found}");
}

/// What the battery says of the guest with this file of tests, but for what is fine.
fn faults(tests: &str) -> Vec<(&'static str, Finding)> {
    let found =
        PluginUnderTest { name: "guest".into(), code: load(&guest()) }.conformance(Some(&read(tests)));
    let is_fault = |finding: &Finding| !matches!(finding, Finding::Passed | Finding::Skipped(_));
    let faults = found.findings.into_iter().filter(|(_, finding)| is_fault(finding));
    faults.map(|(check, finding)| (check.id(), finding)).collect()
}

#[test]
fn the_battery_finds_what_is_wrong_with_a_plugin() {
    let except =
        "conformance = { except = { C011 = 'the guest takes anything' } }\nlimits = { time = '1s' }\n";
    assert_eq!(faults(except), []);

    // It takes whatever it is given.
    let found = faults("config = { says = 'x' }");
    let words = "it takes a value of a wrong type for `says`".to_owned();
    assert_eq!(found, [("C011", Finding::Failed(words))]);

    // A case that fails by itself says so, and no check is to blame for it.
    let tests = format!(
        "{except}config = {{ request = 'obey' }}\n[[case]]\nname = 'a case'\nrequest = {{ headers = {{ x-do = 'trap' }} }}\n\
         expect = {{ verdict = 'next' }}"
    );
    assert_eq!(faults(&tests), []);
    let trial = PluginUnderTest { name: "guest".into(), code: load(&guest()) };
    assert!(!trial.run(&read(&tests)).has_passed());

    // It fails whatever it is asked.
    let found = faults(&format!("{except}config = {{ request = 'trap' }}"));
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    assert!(ids.contains(&"C030"), "{found:?}");
    let is_plugins =
        |(_, finding): &(_, Finding)| matches!(finding, Finding::Failed(words) if words.contains("trapped"));
    assert!(found.iter().all(is_plugins), "{found:?}");

    // It keeps what it should give back.
    let found = faults(&format!("{except}config = {{ request = 'grow-slowly' }}"));
    let [("C030", Finding::Failed(words))] = found.as_slice() else { panic!("{found:?}") };
    assert!(words.contains("three quarters"), "{words}");

    // It traps on what is no configuration of its own.
    let found = faults(&format!("{except}config = {{ configure = 'trap' }}"));
    let [("C003", Finding::Failed(words))] = found.as_slice() else { panic!("{found:?}") };
    assert!(words.contains("fails while it is configured"), "{words}");
}

#[test]
fn what_happens_can_be_written_into_the_tests() {
    let text = r#"# A comment that stays.
config = { request = "obey", response = "obey", pick = "obey" }

[[case]]
name = "nothing is expected"    # stays, too
request = { headers = { x-do = "reply" } }

[[case]]
name = "something else is expected"
request = { headers = { x-do = "note", x-says = "hello" } }
expect = { verdict = "reply", notes = { note = "bye" }, headers = { x-none = "1" } } # stays as well

[[case]]
name = "steps"
[[case.step]]
request = { headers = { x-do = "header", x-says = "a" } }
expect = { headers = { x-guest = "b" } }
[[case.step]]
response = { status = 500 }
[case.step.expect]
response = { status = 200 }

[[case]]
name = "the wrong one is picked"
endpoints = [{ address = "a:1" }]
request = { headers = { x-do-pick = "first" } }
pick = { calls = 2 }
expect = { picks = [1], share = { "a:1" = 0.5 } }

[[case]]
name = "a failure"
request = { headers = { x-do = "trap" } }
expect = { verdict = "next" }
"#;
    let trial = PluginUnderTest { name: "guest".into(), code: load(&guest()) };
    let file = read(text);
    let blessed = bless(text, &file, &trial.run(&file)).expect("the text is TOML");
    assert_eq!(blessed.left, ["a failure"]);
    for kept in
        ["# A comment that stays.", "# stays, too", "# stays as well", "expect = { verdict = \"next\" }"]
    {
        assert!(blessed.text.contains(kept), "{kept}: {}", blessed.text);
    }
    let report = trial.run(&read(&blessed.text));
    let failed: Vec<_> =
        report.cases.iter().filter(|case| !case.has_passed()).map(|case| &case.name).collect();
    assert_eq!(failed, ["a failure"], "{}", blessed.text);
    assert!(blessed.text.contains("418"), "{}", blessed.text);
}

#[test]
fn bodies_what_is_stored_and_what_was_sent_can_be_written_into_the_tests() {
    let text = r#"
[[http]]
url = "https://a.test/x"
status = 204

[[case]]
name = "bodies"
request = { headers = { x-do = "set another one", x-do-response = "set and that" }, body = "one" }
response = { body = "that" }
expect = { body = "one", response = { body = "that" } }

[[case]]
name = "what is sent"
request = { headers = { x-do = "send GET https://a.test/x" } }
expect = { sent = [] }
"#;
    let trial = PluginUnderTest { name: "waiting".into(), code: load(&waiting_guest()) };
    let file = read(text);
    assert_eq!(trial.run(&file).cases.iter().filter(|case| case.has_passed()).count(), 0);
    let blessed = bless(text, &file, &trial.run(&file)).expect("the text is TOML");
    assert_eq!(blessed.left, [""; 0], "{}", blessed.text);
    assert!(
        blessed.text.contains("body = \"another one\"") && blessed.text.contains("body = \"and that\""),
        "{}",
        blessed.text
    );
    assert!(blessed.text.contains("sent = [\"GET https://a.test/x\"]"), "{}", blessed.text);
    assert_eq!(differences(&trial.run(&read(&blessed.text))), []);

    let text = r#"
[[case]]
name = "what is stored"
request = { headers = { x-do = "set a 1" } }
expect = { store = { a = "2", b = "*" } }
"#;
    let trial = PluginUnderTest { name: "granted".into(), code: load(&granted_guest()) };
    let file = read(text);
    let blessed = bless(text, &file, &trial.run(&file)).expect("the text is TOML");
    assert!(blessed.text.contains("store = { a = \"1\", b = false }"), "{}", blessed.text);
    assert_eq!(differences(&trial.run(&read(&blessed.text))), []);
}

#[test]
fn a_client_without_an_address_and_an_upstream_without_endpoints_can_be_written() {
    let trial = PluginUnderTest { name: "guest".into(), code: load(&guest()) };
    let file = read(
        "config = { pick = 'first' }\n[[case]]\nname = 'nobody is left'\nendpoints = []\n\
         request = { client-address = 'unix:' }\npick = {}\nexpect = { picks = [false] }\n\
         [[case]]\nname = 'an address'\nrequest = { client-address = '2001:db8::1' }\ncomplete = [{ client-address = 'unix:' }]\n\
         expect = { headers = { x-forwarded-for = '2001:db8::1' } }\n",
    );
    let report = trial.run(&file);
    let found = differences(&report);
    // The guest is not told of what has ended.
    assert!(found.iter().all(|(place, ..)| place == "complete"), "{found:?}");
    let path = std::path::Path::new("a.test.toml");
    let wrong =
        TestFile::read_text(path, "[[case]]\nname = 'a'\nrequest = { client-address = 'unix' }\n".to_owned());
    let wrong = wrong.map(drop).expect_err("it is no address").to_string();
    assert!(wrong.contains("\"unix:\" for a client of a Unix socket"), "{wrong}");
}

#[test]
fn a_case_that_fails_shows_what_the_plugin_has_said() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write =
        |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("it can be written");
    write("guest.wasm", &guest());
    let quickly = "conformance = { except = { C003 = '-', C011 = '-', C012 = '-', C013 = '-', C022 = '-', C024 = '-', \
                   C030 = '-', C031 = '-' } }\nlimits = { time = '2s' }\n";
    let cases = "[[case]]\nname = 'a trap'\nrequest = { headers = { x-do = 'trap' } }\nexpect = { verdict = 'next' }\n\
                 [[case]]\nname = 'a start'\nconfig = { configure = 'trap' }\nrequest = {}\nexpect = { verdict = 'next' }\n\
                 [[case]]\nname = 'a line'\nrequest = { headers = { x-do = 'log', x-says = 'nobody' } }\nexpect = { verdict = 'reply' }\n\
                 [[case]]\nname = 'it passes'\nrequest = { headers = { x-do = 'log', x-says = 'silence' } }\nexpect = { verdict = 'next' }\n";
    write("guest.test.toml", format!("{quickly}config = {{ request = 'obey' }}\n{cases}").as_bytes());
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "--junit", "report.xml"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("1 passed, 3 failed"), "{printed}");
    assert_eq!(printed.matches("info  the guest panics on purpose").count(), 2, "{printed}");
    assert!(printed.contains("warn  nobody was here"), "{printed}");
    assert!(!printed.contains("silence was here"), "{printed}");
    let report = fs::read_to_string(folder.path().join("report.xml")).expect("it was written");
    assert!(report.contains("the guest panics on purpose") && report.contains("nobody was here"), "{report}");
}

/// The executable at work in a folder; its exit code, and what it printed.
fn tollgate(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(crate::TOLLGATE)
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", concat!(env!("OUT_DIR"), "/cache"))
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", concat!(env!("OUT_DIR"), "/scaffold"))
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn the_command_tells_a_fault_of_the_plugin_from_one_of_what_is_around_it() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write =
        |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("it can be written");
    write("guest.wasm", &guest());
    let tests = "config = { request = 'obey' }\nlimits = { time = '1s' }\nconformance = { except = { C011 = 'it does' } }\n[[case]]\nname = 'a case'\nrequest = {}\nexpect = ";
    write("guest.test.toml", format!("{tests}{{ verdict = 'next' }}\n").as_bytes());
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "--junit", "report.xml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("ok   a case") && printed.contains("1 passed, 0 failed"), "{printed}");
    let report = fs::read_to_string(folder.path().join("report.xml")).expect("it was written");
    assert!(report.contains("name=\"a case\"") && report.contains("failures=\"0\""), "{report}");

    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "--conformance", "guest.wasm"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("ok   C030 ") && printed.contains("skip C011 "), "{printed}");

    write("guest.test.toml", format!("{tests}{{ verdict = 'reply' }}\n").as_bytes());
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "guest.test.toml"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("- reply\n") && printed.contains("+ next\n"), "{printed}");
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "--bless"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(tollgate(folder.path(), &["plugin", "test"]).0, Some(0));

    write("broken.wasm", b"\0asm\x01\0\0\0");
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "broken.wasm"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("FAIL C001") && printed.contains("not a component"), "{printed}");

    write("build.test.toml", b"build = 'echo no compiler; false'\n");
    for path in ["nowhere.wasm", "build.test.toml"] {
        let (code, printed) = tollgate(folder.path(), &["plugin", "test", path]);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains("error: "), "{printed}");
    }
    write("typo.test.toml", b"[[case]]\nname = 'a'\nrequst = {}\n");
    let (code, printed) = tollgate(folder.path(), &["plugin", "test", "typo.test.toml"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("typo.test.toml:3:1") && printed.contains("did you mean `request`?"),
        "{printed}"
    );
}

#[test]
fn the_command_shows_what_is_in_a_component() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("guest.wasm"), guest()).expect("it can be written");
    let (code, printed) = tollgate(folder.path(), &["plugin", "inspect", "guest.wasm"]);
    assert_eq!(code, Some(0), "{printed}");
    for words in [
        "on-request, on-response, pick",
        "grants:     none needed",
        "processed-by: wit-component",
        "memory: ",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    let (_, printed) = tollgate(folder.path(), &["plugin", "inspect", "--json", "guest.wasm"]);
    let json: serde_json::Value = serde_json::from_str(&printed).expect("it is JSON");
    assert_eq!(json["contract"][0], json["spoken"]);

    // The same component, but for the version of the contract that it names.
    let mut component = guest();
    let places: Vec<usize> =
        (0..component.len() - 40).filter(|place| component[*place..].starts_with(b"policy/")).collect();
    for place in places {
        if let Some(at) = component[place..place + 40].windows(6).position(|bytes| bytes == b"@0.1.0") {
            component[place + at + 5] = b'7';
        }
    }
    fs::write(folder.path().join("old.wasm"), component).expect("it can be written");
    let (code, printed) = tollgate(folder.path(), &["plugin", "inspect", "old.wasm"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("0.1.7") && printed.contains("rebuild it against"), "{printed}");

    fs::write(folder.path().join("text.wasm"), "not a plugin").expect("it can be written");
    let (code, printed) = tollgate(folder.path(), &["plugin", "inspect", "text.wasm"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.ends_with("not WebAssembly: it does not begin with `\\0asm`\n"), "{printed}");
}

#[test]
fn whoever_reads_what_is_printed_may_have_seen_enough() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("guest.wasm"), guest()).expect("it can be written");
    let (reader, writer) = std::io::pipe().expect("there is a pipe");
    drop(reader);
    let output = Command::new(crate::TOLLGATE)
        .args(["plugin", "inspect", "guest.wasm"])
        .current_dir(folder.path())
        .stdout(writer)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_plugin_begins_with_a_project_that_builds_and_passes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (code, printed) = tollgate(folder.path(), &["plugin", "new", "rust", "my-gate"]);
    assert_eq!(code, Some(0), "{printed}");
    let project = folder.path().join("my-gate");
    // Versions that are on this machine, since the registry may be out of reach.
    fs::copy(repository().join("Cargo.lock"), project.join("Cargo.lock")).expect("it can be copied");
    let (code, printed) = tollgate(&project, &["plugin", "test"]);
    if code == Some(2) && (printed.contains("--offline") || printed.contains("no matching package")) {
        eprintln!("skipped: the crates that the project needs are not on this machine\n{printed}");
        return;
    }
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("17 passed, 0 failed"), "{printed}");
    // What a Rust programmer does next.
    let cargo = |arguments: &[&str]| {
        let output = Command::new("cargo")
            .args(arguments)
            .current_dir(&project)
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TARGET_DIR", concat!(env!("OUT_DIR"), "/scaffold"))
            .output()
            .expect("cargo can be run");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    };
    let (is_formatted, printed) = cargo(&["fmt", "--check"]);
    assert!(is_formatted, "{printed}");
    let (has_passed, printed) = cargo(&["test"]);
    assert!(has_passed && printed.contains("2 passed") && !printed.contains("warning"), "{printed}");
    // A folder that is there already is left alone.
    assert_eq!(tollgate(folder.path(), &["plugin", "new", "rust", "my-gate"]).0, Some(2));
    assert_eq!(tollgate(folder.path(), &["plugin", "new", "rust", "../x"]).0, Some(2));
    // One whose name ends like the file in the examples.
    assert_eq!(tollgate(folder.path(), &["plugin", "new", "c", "my-policy"]).0, Some(0));
    for file in ["README.md", "Makefile", "my-policy.test.toml"] {
        let text = fs::read_to_string(folder.path().join("my-policy").join(file)).expect("it was written");
        assert!(text.contains("my-policy.wasm") && !text.contains("my-my-policy"), "{file}: {text}");
    }
}

#[test]
fn a_project_in_any_language_has_its_source_its_tests_and_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (language, source, build) in [
        ("rust", "src/lib.rs", "cargo build"),
        ("c", "policy.c", "make"),
        ("cpp", "policy.cpp", "make"),
        ("zig", "policy.zig", "make"),
        ("go", "policy/policy.go", "make"),
        ("javascript", "policy.js", "npm run build"),
        ("typescript", "policy.ts", "npm run build"),
        ("python", "policy.py", "make"),
        ("assemblyscript", "policy.ts", "npm run build"),
    ] {
        let (code, printed) =
            tollgate(folder.path(), &["plugin", "new", language, "gate", "--dir", language]);
        assert_eq!(code, Some(0), "{printed}");
        let file = |path: &str| {
            let path = folder.path().join(language).join(path);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        assert!(file(source).contains("x-consumer"), "{language}");
        assert!(file("README.md").contains(build), "{language}");
        assert!(file("wit/world.wit").contains("world policy"), "{language}");
        assert!(file("wit/deps/tollgate/policy.wit").contains("interface lifecycle"), "{language}");
        assert_eq!(read(&file("gate.test.toml")).cases.len(), 17, "{language}");
        // Nothing is left to fill in, and the component has the name of the plugin.
        for entry in fs::read_dir(folder.path().join(language)).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_file() {
                let text = fs::read_to_string(&path).expect("it is text");
                for left in ["{{name}}", "{{identifier}}", "{{tools}}", "{{build}}", "policy.wasm"] {
                    assert!(!text.contains(left), "{left} in {}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_page_on_tests_shows_what_can_be_written() {
    let text = fs::read_to_string(repository().join("docs/plugin-testing.md")).expect("the page is there");
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 4, "{examples:?}");
    examples.into_iter().for_each(|example| drop(read(example)));
}

#[test]
fn what_is_expected_and_happens_passes() {
    passes(
        r#"
        [[case]]
        name = "on-request"
        request = { method = "PUT", path = "/a/../b?c", headers = { x-do = "mark", x-says = "hello", x-mark = ["0", "é"] } }
        expect = { verdict = "next", target = "/b?c", headers = { x-mark = ["0", "é", "hello"], X-Says = "*", x-none = false, host = "example.com" } }
        [[case]]
        name = "a reply"
        request = { headers = { x-do = "reply" } }
        expect = { verdict = "reply", reply = { status = 418, headers = { x-a = "1, 2" }, body = "short and stout", body-contains = "stout" } }
        [[case]]
        name = "another upstream"
        request = { headers = { x-do = "forward", x-says = "other" } }
        expect = { verdict = "forward", upstream = "other" }
        [[case]]
        name = "all of the request"
        request = { method = "PUT", path = "/a?b", scheme = "https", authority = "a.example:81", http-version = "2", client-address = "2001:db8::1", route = "r", upstream = "u", headers = { x-do = "see", accept = ["a", "b"] } }
        expect = { reply = { json = { method = "PUT", path = "/a", query = "b", scheme = "https", authority = "a.example:81", version = "2", client = "2001:db8::1", route = "r", upstream = "u", accept-values = ["a", "b"], id = "*" } } }
        [[case]]
        name = "on-response after on-request"
        request = { headers = { x-do = "note", x-says = "n", x-do-response = "see" } }
        response = { status = 404, headers = { x-b = "1" }, endpoint = "10.0.0.1:80" }
        expect = { notes = { note = "n", other = false }, reply = { json = { status = 404, endpoint = "10.0.0.1:80", request = { note = "n" } } } }
        [[case]]
        name = "on-response after a reply"
        request = { headers = { x-do = "reply", x-do-response = "status" } }
        response = { status = 500 }
        expect = { response = { status = 203 } }
        [[case]]
        name = "lines of the log"
        request = { headers = { x-do = "log", x-says = "line" } }
        expect = { logs = [{ level = "warn", contains = "line was here" }], metrics = {} }
        [[case]]
        name = "metrics"
        request = { headers = { x-do = "metrics" } }
        expect = { metrics = { m0 = 1, m63 = 1.0 } }
        "#,
    );
}

#[test]
fn what_is_other_than_expected_is_shown() {
    differs("request = {}\nexpect = { verdict = 'reply' }", "verdict", "reply", "next");
    differs("request = {}\nexpect = { reply = { status = 401 } }", "reply", "a reply", "next");
    differs("request = {}\nexpect = { headers = { x-a = 'b' } }", "headers.x-a", "\"b\"", "nothing");
    differs(
        "request = {}\nexpect = { headers = { host = false } }",
        "headers.host",
        "nothing",
        "\"example.com\"",
    );
    differs(
        "request = {}\nexpect = { headers = { host = ['*'] } }",
        "headers.host",
        "[\"*\"]",
        "[\"example.com\"]",
    );
    differs("request = {}\nexpect = { target = '/b' }", "target", "/b", "/");
    differs(
        "request = {}\nexpect = { removed = ['x-a'] }",
        "removed",
        "x-a is taken away",
        "x-a was not there to begin with",
    );
    differs("request = {}\nexpect = { notes = { a = true } }", "notes.a", "anything", "nothing");
    differs("request = {}\nexpect = { logs = [{ contains = 'x' }] }", "logs.0", "... x ...", "no line");
    differs(
        "request = { headers = { x-do = 'log' } }\nexpect = { logs = [] }",
        "logs",
        "no line",
        "warn  was here",
    );
    differs("request = {}\nexpect = { metrics = { a = 1 } }", "metrics.a", "1", "nothing");
    differs("request = {}\nexpect = { error = 'trap' }", "error", "trap", "no failure");
    differs("request = {}\nexpect = { refused = 'x' }", "refused", "refused with \"x\"", "accepted");
    differs("response = {}\nexpect = { response = { status = 201 } }", "response.status", "201", "200");
    let reply = "request = { headers = { x-do = 'reply' } }\nexpect";
    differs(
        &format!("{reply} = {{ reply = {{ body = 'tall' }} }}"),
        "reply.body",
        "\"tall\"",
        "\"short and stout\"",
    );
    let see = "request = { headers = { x-do = 'see' } }\nexpect";
    differs(
        &format!("{see} = {{ reply = {{ json = {{ method = 'PUT' }} }} }}"),
        "reply.json.method",
        "\"PUT\"",
        "\"GET\"",
    );
    differs(&format!("{see} = {{ reply = {{ json = {{ x = 1 }} }} }}"), "reply.json.x", "1", "nothing");
    let pick = "endpoints = [{ address = 'a:1' }, { address = 'b:1' }]\nrequest = { headers = { x-do-pick = 'last' } }\npick = { calls = 4 }\nexpect";
    differs(&format!("{pick} = {{ picks = [0] }}"), "picks", "[0]", "[1, 1, 1, 1]");
    differs(
        &format!("{pick} = {{ share = {{ 'a:1' = 0.5 }} }}"),
        "share.a:1",
        "0.5, give or take 0.02",
        "0.0000",
    );
}

#[test]
fn a_failure_is_a_difference_unless_it_is_expected() {
    for (behaviour, fault) in [
        ("loop", "deadline"),
        ("grow", "memory"),
        ("trap", "trap"),
        ("recurse-without-memory", "trap"),
        ("reply-bad-status", "invalid-reply"),
    ] {
        let request = format!(
            "[[case]]\nname = 'a case'\nlimits = {{ time = '20ms' }}\nrequest = {{ headers = {{ x-do = '{behaviour}' }} }}\n"
        );
        let found =
            differences(&run(&format!("{request}expect = {{ verdict = 'next', headers = {{ x = '1' }} }}")));
        assert_eq!(found.len(), 1, "{behaviour}: {found:?}");
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("error", "no failure"));
        assert!(found[0].2.starts_with(&format!("{fault}: it ")), "{found:?}");
        passes(&format!("{request}expect = {{ error = '{fault}' }}"));
    }
}

#[test]
fn a_hook_that_is_not_there_is_a_difference() {
    let file = read("[[case]]\nname = 'no such hook'\nrequest = {}\nexpect = { verdict = 'next' }");
    let report =
        PluginUnderTest { name: "round-robin".into(), code: load(&shipped("round-robin")) }.run(&file);
    let found = differences(&report);
    assert_eq!(
        found[0],
        ("request".into(), "a plugin with on-request".into(), "the plugin does not export it".into())
    );
}

#[test]
fn a_configuration_may_be_expected_to_be_refused() {
    let config = "config = { configure = 'refuse', says = 'no such key' }";
    passes(&format!("[[case]]\nname = 'a case'\n{config}\nexpect = {{ refused = 'such' }}"));
    differs(
        &format!("{config}\nexpect = {{ refused = 'other' }}"),
        "refused",
        "refused with \"other\"",
        "no such key",
    );
    differs(
        &format!("{config}\nrequest = {{}}\nexpect = {{ verdict = 'next' }}"),
        "refused",
        "accepted",
        "refused: no such key",
    );
    passes(
        "[[case]]\nname = 'a case'\nconfig = { configure = 'trap' }\nrequest = {}\nexpect = { error = 'trap' }",
    );
}

#[test]
fn a_case_that_expects_nothing_fails() {
    assert!(!run("[[case]]\nname = 'a case'\nrequest = {}").has_passed());
}

#[test]
fn steps_share_an_instance_and_cases_do_not() {
    let count = "request = { headers = { x-do = 'count' } }\nexpect = { reply = { json = ";
    passes(&format!(
        "
        [[case]]
        name = 'steps'
        [[case.step]]
        {count} {{ calls = 2, sequence = 0 }} }} }}
        [[case.step]]
        {count} {{ calls = 3, sequence = 1 }} }} }}
        [[case.step]]
        instance = 'fresh'
        {count} {{ calls = 2, sequence = 2 }} }} }}
        [[case]]
        name = 'another case'
        {count} {{ calls = 2, sequence = 0 }} }} }}
        [[case]]
        name = 'a case that goes on'
        instance = 'shared'
        {count} {{ calls = 3, sequence = 1 }} }} }}
        "
    ));
}

#[test]
fn endpoints_do_as_the_test_says() {
    passes(
        r#"
        [[case]]
        name = "the one with least to do"
        endpoints = [{ address = "a:1", active = 3 }, { address = "b:1" }, { address = "c:1", active = 1 }]
        request = { headers = { x-do-pick = "least" } }
        pick = { calls = 4 }
        expect = { picks = [1, 1, 1, 1], share = { "b:1" = 1, "c:1" = 0.0 } }
        [[case]]
        name = "no opinion"
        endpoints = [{ address = "a:1" }]
        pick = {}
        expect = { picks = [false] }
        [[case]]
        name = "one that has been tried"
        endpoints = [{ address = "a:1" }, { address = "b:1" }]
        request = { headers = { x-do-pick = "tried" } }
        pick = { tried = [1] }
        expect = { picks = [1] }
        "#,
    );
}

#[test]
fn what_cannot_be_a_test_is_refused_with_its_place() {
    for (text, words) in [
        (
            "[[case]]\nname = 'a'\nrequst = {}\n",
            &["unknown key `requst`", "did you mean `request`?", ":3:1"][..],
        ),
        ("[[case]]\nname = 'a'\nrequest = { pth = '/' }\n", &["unknown key `pth`", "did you mean `path`?"]),
        ("[[case]]\nrequest = {}\n", &["the key `name` is missing"]),
        ("[[case]]\nname = 'a'\nrequest = {}\nexpect = { verdict = 'nxt' }\n", &["did you mean `next`?"]),
        ("[[case]]\nname = 'a'\nexpect = {}\n", &["nothing happens here"]),
        ("[[case]]\nname = 'a'\npick = {}\n", &["there is nothing to pick from"]),
        (
            "[[case]]\nname = 'a'\nrequest = {}\n[[case.step]]\nrequest = {}\n",
            &["either steps, or the keys of one step"],
        ),
        (
            "[[case]]\nname = 'a'\nrequest = { path = 'x' }\n",
            &["expected a path that the proxy would forward"],
        ),
        (
            "[[case]]\nname = 'a'\nrequest = { headers = { a = \"x\\n\" } }\n",
            &["expected the value of a header"],
        ),
        (
            "[[case]]\nname = 'a'\nrequest = { headers = { 'a b' = 'x' } }\n",
            &["`a b` is not the name of a header"],
        ),
        ("[[case]]\nname = 'a'\nresponse = { status = 99 }\n", &["expected a status"]),
        ("time = 1960-01-01T00:00:00Z\n", &["expected a time such as"]),
        ("[[case]]\nname = 'a'\nrequest = []\n", &["expected a table, found an array"]),
    ] {
        let problems =
            TestFile::read_text(Path::new("x.test.toml"), text.to_owned()).expect_err(text).to_string();
        for word in words {
            assert!(problems.contains(word), "{word} is not in\n{problems}");
        }
    }
}

/// Lets another guest go through cases, and says what differs.
fn differs_with(component: Vec<u8>, cases: &str) -> Vec<(String, String, String)> {
    let text = format!("limits = {{ time = '2s' }}\n{cases}");
    differences(&PluginUnderTest { name: "guest".into(), code: load(&component) }.run(&read(&text)))
}

#[test]
fn what_a_plugin_on_trial_asks_for_is_written_down() {
    let cases = "
        http = [
            { url = 'https://auth.test/check?a=1', body = 'first', headers = { x-origin = 'auth' } },
            { url = 'https://auth.test/check?a=1', status = 404 },
            { url = 'https://auth.test/slow', error = 'timed-out' },
            { url = 'https://auth.test/post', method = 'POST', status = 201 },
        ]
        [[case]]
        name = 'answers come in order, and the last stays'
        request = { headers = { x-do = 'send GET https://auth.test:443/check?a=1; send GET https://auth.test/check?a=1; send GET https://auth.test/check?a=1; send GET https://auth.test/slow; post https://auth.test/post x', x-verdict = 'reply' } }
        [case.expect]
        reply = { body = '200 auth first; 404  ; 404  ; timed-out; 201  ' }
        [[case]]
        name = 'what was sent can be told'
        http = [{ url = 'http://a.test' }]
        request = { headers = { x-do = 'send PUT http://a.test/' } }
        expect = { verdict = 'next', sent = ['PUT http://a.test/'] }
        [[case]]
        name = 'bodies are as they are written'
        grants = { body = { request = '5B' } }
        request = { body = 'hello', headers = { x-do = 'body; set bye', x-do-response = 'body; set more' } }
        response = { body = 'there' }
        expect = { headers = { x-outcome = 'hello; set' }, body = 'bye', response = { body = 'more', headers = { x-outcome-response = 'there; set' } } }
        [[case]]
        name = 'and as long as they may be'
        grants = { body = { request = '4B' } }
        request = { body = 'hello', headers = { x-do = 'body' } }
        expect = { headers = { x-outcome = 'too-large' }, body = 'hello', sent = [] }
    ";
    assert_eq!(differs_with(waiting_guest(), cases), []);
    let text = |text: &str| text.to_owned();
    for (case, place, expected, actual) in [
        (
            "request = { headers = { x-do = 'send GET http://b.test/a' } }\nexpect = { verdict = 'next' }",
            "http",
            "an answer to every request",
            "none to GET http://b.test/a",
        ),
        (
            "http = [{ url = 'http://a.test' }]\nrequest = { headers = { x-do = 'send GET http://a.test' } }\nexpect = { sent = [] }",
            "sent",
            "[]",
            "[\"GET http://a.test/\"]",
        ),
        ("request = { body = 'a' }\nexpect = { body = 'b' }", "body", "\"b\"", "\"a\""),
        (
            "request = {}\nresponse = { body = 'a' }\nexpect = { response = { body = 'b' } }",
            "response.body",
            "\"b\"",
            "\"a\"",
        ),
    ] {
        let found = differs_with(waiting_guest(), &format!("[[case]]\nname = 'a case'\n{case}"));
        assert_eq!(found, [(text(place), text(expected), text(actual))], "{case}");
    }
}

#[test]
fn a_plugin_on_trial_finds_in_its_store_what_is_written_down() {
    let cases = "
        store = { a = '1' }
        secrets = { key = 'Jefe' }
        [[case]]
        name = 'what is there is found, and what is put there stays'
        request = { headers = { x-do = 'get a; set b 2 1000; add n 5; verify key Jefe; sign key what' } }
        [case.expect]
        reply = { body-contains = '1dfd', status = 200 }
        [[case]]
        name = 'what is there afterwards'
        store = { a = '2' }
        secrets = {}
        [[case.step]]
        request = { headers = { x-do = 'get a; delete a; set b 2 1000; add n 5; verify key Jefe' } }
        expect = { reply = { body = \"2\\nok\\nok\\n5\\nfalse\" }, store = { a = false, b = '2', n = '5' } }
        [[case.step]]
        advance = '1s'
        request = { headers = { x-do = 'get b' } }
        expect = { reply = { body = 'none' }, store = { b = false } }
        [[case]]
        name = 'it has an end'
        grants = { store = { entries = 1 } }
        request = { headers = { x-do = 'set b 2' } }
        expect = { reply = { body = 'full' }, store = { a = '1' } }
    "
    .replace("1dfd", "1df7fcdee0058f5cd839a52835ec6a8a89c88935198d2725c668b0a601558445");
    assert_eq!(differs_with(granted_guest(), &cases), []);
    let case = "[[case]]\nname = 'a'\nrequest = { headers = { x-do = 'set a 1' } }\nexpect = { store = { a = '2' } }";
    let found = differs_with(granted_guest(), case);
    assert_eq!(found, [("store.a".to_owned(), "\"2\"".to_owned(), "\"1\"".to_owned())]);
}

#[test]
fn a_plugin_on_trial_ticks_when_its_tests_say_so() {
    let cases = "
        config = { tick = 'send GET https://keys.test/; calls' }
        http = [{ url = 'https://keys.test', body = 'keys' }]
        [[case]]
        name = 'it ticks on an instance of its own'
        [[case.step]]
        tick = true
        expect = { sent = ['GET https://keys.test/'], logs = [{ contains = 'ticks: 200  keys; 1' }] }
        [[case.step]]
        tick = true
        request = { headers = { x-do = 'calls' } }
        expect = { headers = { x-outcome = '1' }, logs = [{ contains = 'ticks: 200  keys; 2' }] }
    ";
    assert_eq!(differs_with(waiting_guest(), cases), []);
    let found = differs_with(guest(), "[[case]]\nname = 'a'\ntick = true\nexpect = { logs = [] }");
    let missing = ("tick", "a plugin with on-tick", "the plugin does not export it");
    assert_eq!(found, [(missing.0.to_owned(), missing.1.to_owned(), missing.2.to_owned())]);
}

#[test]
fn a_plugin_is_told_of_requests_that_have_ended() {
    let told = |cases: &str| {
        let file = read(&format!("limits = {{ time = '2s' }}\n{cases}"));
        PluginUnderTest { name: "told".into(), code: load(&told_guest()) }.run(&file)
    };
    let report = told(
        "[[case]]
        name = 'each is written down, and counted until the next tick'
        [[case.step]]
        complete = [
            { method = 'POST', target = '/a/./b?c', status = 502, route = 'api', endpoint = 'a:1', attempts = 2,
              bytes-out = 5, duration = '2ms', upstream-duration = '1ms', notes = { consumer = 'demo' } },
            {},
        ]
        expect = { logs = [
            { contains = '\"target\":\"/a/b?c\"' },
            { contains = '\"status\":200' },
        ] }
        [[case.step]]
        tick = true
        expect = { logs = [{ level = 'info', contains = 'told of so far: 2;' }] }
        [[case]]
        name = 'the plugin may fail'
        config = { told = 'trap' }
        complete = [{}]
        expect = { error = 'trap' }
        ",
    );
    assert_eq!(differences(&report), []);
    let step = report.cases[0].steps[0].outcome.as_ref().expect("it came so far");
    let line = &step.logs[0].text;
    for words in [
        "\"method\":\"POST\"",
        "\"status\":502",
        "\"route\":\"api\"",
        "\"endpoint\":\"a:1\"",
        "\"attempts\":2",
        "\"out\":5.0",
        "\"duration\":2000",
        "\"upstream-duration\":1000",
        "[\"consumer\",\"demo\"]",
        "\"time\":1767225600000.0",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let report = told("[[case]]\nname = 'not told'\ncomplete = [{}]\nexpect = { logs = [] }\n");
    assert!(!report.has_passed(), "it logs");
    let silent = run("[[case]]\nname = 'has no such hook'\ncomplete = [{}]\nexpect = { logs = [] }\n");
    let expected = ("complete", "a plugin with on-complete", "the plugin does not export it");
    let expected = (expected.0.to_owned(), expected.1.to_owned(), expected.2.to_owned());
    assert_eq!(differences(&silent), [expected]);
}

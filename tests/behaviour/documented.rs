//! What the documents show exists, and works: every key of the configuration, every configuration, every link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tollgate::{
    config::{
        self, Cache, Compress, Config, Failure, Health, Isolation, Limits, ListenerLimits, ListenerRates,
        ListenerTimeouts, Log, Outlier, PluginBreaker, PluginLimits, Retry, RouteCache, Source,
        UpstreamLimits, UpstreamTimeouts,
    },
    plugin::{Compiler, Engine, EngineSettings},
    snapshot::{Builder, Unneeded},
};
use tollgate_tests::{Authority, privacy_body_router, privacy_router, shipped};
use toml::{Table, Value};

use crate::TOLLGATE;

/// A key that no table has, and so unlike any that one has that there is no hint at what may be meant.
const NOBODYS: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

/// Shown as no key that can be uncommented: it is refused where it is not built in.
const OF_A_FEATURE: &str = "zookeeper";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text with its optional keys and tables: lines of the form `# key = value` and `# [[name]]`.
pub(crate) fn uncommented(text: &str) -> String {
    let is_in_keys = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    let is_key =
        |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(is_in_keys);
    let is_setting =
        |line: &&str| line.starts_with("[[") || line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    text.lines().flat_map(|line| [line.strip_prefix("# ").filter(is_setting).unwrap_or(line), "\n"]).collect()
}

fn understood(path: &Path, text: String) -> (Config, Source) {
    config::read_text(path, text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Does what `tollgate check` does.
fn check(path: &Path, text: String, folder: &Path) {
    let (config, source) = understood(path, text);
    let artifacts = Some(PathBuf::from(concat!(env!("OUT_DIR"), "/artifacts")));
    let engine = Engine::new(&EngineSettings {
        workers: 1,
        artifacts: artifacts.clone(),
        compiler: Compiler::InProcess,
    });
    let engine = Arc::new(engine.expect("the engine starts"));
    let builder = Builder::new(engine, folder.to_owned(), artifacts, 1);
    if let Err(problems) = builder.build(config, &source, None, Unneeded::Now) {
        panic!("{problems}");
    }
}

/// One step from a table to what is in it.
#[derive(Clone)]
enum Step {
    Key(String),
    Place(usize),
}

fn table_at<'a>(document: &'a mut Table, way: &[Step]) -> &'a mut Table {
    let Some((Step::Key(first), rest)) = way.split_first() else { return document };
    let value = rest.iter().fold(&mut document[first.as_str()], |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Place(place) => &mut value[*place],
    });
    value.as_table_mut().expect("the way leads to a table")
}

/// The keys that the table at the end of the way may have: those that are named to whoever writes another. None
/// if it may have any.
fn known_keys(document: &Table, way: &[Step]) -> Option<BTreeSet<String>> {
    let mut document = document.clone();
    table_at(&mut document, way).insert(NOBODYS.to_owned(), Value::Integer(1));
    let text = toml::to_string(&document).expect("a table can be written");
    let problems = config::read_text(Path::new("config.toml"), text, &|_| None).err()?;
    let unknown = format!("unknown key `{NOBODYS}`");
    let problem = problems.iter().find(|problem| problem.message == unknown)?;
    let help = problem.help.as_deref().expect("an unknown key comes with help");
    assert!(help.starts_with("the keys of this table are "), "{help}");
    Some(help.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// The keys of a kind of table.
#[derive(Default)]
struct Keys {
    known: BTreeSet<String>,
    shown: BTreeSet<String>,
}

/// All kinds of tables below `value`, by their place in a configuration: `upstreams.*.timeouts`.
fn find_tables(
    document: &Table,
    value: &Value,
    way: &[Step],
    name: &str,
    found: &mut BTreeMap<String, Keys>,
) {
    let step_to = |step| [way, &[step]].concat();
    match value {
        Value::Table(table) => {
            let known = known_keys(document, way);
            let is_free = known.is_none();
            if let Some(known) = known {
                let keys = found.entry(name.to_owned()).or_default();
                keys.known.extend(known);
                keys.shown.extend(table.keys().cloned());
            }
            for (key, value) in table {
                let name = format!("{name}.{}", if is_free { "*" } else { key });
                find_tables(document, value, &step_to(Step::Key(key.clone())), &name, found);
            }
        }
        Value::Array(elements) => {
            for (place, value) in elements.iter().enumerate() {
                find_tables(document, value, &step_to(Step::Place(place)), &format!("{name}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_key_there_is_stands_in_config_toml() {
    let text = uncommented(&read(&repository().join("config.toml")));
    let document: Table = text.parse().expect("config.toml is TOML");
    let mut found = BTreeMap::new();
    find_tables(&document, &Value::Table(document.clone()), &[], "config", &mut found);

    for (name, Keys { known, shown }) in &found {
        let missing: Vec<_> = known.difference(shown).filter(|key| *key != OF_A_FEATURE).collect();
        assert!(missing.is_empty(), "config.toml does not show {missing:?} of {name}");
    }
    // That tables were looked for in vain would go unnoticed otherwise.
    for name in ["config", "config.listeners[].limits", "config.upstreams.*.endpoints[]", "config.plugins.*"]
    {
        assert!(found.contains_key(name), "{name} is not among {:?}", found.keys());
    }
}

#[test]
fn config_toml_is_accepted_as_it_is_and_with_all_its_optional_keys() {
    let path = repository().join("config.toml");
    let text = read(&path);
    let all = uncommented(&text);
    assert_ne!(all, text, "there are optional keys");
    // With the plugins that somebody may be trying out.
    check(&path, text, &repository());
    // And with the certificates that it names.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tls = folder.path().join("tls");
    fs::create_dir(&tls).expect("a folder can be made");
    let authority = Authority::new();
    for name in ["site", "proxy"] {
        authority.vouch(&["app.internal"]).write(&tls, name);
    }
    for name in ["clients.pem", "internal.pem"] {
        fs::write(tls.join(name), &authority.certificate).expect("a file can be written");
    }
    fs::write(tls.join("site.ocsp"), b"\x30\x07\x0a\x01\x00\xa0\x02\x30\x00").expect("a file can be written");
    std::os::unix::fs::symlink(repository().join("plugins"), folder.path().join("plugins"))
        .expect("a link can be made");
    // Nobody can write a file that has the digest and the signature shown there: it is asked for those that one has.
    let component = shipped("api-key");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is a key");
    let values = [
        ("sha256", digest(&SHA256, &component).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
        ("public-key", STANDARD.encode(pair.public_key())),
        ("signature", STANDARD.encode(pair.sign(&component))),
    ];
    let line = |line: &str| {
        let value =
            values.iter().find(|(key, _)| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")));
        value.map_or_else(|| format!("{line}\n"), |(key, value)| format!("{key} = \"{value}\"\n"))
    };
    // Nor is a candidate there, but what is shipped can be one as well.
    let all: String = all.replace("@candidate.wasm", "@api-key.wasm").lines().map(line).collect();
    assert!(all.contains(&values[0].1), "the key is there");
    check(&path, all, folder.path());
}

#[test]
fn config_toml_shows_the_defaults() {
    let path = repository().join("config.toml");
    let (shown, _) = understood(&path, read(&path));
    let (unsaid, _) = understood(&path, String::new());
    assert_eq!(shown.plugin_dir, unsaid.plugin_dir);
    assert_eq!(shown.drain_timeout, unsaid.drain_timeout);
    assert_eq!(shown.log, Log::default());
    assert_eq!(shown.limits, Limits::default());
    assert_eq!(shown.cache, Cache::default());
    assert_eq!(shown.routes[0].get_ref().cache, Some(RouteCache::default()));
    let listener = shown.listeners[0].get_ref();
    assert_eq!(listener.limits, ListenerLimits::default());
    assert_eq!(listener.timeouts, ListenerTimeouts::default());
    assert_eq!(listener.min_rates, ListenerRates::default());
    let upstream = &shown.upstreams["app"];
    let (unsaid, _) = understood(&path, "upstreams.app = { endpoints = [] }".to_owned());
    assert_eq!(upstream.timeouts, UpstreamTimeouts::default());
    assert_eq!(upstream.health, Some(Health::default()));
    assert_eq!(upstream.outlier, Outlier::default());
    assert_eq!(upstream.limits, UpstreamLimits::default());
    assert_eq!(upstream.retry, Retry::default());
    assert_eq!(upstream.panic_threshold, unsaid.upstreams["app"].panic_threshold);
    assert_eq!(shown.routes[0].get_ref().compress, Some(Compress::default()));
    let plugin = &shown.plugins["api-key"];
    assert_eq!(plugin.fail, Failure::default());
    assert_eq!(plugin.isolation, Isolation::default());
    assert!(!plugin.yields);
    assert_eq!(plugin.limits, PluginLimits::default());
    assert_eq!(plugin.breaker, PluginBreaker::default());
}

#[test]
fn every_example_is_accepted() {
    let folders = fs::read_dir(repository().join("examples")).expect("there are examples");
    let configs: Vec<_> = folders
        .map(|entry| entry.expect("the folder can be read").path())
        .flat_map(|folder| ["config.toml", "by-body.toml"].map(|name| folder.join(name)))
        .filter(|path| path.is_file())
        .collect();
    assert!(!configs.is_empty(), "an example has a config.toml");
    // With the plugins that their READMEs have built.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins).expect("a folder can be made");
    fs::write(plugins.join("privacy-router.wasm"), privacy_router()).expect("a file can be written");
    fs::write(plugins.join("privacy-body-router.wasm"), privacy_body_router())
        .expect("a file can be written");
    for path in configs {
        check(&path, read(&path), folder.path());
    }
}

/// The names of metrics in a text: what stands between these two marks and begins with `tollgate_`.
fn metrics_in(text: &str, mark: char) -> BTreeSet<String> {
    let is_name = |word: &&str| {
        word.starts_with("tollgate_") && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    text.split(mark).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_metric_there_is_stands_in_docs_metrics_md() {
    fn walk(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() { walk(&path, text) } else { text.push_str(&read(&path)) }
        }
    }
    let mut source = String::new();
    walk(&repository().join("host"), &mut source);
    let written = metrics_in(&source, '"');
    assert!(written.contains("tollgate_requests_total"), "{written:?}");
    assert_eq!(metrics_in(&read(&repository().join("docs/metrics.md")), '`'), written);
}

/// The documents of the repository, as paths from its root.
fn documents() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What is built and fetched, and projects that `plugin new` has yet to fill in.
            if name.starts_with('.') || ["target", "node_modules", "templates"].contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    let root = repository();
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.into_iter().map(|path| path.strip_prefix(&root).expect("it is below").to_owned()).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    text.lines().filter(&mut is_prose).flat_map(|line| [line, "\n"]).collect()
}

/// The anchors of the headings of a page, as GitHub and mdBook name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    prose(text).lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

/// Where the links of a page lead: `[...](here)`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn every_link_has_a_target() {
    let root = repository();
    let mut count = 0;
    for document in documents() {
        let text = read(&root.join(&document));
        for link in links(&text) {
            let (file, anchor) =
                link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => root.join(&document),
                file => root.join(document.parent().expect("it is in a folder")).join(file),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", document.display());
            if let Some(anchor) = anchor.filter(|_| file.is_empty() || file.ends_with(".md")) {
                let has = anchors(&read(&target)).contains(anchor);
                assert!(has, "{}: there is no heading for {link}", document.display());
            }
            count += 1;
        }
    }
    assert!(count > 200, "{count} links were found");
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let docs = Path::new("docs");
    let listed: BTreeSet<PathBuf> =
        links(&read(&repository().join("docs/SUMMARY.md"))).into_iter().map(|link| docs.join(link)).collect();
    let pages =
        documents().into_iter().filter(|path| path.starts_with(docs) && !path.ends_with("SUMMARY.md"));
    assert_eq!(pages.collect::<BTreeSet<_>>(), listed);
}

#[test]
fn the_plugin_that_the_documents_print_is_the_example() {
    let example = repository().join("examples/block-agents");
    let source = read(&example.join("src/lib.rs"));
    let tutorial = read(&repository().join("docs/writing-plugins.md"));
    assert!(tutorial.contains(&format!("```rust,ignore\n{source}```")), "the source");
    let tests = read(&example.join("block-agents.test.toml"));
    assert!(tutorial.contains(&format!("```toml\n{tests}```")), "the tests");
    let hook = &source[source.find("impl OnRequest").expect("it has a hook")..];
    assert!(read(&repository().join("README.md")).contains(&format!("```rust\n{hook}```")), "the hook");
}

/// What `--help` of a command prints, and that of each command below it.
fn help(words: &[&str], page: &mut String) {
    let output = Command::new(TOLLGATE)
        .args(words)
        .arg("--help")
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .expect("the executable can be run");
    let text = String::from_utf8(output.stdout).expect("help is text").replace("tollgate-tested", "tollgate");
    assert!(output.status.success() && !text.is_empty(), "{words:?}");
    let level = if words.len() < 2 { "##" } else { "###" };
    let name = ["tollgate"].iter().chain(words).copied().collect::<Vec<_>>().join(" ");
    page.push_str(&format!("\n{level} {name}\n\n```text\n{}\n```\n", text.trim_end()));
    let commands =
        text.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(""));
    for line in commands.lines() {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
        if let Some(name) =
            name.and_then(|line| line.split_whitespace().next()).filter(|name| *name != "help")
        {
            help(&[words, &[name]].concat(), page);
        }
    }
}

#[test]
fn the_command_line_reference_is_what_help_prints() {
    let mut page =
        "# Command line\n\nThe output of `--help` for each command. A test keeps this page up to date; \
                    `TOLLGATE_BLESS=1` has it written.\n"
            .to_owned();
    help(&[], &mut page);
    let path = repository().join("docs/cli.md");
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let is_same = fs::read_to_string(&path).is_ok_and(|text| text == page);
    assert!(is_same, "docs/cli.md differs from --help: run this test with TOLLGATE_BLESS=1");
}

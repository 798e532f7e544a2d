//! `tollgate plugin test --watch` and `tollgate plugin bench`, as they are typed.

use std::{fs, os::unix::process::ExitStatusExt, path::Path};

use rustix::process::Signal;
use tollgate_tests::{Executable, guest, told_guest};

use crate::TOLLGATE;

/// What the battery asks takes its time, and is asked elsewhere.
const QUICKLY: &str = "conformance = { except = { C012 = 'slow', C013 = 'slow', C022 = 'slow', C024 = 'slow', \
                       C030 = 'slow', C031 = 'slow' } }\nlimits = { time = '2s' }\n";

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, content).expect("a file can be written");
    fs::rename(unfinished, folder.join(name)).expect("a file can be renamed");
}

fn case(name: &str, body: &str) -> String {
    format!(
        "[[case]]\nname = '{name}'\nconfig = {{ request = 'reply' }}\nrequest = {{}}\n\
         expect = {{ reply = {{ status = 418, body = '{body}' }} }}\n"
    )
}

#[tokio::test]
async fn what_is_changed_is_tested_again_until_it_is_told_to_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let first = case("the first promise", "short and stout");
    write(folder.path(), "guest.wasm", guest());
    write(folder.path(), "guest.test.toml", format!("{QUICKLY}{first}"));
    let arguments = ["plugin", "test", "guest.test.toml", "--watch"];
    let mut watching = Executable::start(TOLLGATE, folder.path(), &arguments);
    watching.line(&["waiting for a change"]).await;
    assert!(!watching.lines(&["1 passed, 0 failed"]).is_empty());

    let second = case("the second promise", "long and thin");
    write(folder.path(), "guest.test.toml", format!("{QUICKLY}{first}{second}"));
    watching.line(&["FAIL", "the second promise"]).await;
    watching.line(&["1 passed, 1 failed"]).await;

    // So is a file that cannot be read, and one that can be read again.
    write(folder.path(), "guest.test.toml", "case = 1");
    watching.line(&["guest.test.toml:1"]).await;
    let third = case("the third promise", "short and stout");
    write(folder.path(), "guest.test.toml", format!("{QUICKLY}{first}{third}"));
    watching.line(&["2 passed, 0 failed"]).await;

    // Not SIGINT, which a shell has what runs in the background ignore, and all that is started there.
    watching.signal(Signal::TERM);
    let (status, ..) = watching.end().await;
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
}

/// Nanoseconds of what stands for a length of time.
fn nanoseconds(text: &str) -> f64 {
    let text = text.trim();
    let place =
        text.find(|c: char| c.is_alphabetic() || c == 'µ').unwrap_or_else(|| panic!("no unit: {text}"));
    let (number, unit) = text.split_at(place);
    let number: f64 = number.trim().parse().unwrap_or_else(|_| panic!("no number: {text}"));
    let scale = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        other => panic!("no unit: {other}"),
    };
    number * scale
}

/// How many calls a line of times is about, after a look at whether the times can be.
fn calls(line: &str) -> u64 {
    let (_, spread) = line.split_once(": min ").unwrap_or_else(|| panic!("no spread: {line}"));
    let parts: Vec<&str> = spread.split(", ").collect();
    let [least, median, p99, most, rate] = parts[..] else { panic!("not five parts: {line}") };
    let median = median.strip_prefix("p50 ").expect("the median is named");
    let p99 = p99.strip_prefix("p99 ").expect("the quantile is named");
    let most = most.strip_prefix("max ").expect("the longest is named");
    let times = [least, median, p99, most].map(nanoseconds);
    assert!(0.0 < times[0] && times.is_sorted(), "{line}");
    let (rate, calls) = rate.split_once("/s over ").expect("the rate is told");
    assert!(rate.parse::<f64>().is_ok_and(|rate| rate > 0.0), "{line}");
    calls.trim().parse().unwrap_or_else(|_| panic!("no number of calls: {line}"))
}

/// The same of the next line that begins so.
fn measured<'a>(lines: &mut impl Iterator<Item = &'a str>, hook: &str) -> u64 {
    calls(lines.find(|line| line.starts_with(hook)).unwrap_or_else(|| panic!("nothing of {hook}")))
}

#[tokio::test]
async fn calls_are_measured_case_by_case() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write(folder.path(), "guest.wasm", guest());
    let cases = "[[case]]\nname = 'a request and its response'\nrequest = {}\nresponse = {}\nexpect = { logs = [] }\n\
                 [[case]]\nname = 'a pick'\nconfig = { pick = 'first' }\nendpoints = [{ address = 'a:1' }]\n\
                 pick = {}\nexpect = { picks = [0] }\n\
                 [[case]]\nname = 'what fails is not measured'\nconfig = { request = 'trap' }\nrequest = {}\n\
                 expect = { error = 'trap' }\n";
    write(folder.path(), "guest.test.toml", format!("{QUICKLY}{cases}"));
    let arguments = ["plugin", "bench", "guest.wasm", "--time", "20ms"];
    let (status, printed, errors) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
    assert!(status.success(), "{errors}");
    let lines: Vec<&str> = printed.lines().map(str::trim).collect();
    assert_eq!(lines[0], "guest");
    assert!(lines[1].starts_with("compile: ") && lines[1].ends_with("iB"), "{printed}");
    let after = |name: &'static str| lines.iter().skip_while(move |line| **line != name).skip(1).copied();
    assert_eq!(measured(&mut lines.iter().copied(), "instantiate and configure"), 50);
    let mut both = after("a request and its response");
    assert!(measured(&mut both, "on-request") > 0 && measured(&mut both, "on-response") > 0);
    assert!(both.next().is_some_and(|line| line.starts_with("memory: ")), "{printed}");
    assert!(measured(&mut after("a pick"), "pick") > 0);
    assert!(!printed.contains("what fails is not measured"), "{printed}");

    write(folder.path(), "told.wasm", told_guest());
    let case = "[[case]]\nname = 'two have ended'\ncomplete = [{}, {}]\nexpect = { metrics = {} }\n";
    write(folder.path(), "told.test.toml", format!("{QUICKLY}{case}"));
    let arguments = ["plugin", "bench", "told.wasm", "--time", "20ms"];
    let (status, printed, errors) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
    assert!(status.success(), "{errors}");
    let told = printed.lines().find(|line| line.trim().starts_with("on-complete"));
    assert!(told.is_some_and(|line| calls(line) > 0), "{printed}");

    let arguments = ["plugin", "bench", "nothing.wasm"];
    let (status, ..) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
    assert_eq!(status.code(), Some(2));
}

//! Which habit of another language is it, where a line is no TOML?
//!
//! A parser says what it expected next. Whoever writes YAML, Python or nginx's configuration all day is told the line as it
//! is to be.

use std::ops::Range;

use super::Problem;

/// The problem of the line in which a parser has met an error, if it is plain what was meant. With the place of the line.
pub(super) fn explain(text: &str, span: &Range<usize>) -> Option<Problem> {
    let (start, line) = line_at(text, span.start)?;
    let written = without_comment(line).trim_end();
    let indent = written.len() - written.trim_start().len();
    let (start, written) = (start + indent, written.trim_start());
    if written.is_empty() || written.starts_with('[') && !written.ends_with(';') {
        return None;
    }
    let place = start..start + written.len();
    let whole = written.trim_end_matches(';').trim_end();
    let help = |problem: Problem, key: &str, value: &str| {
        problem.help(match key {
            "" => format!("write `{value}`"),
            key => format!("write `{key} = {value}`"),
        })
    };
    if let Some((key, value)) = whole.split_once('=') {
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) || value.is_empty() {
            return None;
        }
        let meant = meant(value)?;
        let what = match () {
            () if meant != value => what_is_wrong(value),
            () if written.ends_with(';') => "a line of TOML ends without `;`",
            () => return None,
        };
        return Some(help(Problem::at(place, what), key, &meant));
    }
    if let Some((key, value)) = whole.split_once(": ") {
        let (key, value) = (key.trim(), value.trim());
        if is_key(key) && !value.is_empty() {
            let problem = Problem::at(place, "a key and its value are joined by `=`, and not by `:`");
            return Some(help(problem, key, &meant(value)?));
        }
    }
    if written.ends_with(';') && !written.starts_with(['"', '\'']) {
        let (word, value) = whole.split_once(char::is_whitespace)?;
        let problem = Problem::at(place, format!("`{word} ...;` is how nginx writes it, and this is TOML"));
        return is_key(word).then(|| match here(word) {
            Some(known) => help(problem, known, &meant(value.trim()).unwrap_or_else(|| "...".to_owned())),
            None => problem.help("write a key, `=` and a value: `name = \"app\"`"),
        });
    }
    // An item of a list that goes over several lines.
    let item = written.trim_end_matches(',').trim_end();
    let meant = meant(item)?;
    (meant != item && !item.contains(char::is_whitespace))
        .then(|| help(Problem::at(place, what_is_wrong(item)), "", &meant))
}

/// What is wrong with a value that is none.
fn what_is_wrong(value: &str) -> &'static str {
    match boolean(value) {
        Some(_) => "a value that is true or false is written in lower case and as one of these words",
        None => "text stands in quotes",
    }
}

/// The value as it is to be written. None if that is not plain.
fn meant(value: &str) -> Option<String> {
    if let Some(inner) = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')) {
        let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items = items.map(|item| meant(item).filter(|_| !item.starts_with(['[', '{'])));
        return Some(format!("[{}]", items.collect::<Option<Vec<_>>>()?.join(", ")));
    }
    if value.starts_with(['"', '\'', '{', '[']) {
        // What else is wrong with it, the parser says.
        let is_whole = [('"', '"'), ('\'', '\''), ('{', '}')]
            .iter()
            .any(|(begin, end)| value.len() > 1 && value.starts_with(*begin) && value.ends_with(*end));
        return is_whole.then(|| value.to_owned());
    }
    if let Some(word) = boolean(value) {
        return Some(word.to_owned());
    }
    if value.parse::<f64>().is_ok() {
        return Some(value.to_owned());
    }
    // A colour would move the cursor, and quotes would end the text.
    let is_text = value.chars().all(|c| !c.is_control() && !matches!(c, '"' | '\\' | '=' | '{' | '}'));
    is_text.then(|| format!("\"{value}\""))
}

fn boolean(value: &str) -> Option<&'static str> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some("true"),
        "false" | "off" | "no" => Some("false"),
        _ => None,
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The line in which a place is, and where it begins.
fn line_at(text: &str, at: usize) -> Option<(usize, &str)> {
    // An error at the end of a line may be one of the line that ends there.
    let before = text.get(..text.floor_char_boundary(at))?;
    let start = before.rfind('\n').map_or(0, |place| place + 1);
    let line = text.get(start..)?.lines().next()?;
    Some((start, line))
}

/// The line up to its comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (place, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            (None, b'#') => return &line[..place],
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if byte == open => quote = None,
            _ => {}
        }
    }
    line
}

/// What other proxies call a key, and what it is called here; where there are several, by the table that it is in.
const ELSEWHERE: [(&str, &[&str]); 46] = [
    ("listen", &["address", "listeners"]),
    ("bind", &["address"]),
    ("port", &["address"]),
    ("addr", &["address"]),
    ("server", &["endpoints", "listeners"]),
    ("servers", &["endpoints", "listeners"]),
    ("frontend", &["listeners"]),
    ("entrypoints", &["listeners"]),
    ("backend", &["upstream", "upstreams"]),
    ("backends", &["endpoints", "upstreams"]),
    ("targets", &["endpoints"]),
    ("target", &["upstream"]),
    ("nodes", &["endpoints"]),
    ("members", &["endpoints"]),
    ("urls", &["endpoints"]),
    ("hosts", &["endpoints", "match"]),
    ("proxy_pass", &["upstream"]),
    ("proxy-pass", &["upstream"]),
    ("cluster", &["upstream"]),
    ("clusters", &["upstreams"]),
    ("service", &["upstream"]),
    ("services", &["upstreams"]),
    ("location", &["path", "match", "routes"]),
    ("prefix", &["path", "match"]),
    ("uri", &["path", "match"]),
    ("path", &["match"]),
    ("host", &["match"]),
    ("method", &["methods", "match"]),
    ("methods", &["match"]),
    ("headers", &["match"]),
    ("server_name", &["host", "match"]),
    ("domain", &["host", "match"]),
    ("domains", &["host", "match"]),
    ("timeout", &["timeouts"]),
    ("proxy_read_timeout", &["timeouts"]),
    ("proxy_connect_timeout", &["timeouts"]),
    ("keepalive_timeout", &["timeouts"]),
    ("client_max_body_size", &["limits"]),
    ("ssl", &["tls"]),
    ("healthcheck", &["health"]),
    ("health_check", &["health"]),
    ("retries", &["retry"]),
    ("middlewares", &["plugins"]),
    ("filters", &["plugins"]),
    ("lb_policy", &["balance"]),
    ("worker_processes", &["workers"]),
];

/// What a word of another proxy is called here, wherever that is.
fn here(word: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(other, _)| *other == word)?.1.first().copied()
}

/// Which of the keys that a table has is what others call `key`.
pub(super) fn known_elsewhere(key: &str, known: &[&str]) -> Option<&'static str> {
    let (_, names) = ELSEWHERE.iter().find(|(other, _)| *other == key)?;
    names.iter().find(|name| known.contains(name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_as_the_line_that_is_meant() {
        for (line, remedy) in [
            ("address = 127.0.0.1:80", "write `address = \"127.0.0.1:80\"`"),
            ("  address = 127.0.0.1:80   # here", "write `address = \"127.0.0.1:80\"`"),
            ("address = \"127.0.0.1:80\";", "write `address = \"127.0.0.1:80\"`"),
            ("workers = 2;", "write `workers = 2`"),
            ("http2 = True", "write `http2 = true`"),
            ("access = off", "write `access = false`"),
            ("access = on;", "write `access = true`"),
            ("attempts: 3", "write `attempts = 3`"),
            ("upstream: app", "write `upstream = \"app\"`"),
            ("plugins = [api-key, \"b\"]", "write `plugins = [\"api-key\", \"b\"]`"),
            ("http://127.0.0.1:8001,", "write `\"http://127.0.0.1:8001\"`"),
            ("listen 80;", "write `address = 80`"),
            ("proxy_pass http://app;", "write `upstream = \"http://app\"`"),
            ("sendfile on;", "write a key, `=` and a value: `name = \"app\"`"),
        ] {
            let text = format!("a = 1\n{line}\nb = 2\n");
            let at = text.find(line).unwrap() + line.len() - 1;
            let problem = explain(&text, &(at..at)).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(problem.help.as_deref(), Some(remedy), "{line}");
            let place = &text[problem.span.unwrap()];
            assert!(line.contains(place) && !place.contains('#'), "{place:?}");
        }
        for line in ["a = \"", "a = {", "[a", "[[a]", "= 1", "a =", "a b c", "\"", "", "a = 1 2 \"x\""] {
            assert_eq!(explain(line, &(0..0)), None, "{line}");
        }
    }

    #[test]
    fn a_word_of_another_proxy_has_its_name_here_by_the_table() {
        assert_eq!(known_elsewhere("server", &["endpoints", "tls"]), Some("endpoints"));
        assert_eq!(known_elsewhere("server", &["listeners", "routes"]), Some("listeners"));
        assert_eq!(known_elsewhere("server", &["access"]), None);
        assert_eq!(known_elsewhere("what", &["access"]), None);
    }
}

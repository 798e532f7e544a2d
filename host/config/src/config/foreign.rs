//! Is this the configuration of something else?
//!
//! Who copies from nginx, or from a file in YAML, would otherwise read what a parser of TOML expected in the place of
//! the first brace.

use super::Problem;

/// The problem of a text that is no TOML, if it is plain what it is instead.
pub(super) fn recognize(text: &str) -> Option<Problem> {
    const ALSO: &str = "`config.toml` in the repository shows every key, and `tollgate check` every problem";
    let (mut place, mut is_toml) = (0, false);
    for whole in text.split_inclusive('\n') {
        let line = whole.trim();
        let start = place + (whole.len() - whole.trim_start().len());
        place += whole.len();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (what, instead) = match kind(line) {
            Kind::Unknown => return None,
            Kind::Toml => {
                is_toml = true;
                continue;
            }
            // A slip in a file that is TOML up to here.
            Kind::Yaml if is_toml && !line.starts_with('-') => return None,
            Kind::Nginx if is_toml && line.ends_with(';') => return None,
            Kind::Yaml => (
                "this looks like YAML, and the configuration is TOML",
                "write `[[listeners]]` and below it `address = \"127.0.0.1:8080\"`, without indentation",
            ),
            Kind::Nginx => (
                "this looks like the configuration of nginx, and this one is TOML",
                "write `[[listeners]]` with `address = \"127.0.0.1:8080\"` for `listen`, `[upstreams.app]` with \
                 `endpoints = [\"http://127.0.0.1:8001\"]`, and `[[routes]]` with `upstream = \"app\"` for `location`",
            ),
            Kind::Json => (
                "this looks like JSON, and the configuration is TOML",
                "write `[[listeners]]` and below it `address = \"127.0.0.1:8080\"`",
            ),
        };
        return Some(Problem::at(start..start + line.len(), what).help(format!("{instead}; {ALSO}")));
    }
    None
}

enum Kind {
    Toml,
    Yaml,
    Nginx,
    Json,
    /// It may be TOML with a mistake in it.
    Unknown,
}

fn kind(line: &str) -> Kind {
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if line == "---" || line.starts_with("- ") {
        return Kind::Yaml;
    }
    if line == "{" || line.starts_with("{\"") {
        return Kind::Json;
    }
    if let Some((key, rest)) = line.split_once(':')
        && is_word(key)
        && (rest.is_empty() || rest.starts_with(' '))
    {
        return Kind::Yaml;
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    if is_word(first) && !line.contains('=') && (line.ends_with('{') || line.ends_with(';')) {
        return Kind::Nginx;
    }
    if line.contains('=') || line.starts_with('[') { Kind::Toml } else { Kind::Unknown }
}

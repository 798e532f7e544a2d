//! What of a configuration may be shown?

use serde_json::{Map, Value};

/// Stands where something may be secret.
const HIDDEN: &str = "[hidden]";

/// Words in the names of keys whose values are not shown.
const SECRETS: [&str; 7] = ["token", "secret", "password", "credential", "key", "authorization", "cookie"];

/// What was written, as JSON. Variables stand as they were written, since their values may be secret. Hidden are
/// all strings in the settings of plugins, whatever has a name that speaks of a secret, the default of every
/// variable, and the user in a URL.
pub fn redacted(text: &str) -> Value {
    let Ok(table) = text.parse::<toml::Table>() else { return Value::Null };
    let mut tables = Map::new();
    for (name, value) in table {
        let value = match value {
            toml::Value::Table(plugins) if name == "plugins" => {
                plugins.into_iter().map(|(name, plugin)| (name, shown_plugin(plugin))).collect()
            }
            value => show(value, false),
        };
        tables.insert(name, value);
    }
    Value::Object(tables)
}

fn shown_plugin(plugin: toml::Value) -> Value {
    let toml::Value::Table(table) = plugin else { return Value::Null };
    table
        .into_iter()
        .map(|(key, value)| (key.clone(), show(value, key == "config" || is_secret(&key))))
        .collect()
}

fn show(value: toml::Value, is_hidden: bool) -> Value {
    match value {
        toml::Value::String(_) if is_hidden => HIDDEN.into(),
        toml::Value::String(text) if has_user(&text) || text.contains("${") && text.contains(":-") => {
            HIDDEN.into()
        }
        toml::Value::String(text) => text.into(),
        toml::Value::Datetime(_) if is_hidden => HIDDEN.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Integer(_) | toml::Value::Float(_) if is_hidden => HIDDEN.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Array(items) => items.into_iter().map(|item| show(item, is_hidden)).collect(),
        toml::Value::Table(table) => {
            let show = |(key, value): (String, toml::Value)| {
                let is_hidden = is_hidden || is_secret(&key);
                (key, show(value, is_hidden))
            };
            table.into_iter().map(show).collect()
        }
    }
}

/// Whether the name of a key, or of a header, speaks of a secret.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRETS.iter().any(|word| key.contains(word))
}

/// Whether it is a URL with somebody's name in it, and maybe a password.
fn has_user(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let text = r#"
workers = 2
[admin]
address = "127.0.0.1:9901"
token = "hunter2"
[store]
url = "redis://me:hunter2@localhost/1"
[[routes]]
upstream = "${APP}"
match = { path = "/x", headers = { authorization = "hunter2" } }
[plugins.api-key]
file = "a.wasm"
fail = "open"
config = { header = "hunter2", keys = { demo = "hunter2" }, list = [["hunter2", true, 1234]], since = 1999-01-01 }
[plugins.other]
config = { a = "${KEY:-hunter2}" }
[other]
cookie-key = ["hunter2", "${K:-hunter2}"]
path = "${K:-hunter2}"
"#;
        let redacted = redacted(text);
        let printed = redacted.to_string();
        assert!(
            !printed.contains("hunter2") && !printed.contains("1234") && !printed.contains("1999"),
            "{printed}"
        );
        assert_eq!(redacted["workers"], 2);
        assert_eq!(redacted["admin"]["address"], "127.0.0.1:9901");
        assert_eq!(redacted["routes"][0]["upstream"], "${APP}");
        assert_eq!(redacted["routes"][0]["match"]["path"], "/x");
        assert_eq!(
            (&redacted["plugins"]["api-key"]["fail"], &redacted["plugins"]["api-key"]["file"]),
            (&"open".into(), &"a.wasm".into())
        );
        assert_eq!(redacted["plugins"]["api-key"]["config"]["keys"]["demo"], HIDDEN);
    }
}

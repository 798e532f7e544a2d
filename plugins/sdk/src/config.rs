//! What did the operator configure, and if it makes no sense, where and why?

use serde::de::DeserializeOwned;

/// Reads a plugin's `config` table, which comes as JSON, into a type of the plugin's own.
///
/// The error names the place and what is expected there. It never shows a value, which may be a secret; keys are
/// shown. A message of the type's own (`serde::de::Error::custom`) is shown as it is.
pub fn read<T: DeserializeOwned>(config: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(config);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|error| {
        let path = error.path().to_string();
        let message = explain(&error.into_inner());
        match path.as_str() {
            "." => format!("`config`: {message}"),
            path => format!("`{path}` in `config`: {message}"),
        }
    })?;
    json.end().map_err(|error| format!("`config` is not valid JSON: {}", explain(&error)))?;
    Ok(value)
}

/// Takes the `config` table of a plugin that has nothing to configure, so that nothing in it is ignored.
///
/// Reading as far as the first key is enough to refuse the rest, and saves a JSON parser.
pub fn nothing(config: &str) -> Result<(), String> {
    let inside = config.trim_ascii().strip_prefix('{').map(str::trim_ascii_start);
    if inside == Some("}") {
        return Ok(());
    }
    Err(match inside.and_then(leading_string) {
        Some(key) => format!("unknown key {key} in `config`: there is nothing to configure, remove it"),
        None => "`config` is not a table: there is nothing to configure, remove it".to_owned(),
    })
}

/// The JSON string that the text begins with, in its quotes and as it was written.
fn leading_string(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.strip_prefix('"')?.bytes().position(|byte| {
        let closing = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closing
    })?;
    // The two quotes are not part of what was searched.
    text.get(..end + 2)
}

/// What serde says, without the value that it says it of.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = match text.rfind(" at line ") {
        Some(end) => &text[..end],
        None => &text,
    };
    let holds_value = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    match text.split_once(", expected ") {
        Some((wrong, expected)) if holds_value.iter().any(|prefix| wrong.starts_with(prefix)) => {
            format!("expected {expected}")
        }
        _ => text.to_owned(),
    }
}

/// Whether this may be the name of a header (RFC 9110, section 5.6.2).
pub fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether this may be the value of a header, as the contract writes values (RFC 9110, section 5.5).
pub fn is_header_value(value: &str) -> bool {
    value.chars().all(|c| c == '\t' || (c >= ' ' && c != '\u{7f}' && c <= '\u{ff}'))
        && !value.starts_with([' ', '\t'])
        && !value.ends_with([' ', '\t'])
}

/// Whether this may be the address of a request that a plugin sends: `http` or `https`, and a host.
pub fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |rest: &str| !rest.is_empty() && !rest.starts_with(['/', '?', '#']);
    rest.is_some_and(is_host) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Config {
        #[serde(default)]
        #[expect(dead_code, reason = "only what is wrong with it counts")]
        limits: BTreeMap<String, u32>,
        #[serde(default)]
        #[expect(dead_code, reason = "only what is wrong with it counts")]
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Allow,
        Deny,
    }

    #[test]
    fn a_refusal_names_the_place_and_shows_no_value() {
        for (config, refusal) in [
            (r#"{"limits":{"a":"hunter2"}}"#, "`limits.a` in `config`: expected u32"),
            (r#"{"limits":{"a":-1}}"#, "`limits.a` in `config`: expected u32"),
            (r#"{"mode":"hunter2"}"#, "`mode` in `config`: expected `allow` or `deny`"),
            (r#"{"mod":1}"#, "`mod` in `config`: unknown field `mod`, expected `limits` or `mode`"),
            ("7", "`config`: expected struct Config"),
            ("", "`config`: EOF while parsing a value"),
            ("{} {}", "`config` is not valid JSON: trailing characters"),
        ] {
            assert_eq!(read::<Config>(config).expect_err("is refused"), refusal, "{config}");
        }
    }

    #[test]
    fn where_there_is_nothing_to_configure_an_empty_table_is_accepted() {
        for config in ["{}", " { } ", "{\n}\n"] {
            assert_eq!(nothing(config), Ok(()), "{config:?}");
        }
        for (config, key) in [
            (r#"{"speed":1}"#, r#""speed""#),
            (r#" { "a b" : {} }"#, r#""a b""#),
            (r#"{"a\"b\\":1}"#, r#""a\"b\\""#),
            (r#"{"":1}"#, r#""""#),
        ] {
            let refusal = nothing(config).expect_err("is refused");
            assert!(refusal.starts_with(&format!("unknown key {key} in")), "{config}: {refusal}");
        }
        for config in ["", "{", "[]", "null", "}", "{{", "{}}", r#"{""#, r#"{"a"#, r#"{"a\"}"#, "{ä", "\u{0}"]
        {
            let refusal = nothing(config).expect_err("is refused");
            assert!(refusal.starts_with("`config` is not a table"), "{config:?}: {refusal}");
        }
    }

    #[test]
    fn names_and_values_of_headers_are_told_from_other_text() {
        for (text, is_name, is_value) in [
            ("x-a", true, true),
            ("", false, true),
            ("x a", false, true),
            ("x:", false, true),
            ("a\r\nb", false, false),
            ("\u{e9}", false, true),
            ("\u{20ac}", false, false),
            (" a", false, false),
        ] {
            assert_eq!(is_header_name(text), is_name, "{text:?}");
            assert_eq!(is_header_value(text), is_value, "{text:?}");
        }
    }
}

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
        let message = explain(&error.into_inner(), &path);
        match path.as_str() {
            "." => format!("`config`: {message}"),
            path => format!("`{path}` in `config`: {message}"),
        }
    })?;
    json.end().map_err(|error| format!("`config` is not valid JSON: {}", explain(&error, ".")))?;
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

/// What serde says in the words of a configuration, without the value that it says it of.
fn explain(error: &serde_json::Error, path: &str) -> String {
    let text = error.to_string();
    let text = match text.rfind(" at line ") {
        Some(end) => &text[..end],
        None => &text,
    };
    let holds_value = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    match text.split_once(", expected ") {
        Some((wrong, expected)) if holds_value.iter().any(|prefix| wrong.starts_with(prefix)) => {
            return format!("expected {}", plain(expected, path));
        }
        _ => {}
    }
    if text == "expected value" {
        // What serde_json says where a word or a table names one of several.
        return "expected a word in quotes, or a table".to_owned();
    }
    if let Some(key) = text.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    if let Some(key) = text.strip_prefix("duplicate field ") {
        return format!("the key {key} is there twice");
    }
    match text.strip_prefix("unknown field ") {
        Some(rest) => format!("unknown key {rest}"),
        None => text.to_owned(),
    }
}

/// What serde calls a type, as an operator would call it who writes TOML.
fn plain(expected: &str, path: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a borrowed string" => "a string",
        "a sequence" => "an array",
        "a map" => "a table",
        "unit" | "unit variant" => "the word alone, without a value",
        "string or map" | "variant identifier" => "a word in quotes, or a table",
        "newtype variant" | "struct variant" | "tuple variant" => {
            let word = path.rsplit('.').next().unwrap_or_default();
            return format!("a table with the value, such as {{ {word} = \"...\" }}");
        }
        other if other.starts_with("struct ") => "a table",
        other if other.starts_with("enum ") => "a word in quotes, or a table",
        other if other.starts_with("tuple ") || other.starts_with("an array of length") => "an array",
        other => other,
    };
    words.to_owned()
}

/// Whether this may be the name of a header (RFC 9110, section 5.6.2).
pub fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
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
        #[serde(default)]
        #[expect(dead_code, reason = "only what is wrong with it counts")]
        by: Option<By>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum By {
        #[expect(dead_code, reason = "only what is wrong with it counts")]
        Header(String),
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
            (
                r#"{"limits":{"a":"hunter2"}}"#,
                "`limits.a` in `config`: expected a whole number from 0 to 4294967295",
            ),
            (
                r#"{"limits":{"a":-1}}"#,
                "`limits.a` in `config`: expected a whole number from 0 to 4294967295",
            ),
            (r#"{"mode":"hunter2"}"#, "`mode` in `config`: expected `allow` or `deny`"),
            (r#"{"mod":1}"#, "`mod` in `config`: unknown key `mod`, expected one of `limits`, `mode`, `by`"),
            ("7", "`config`: expected a table"),
            (r#"{"limits":[]}"#, "`limits` in `config`: expected a table"),
            (r#"{"mode":7}"#, "`mode` in `config`: expected a word in quotes, or a table"),
            (r#"{"mode":{"allow":7}}"#, "`mode.allow` in `config`: expected the word alone, without a value"),
            (
                r#"{"by":"header"}"#,
                r#"`by.header` in `config`: expected a table with the value, such as { header = "..." }"#,
            ),
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
    fn names_of_headers_are_told_from_other_text() {
        for (text, is_name) in
            [("x-a", true), ("", false), ("x a", false), ("x:", false), ("a\r\nb", false), ("\u{e9}", false)]
        {
            assert_eq!(is_header_name(text), is_name, "{text:?}");
        }
    }
}

//! What did the operator configure, and if it makes no sense, where and why?

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, IgnoredAny, Visitor},
    forward_to_deserialize_any,
};

/// A string, or an array of strings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string, or an array of strings")]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// What becomes of a request that a plugin cannot check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unchecked {
    #[default]
    Refuse,
    Pass,
}

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

/// Reads a plugin's `config` table into two structs, each of which takes some of its keys: settings that several plugins
/// have in common are one struct, and those of the plugin itself the other.
///
/// This takes the place of `serde(flatten)`, which does not name the place of what is wrong. Neither struct has
/// `deny_unknown_fields`: a key that belongs to neither is refused here.
pub fn read_both<A: DeserializeOwned, B: DeserializeOwned>(config: &str) -> Result<(A, B), String> {
    let table: BTreeMap<String, IgnoredAny> = read(config)?;
    let known = [fields::<A>(), fields::<B>()].concat();
    if let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!(
            "`{unknown}` in `config`: unknown key `{unknown}`, expected one of `{}`",
            known.join("`, `")
        ));
    }
    Ok((read(config)?, read(config)?))
}

/// The keys that a struct takes, as `derive(Deserialize)` hands them to a deserializer.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only the keys of a struct are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &[&str] = &[];
    // Always an error: there is nothing to read.
    let _ = T::deserialize(Fields(&mut fields));
    fields
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

#[cfg(test)]
mod tests {
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

    #[derive(Debug, PartialEq, Deserialize)]
    struct Own {
        url: String,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case", default)]
    struct Common {
        leeway: Option<u32>,
        only_for: Option<OneOrMore>,
    }

    #[test]
    fn two_structs_are_read_from_one_table() {
        let read = read_both::<Own, Common>;
        let one = OneOrMore::One("b".to_owned());
        assert_eq!(
            read(r#"{"only-for":"b","url":"a"}"#),
            Ok((Own { url: "a".to_owned() }, Common { leeway: None, only_for: Some(one) }))
        );
        for (config, refusal) in [
            (
                r#"{"url":"a","leway":"hunter2"}"#,
                "`leway` in `config`: unknown key `leway`, expected one of `url`, `leeway`, `only-for`",
            ),
            ("{}", "`config`: the key `url` is missing"),
            (r#"{"url":7}"#, "`url` in `config`: expected a string"),
            (
                r#"{"url":"a","leeway":"hunter2"}"#,
                "`leeway` in `config`: expected a whole number from 0 to 4294967295",
            ),
            (
                r#"{"url":"a","only-for":7}"#,
                "`only-for` in `config`: expected a string, or an array of strings",
            ),
            (r#"{"url":"a","url":"b"}"#, "`config`: the key `url` is there twice"),
            ("[]", "`config`: expected a table"),
        ] {
            assert_eq!(read(config).expect_err("is refused"), refusal, "{config}");
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

//! What did the operator configure?

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};
use tollgate_plugin_sdk::{
    config::{self, Unchecked},
    content::{MediaRange, Method},
    twice,
};

use crate::rule::{Place, Rule, Terms};

/// What a request must be. What nothing is said of may be as it likes.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) methods: Vec<Method>,
    pub(crate) types: Vec<MediaRange>,
    /// Of those types, in lower case.
    pub(crate) charsets: Vec<String>,
    /// Requests that ask for another method than their own.
    pub(crate) method_override: Unchecked,
    /// Bytes of the body, at most.
    pub(crate) length: Option<u64>,
    /// Bytes of path and query, at most.
    pub(crate) target: Option<usize>,
    pub(crate) headers: Vec<Rule>,
    pub(crate) parameters: Vec<Rule>,
    /// Whether there may be parameters that no rule is for.
    pub(crate) others: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    methods: Vec<Method>,
    #[serde(default)]
    method_override: Unchecked,
    #[serde(default)]
    content_types: Vec<MediaRange>,
    #[serde(default)]
    charsets: Option<Vec<String>>,
    #[serde(default)]
    length: Option<Size>,
    #[serde(default)]
    target: Option<usize>,
    #[serde(default)]
    headers: BTreeMap<String, Terms>,
    #[serde(default)]
    query: BTreeMap<String, Terms>,
    #[serde(default = "yes")]
    other_parameters: bool,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

fn yes() -> bool {
    true
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        if let Some(name) = config.headers.keys().find(|name| !config::is_header_name(name)) {
            return Err(format!(
                "`headers` in `config`: `{}` is not the name of a header",
                name.escape_debug()
            ));
        }
        if let Some((one, other)) = twice(config.headers.keys().map(String::as_str)) {
            return Err(format!(
                "`headers` in `config`: `{one}` and `{other}` are the same header: write it once"
            ));
        }
        if config.charsets.is_some() && config.content_types.is_empty() {
            return Err("`charsets` in `config` is of no use without `content-types`".to_owned());
        }
        let is_empty = config.methods.is_empty()
            && config.content_types.is_empty()
            && config.length.is_none()
            && config.target.is_none()
            && config.headers.is_empty()
            && config.query.is_empty()
            && config.other_parameters;
        if is_empty {
            return Err("`config` asks for nothing: write what a request must be, such as \
                `config = { methods = [\"GET\"] }`"
                .to_owned());
        }
        let rules = |place: Place, terms: BTreeMap<String, Terms>| {
            terms
                .into_iter()
                .map(|(name, terms)| match place {
                    Place::Header => Rule::new(place, &name.to_ascii_lowercase(), terms),
                    Place::Query => Rule::new(place, &name, terms),
                })
                .collect()
        };
        Ok(Self {
            methods: config.methods,
            types: config.content_types,
            charsets: config.charsets.map_or_else(
                || ["utf-8", "us-ascii"].map(str::to_owned).to_vec(),
                |charsets| charsets.iter().map(|charset| charset.to_ascii_lowercase()).collect(),
            ),
            method_override: config.method_override,
            length: config.length.map(|Size(bytes)| bytes),
            target: config.target,
            headers: rules(Place::Header, config.headers),
            parameters: rules(Place::Query, config.query),
            others: config.other_parameters,
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1_u64)];
        let parsed = units.iter().find_map(|(unit, bytes)| {
            text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*bytes).map(Self)
        });
        parsed.ok_or_else(|| de::Error::custom("is no size: write \"512B\", \"64KiB\" or \"1MiB\""))
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "`config` asks for nothing"),
            (r#"{"methods":["A B"]}"#, "`methods[0]` in `config`: `A B` is not a method"),
            (r#"{"methods":["get"]}"#, "`methods[0]` in `config`: `get` is a method that no client sends"),
            (r#"{"charsets":["utf-8"]}"#, "`charsets` in `config` is of no use"),
            (r#"{"headers":{"X-A":".*","x-a":".*"}}"#, "`X-A` and `x-a` are the same header"),
            (r#"{"headers":{"a b":".*"}}"#, "`headers` in `config`: `a b` is not the name of a header"),
            (r#"{"headers":{"a":"("}}"#, "`headers.a` in `config`: is no regular expression"),
            (r#"{"query":{"a":7}}"#, "`query.a` in `config`: expected a pattern, or a table"),
            (r#"{"query":{"a":{"patern":"x"}}}"#, "unknown key `patern`"),
            (r#"{"length":"1 MB"}"#, "`length` in `config`: is no size"),
            (r#"{"length":"99999999999GiB"}"#, "`length` in `config`: is no size"),
            (r#"{"content-types":["json"]}"#, "`content-types[0]` in `config`: is not a media type"),
        ] {
            let refusal = Settings::read(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}

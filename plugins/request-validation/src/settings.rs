//! What did the operator configure?

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};
use tollgate_plugin_sdk::config;

use crate::rule::{MediaType, Place, Rule, Terms};

/// What a request must be. What nothing is said of may be as it likes.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) methods: Vec<String>,
    pub(crate) types: Vec<MediaType>,
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
    methods: Vec<String>,
    #[serde(default)]
    content_types: Vec<MediaType>,
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
        for (name, what) in
            config.methods.iter().map(|name| (name, "`methods` in `config`: `{}` is not a method")).chain(
                config
                    .headers
                    .keys()
                    .map(|name| (name, "`headers` in `config`: `{}` is not the name of a header")),
            )
        {
            if !config::is_header_name(name) {
                return Err(what.replace("{}", &name.escape_debug().to_string()));
            }
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
            (r#"{"methods":["A B"]}"#, "`methods` in `config`: `A B` is not a method"),
            (r#"{"headers":{"a b":".*"}}"#, "`headers` in `config`: `a b` is not the name of a header"),
            (r#"{"headers":{"a":"("}}"#, "`headers.a` in `config`: is no regular expression"),
            (r#"{"query":{"a":7}}"#, "`query.a` in `config`: expected a pattern, or a table"),
            (r#"{"query":{"a":{"patern":"x"}}}"#, "unknown field `patern`"),
            (r#"{"length":"1 MB"}"#, "`length` in `config`: is no size"),
            (r#"{"length":"99999999999GiB"}"#, "`length` in `config`: is no size"),
            (r#"{"content-types":["json"]}"#, "`content-types[0]` in `config`: is no media type"),
        ] {
            let refusal = Settings::read(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}

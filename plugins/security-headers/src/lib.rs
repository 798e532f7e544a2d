//! What are browsers told to be careful with?

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{
    Change, HeaderValue, OnResponse, Plugin, ResponseVerdict, config, may_change, request, response, twice,
};

#[derive(Debug)]
struct SecurityHeaders {
    set: Vec<(String, HeaderValue)>,
    remove: Vec<String>,
    /// Whether what an upstream says counts more.
    keep: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    set: BTreeMap<String, Setting>,
    #[serde(default = "default_remove")]
    remove: Vec<String>,
    #[serde(default)]
    keep: bool,
}

/// The value of a header, or false where the default is not wanted.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the value of a header, or false to leave it out")]
enum Setting {
    Value(String),
    Wanted(bool),
}

/// What is said if nothing else is configured. There is no policy on content among them, since a wrong one breaks a
/// site.
const DEFAULTS: [(&str, &str); 6] = [
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    (HSTS, "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// Means something over TLS only (RFC 6797, section 7.2).
const HSTS: &str = "strict-transport-security";

fn default_remove() -> Vec<String> {
    ["server", "x-aspnet-version", "x-powered-by"].map(str::to_owned).to_vec()
}

impl Plugin for SecurityHeaders {
    fn configure(text: &str) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        if let Some((one, other)) = twice(config.set.keys().map(String::as_str)) {
            return Err(format!(
                "`set` in `config`: `{one}` and `{other}` are the same header: write it once"
            ));
        }
        let mut set: BTreeMap<String, String> =
            DEFAULTS.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, setting) in config.set {
            let name = name.to_ascii_lowercase();
            if !config::is_header_name(&name) {
                return Err(format!(
                    "`set` in `config`: `{}` is not the name of a header",
                    name.escape_debug()
                ));
            }
            match setting {
                Setting::Value(value) => {
                    may_change(true, Change::Set, &name)
                        .map_err(|why| format!("`set` in `config`: {why}"))?;
                    set.insert(name, value);
                }
                Setting::Wanted(false) => drop(set.remove(&name)),
                Setting::Wanted(true) if set.contains_key(&name) => {}
                Setting::Wanted(true) => {
                    return Err(format!("`set.{name}` in `config`: has no default, write its value"));
                }
            }
        }
        for (place, name) in config.remove.iter().enumerate() {
            may_change(true, Change::Remove, name)
                .map_err(|why| format!("`remove[{place}]` in `config`: {why}"))?;
        }
        let value = |(name, value): (String, String)| match HeaderValue::text(&value) {
            Ok(value) => Ok((name, value)),
            Err(why) => Err(format!("`set.{name}` in `config`: is not the value of a header: {why}")),
        };
        let set = set.into_iter().map(value).collect::<Result<_, _>>()?;
        Ok(Self { set, remove: config.remove, keep: config.keep })
    }
}

impl OnResponse for SecurityHeaders {
    fn on_response(&self) -> ResponseVerdict {
        for name in &self.remove {
            let _ = response::remove_header(name);
        }
        let is_secure = request::scheme() == "https";
        for (name, value) in &self.set {
            let is_wanted = name != HSTS || is_secure;
            if is_wanted && !(self.keep && response::header(name).is_some()) {
                let _ = response::set_header(name, value);
            }
        }
        ResponseVerdict::Next
    }
}

tollgate_plugin_sdk::export!(SecurityHeaders: OnResponse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_counts_beside_the_defaults() {
        let plugin = SecurityHeaders::configure(
            r#"{"set":{"X-Frame-Options":"SAMEORIGIN","content-security-policy":"default-src 'self'","referrer-policy":false,"x-content-type-options":true}}"#,
        )
        .expect("the configuration is valid");
        let value =
            |name: &str| plugin.set.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(value("content-security-policy"), Some("default-src 'self'"));
        assert_eq!(value("referrer-policy"), None);
        assert_eq!(value("x-content-type-options"), Some("nosniff"));
        assert_eq!(plugin.remove, default_remove());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            (r#"{"set":{"a b":"1"}}"#, "`a b` is not the name of a header"),
            (r#"{"set":{"x-a":"1\r\nx-b: 2"}}"#, "`set.x-a` in `config`: is not the value of a header"),
            (
                r#"{"set":{"x-a":"Zo\u00eb"}}"#,
                "`set.x-a` in `config`: is not the value of a header: it has a character",
            ),
            (r#"{"set":{"X-A":"1","x-a":"2"}}"#, "`X-A` and `x-a` are the same header"),
            (r#"{"set":{"x-a":true}}"#, "`set.x-a` in `config`: has no default"),
            (r#"{"set":{"x-a":7}}"#, "`set.x-a` in `config`"),
            (r#"{"remove":["server","a b"]}"#, "`remove[1]` in `config`"),
            (r#"{"set":{"Trailer":"x"}}"#, "`set` in `config`: the proxy itself writes `trailer`"),
            (r#"{"remove":["connection"]}"#, "`remove[0]` in `config`: the proxy itself writes `connection`"),
        ] {
            let refusal = SecurityHeaders::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}

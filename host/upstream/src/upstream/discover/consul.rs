//! Where does a service run, as Consul has it?
//!
//! `GET /v1/health/service/<name>` names the instances whose checks pass, and waits with its answer until it is
//! another than the one of the index that is asked from (a blocking query).

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    directory::{Directory, Next, listed},
    gateway::{Gateway, GatewayError},
};
use crate::config;

/// How long an answer is waited for at the other end, where up to a sixteenth is added.
const WAIT: Duration = Duration::from_secs(55);

/// For an answer, or a part of it.
const PATIENCE: Duration = Duration::from_secs(5);

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// A service in Consul.
pub(super) struct Consul {
    gateway: Gateway,
    settings: config::Consul,
    is_https: bool,
    /// What the last answer was of.
    index: u64,
    /// What could not be understood the last time.
    not_understood: Vec<String>,
}

/// An instance of a service on a node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    /// That of the node counts if it is empty.
    #[serde(default)]
    address: String,
    port: u32,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

impl Consul {
    pub fn new(mut gateway: Gateway, settings: config::Consul, is_https: bool) -> Self {
        if let Some(token) = &settings.token
            && let Ok(mut token) = HeaderValue::from_bytes(token.as_bytes())
        {
            token.set_sensitive(true);
            gateway.headers.insert(TOKEN, token);
        }
        Self { gateway, settings, is_https, index: 0, not_understood: Vec::new() }
    }

    async fn list(&mut self) -> Result<Vec<config::Endpoint>, GatewayError> {
        // After a failure all is new.
        let from = std::mem::take(&mut self.index);
        let path = path(&self.settings, from);
        let patience = if from == 0 { PATIENCE } else { WAIT + WAIT / 16 + PATIENCE };
        let answer = self.gateway.ask(&path, None, patience).await?;
        let index = index(&answer.headers, from);
        let instances: Vec<Instance> = answer.json(PATIENCE).await?;
        self.index = index;
        let endpoints = instances.iter().map(|instance| endpoint(instance, self.is_https)).collect();
        Ok(listed("consul", endpoints, &mut self.not_understood))
    }
}

impl Directory for Consul {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async { Ok(self.list().await?) })
    }
}

/// What is asked for: the instances that pass, once they are not those of an index.
fn path(settings: &config::Consul, from: u64) -> String {
    let config::Consul { service, datacenter, tag, servers: _, token: _ } = settings;
    let mut path = format!("/v1/health/service/{}?passing=true", encode(service));
    for (name, value) in [("dc", datacenter), ("tag", tag)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    if from > 0 {
        path.push_str(&format!("&index={from}&wait={}s", WAIT.as_secs()));
    }
    path
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What to ask from the next time: an index that goes back, or none, means that all is new.
fn index(headers: &HeaderMap, before: u64) -> u64 {
    let index = headers.get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or(0);
    if index < before { 0 } else { index }
}

fn endpoint(instance: &Instance, is_https: bool) -> Result<config::Endpoint, String> {
    let Instance { node, service } = instance;
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let endpoint = config::Endpoint::parse(&format!("{host}:{}", service.port), is_https);
    let mut endpoint = endpoint.map_err(|error| format!("{}: {error}", service.id))?;
    endpoint.weight = service.weights.as_ref().map_or(1, |weights| weights.passing);
    let tags = service.tags.iter().flatten().map(|tag| tag.split_once('=').unwrap_or((tag, "")));
    endpoint.tags.extend(tags.map(|(name, value)| (name.to_owned(), value.to_owned())));
    endpoint.tags.extend(service.meta.clone().into_iter().flatten());
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_instance_by_instance() {
        let answer = r#"[
            {"Node": {"ID": "x", "Node": "one", "Address": "10.0.0.1", "Datacenter": "dc1"},
             "Service": {"ID": "a1", "Service": "a", "Tags": ["zone=b", "fast"], "Address": "", "Port": 8001,
                         "Meta": {"policy": "111"}, "Weights": {"Passing": 10, "Warning": 1}},
             "Checks": [{"Status": "passing"}]},
            {"Node": {"Address": "10.0.0.1"},
             "Service": {"ID": "a2", "Tags": null, "Meta": null, "Address": "fd00::1", "Port": 8002}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"ID": "a3", "Address": "b.test", "Port": 80}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"ID": "a4", "Port": 0}},
            {"Node": {"Address": "not a host"}, "Service": {"ID": "a5", "Port": 80}}
        ]"#;
        let instances: Vec<Instance> = serde_json::from_str(answer).unwrap();
        let all: Vec<_> = instances.iter().map(|instance| endpoint(instance, false)).collect();
        let first = all[0].as_ref().unwrap();
        assert_eq!((first.authority.as_str(), first.weight), ("10.0.0.1:8001", 10));
        let tags: Vec<_> = first.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("fast", ""), ("policy", "111"), ("zone", "b")]);
        assert_eq!(all[1].as_ref().unwrap().authority, "[fd00::1]:8002");
        assert_eq!(all[2].as_ref().unwrap().authority, "b.test:80");
        assert!(all[3].as_ref().unwrap_err().starts_with("a4: "));
        assert!(all[4].as_ref().unwrap_err().starts_with("a5: "));
    }

    #[test]
    fn what_is_asked_for() {
        let settings = |more: &str| {
            toml::from_str(&format!("servers = ['http://c']\nservice = 'a b/c'\n{more}")).unwrap()
        };
        let service = "/v1/health/service/a%20b%2Fc?passing=true";
        for (more, from, expected) in [
            ("", 0, String::new()),
            ("", 7, "&index=7&wait=55s".to_owned()),
            ("tag = 'x=1'\ndatacenter = 'dc2'", 0, "&dc=dc2&tag=x%3D1".to_owned()),
        ] {
            assert_eq!(path(&settings(more), from), format!("{service}{expected}"));
        }
    }

    #[test]
    fn an_index_that_goes_back_is_begun_anew() {
        let headers = |index: &str| HeaderMap::from_iter([(INDEX, HeaderValue::from_str(index).unwrap())]);
        assert_eq!(index(&headers("7"), 5), 7);
        assert_eq!(index(&headers("5"), 5), 5);
        assert_eq!(index(&headers("4"), 5), 0);
        assert_eq!(index(&headers("x"), 5), 0);
        assert_eq!(index(&HeaderMap::new(), 5), 0);
    }
}

//! Which endpoints stand under a prefix in etcd?
//!
//! By its gateway for HTTP and JSON (`/v3`, from etcd 3.4 on). All keys are read at one revision and watched from the
//! next one on; whatever happens then, they are read again. Servers put their key with a lease, which they keep alive,
//! so that it goes with them.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{
    directory::{Directory, Next, listed},
    gateway::{Gateway, GatewayError, GatewayResponse},
};
use crate::config;

/// For an answer, or a part of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a watch is believed that says nothing: a connection may have gone without a word.
const SILENCE: Duration = Duration::from_secs(10);

/// Keys in etcd.
pub(super) struct Etcd {
    gateway: Gateway,
    settings: config::Etcd,
    is_https: bool,
    /// The keys have been read up to this revision of this cluster.
    read: Option<Read>,
    /// What could not be understood the last time.
    not_understood: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    cluster: String,
    revision: i64,
}

impl Read {
    /// Whether this is said by a store that does not know what was read: one that has lost data counts its revisions from
    /// an earlier one, and would say nothing before it has come to the one that is asked for.
    fn is_unknown_to(&self, header: &Header) -> bool {
        let is_earlier = header.revision.parse().is_ok_and(|revision: i64| revision < self.revision);
        is_earlier || (!header.cluster_id.is_empty() && header.cluster_id != self.cluster)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    header: Header,
    kvs: Vec<Pair>,
}

/// Numbers of 64 bits are strings in the JSON of gRPC.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    cluster_id: String,
    revision: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pair {
    key: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Watched {
    result: Option<Happened>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Happened {
    header: Header,
    canceled: bool,
    events: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Authenticated {
    token: String,
}

impl Etcd {
    pub fn new(gateway: Gateway, settings: config::Etcd, is_https: bool) -> Self {
        Self { gateway, settings, is_https, read: None, not_understood: Vec::new() }
    }

    async fn list(&mut self) -> Result<Vec<config::Endpoint>, GatewayError> {
        match self.read.take() {
            Some(read) => self.wait(&read).await?,
            None => self.authenticate().await?,
        }
        let (key, range_end) =
            (encode(self.settings.prefix.as_bytes()), encode(&end_of(&self.settings.prefix)));
        let question = json!({ "key": key, "range_end": range_end });
        let range: Range =
            self.gateway.ask("/v3/kv/range", Some(&question), PATIENCE).await?.json(PATIENCE).await?;
        let revision = range.header.revision.parse();
        let missing = |_| GatewayError::Missing("etcd".to_owned(), "the revision");
        self.read = Some(Read { cluster: range.header.cluster_id, revision: revision.map_err(missing)? });
        Ok(listed("etcd", understood(&range.kvs, self.is_https), &mut self.not_understood))
    }

    /// Waits until something has happened to the keys since they were read, or may have.
    async fn wait(&mut self, read: &Read) -> Result<(), GatewayError> {
        let (key, range_end) =
            (encode(self.settings.prefix.as_bytes()), encode(&end_of(&self.settings.prefix)));
        let question = json!({
            "create_request": { "key": key, "range_end": range_end, "start_revision": (read.revision + 1).to_string() }
        });
        let mut answer = self.gateway.ask("/v3/watch", Some(&question), PATIENCE).await?;
        match timeout(SILENCE, happens(&mut answer, read)).await {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(error)) => {
                self.gateway.give_up();
                Err(error)
            }
        }
    }

    async fn authenticate(&mut self) -> Result<(), GatewayError> {
        let (Some(name), Some(password)) = (&self.settings.user, &self.settings.password) else {
            return Ok(());
        };
        self.gateway.headers.remove(header::AUTHORIZATION);
        let question = json!({ "name": name, "password": password.expose() });
        let answer = self.gateway.ask("/v3/auth/authenticate", Some(&question), PATIENCE).await?;
        let Authenticated { token } = answer.json(PATIENCE).await?;
        let missing = |_| GatewayError::Missing("etcd".to_owned(), "a token that can be shown");
        let mut token = HeaderValue::try_from(token).map_err(missing)?;
        token.set_sensitive(true);
        self.gateway.headers.insert(header::AUTHORIZATION, token);
        Ok(())
    }
}

impl Directory for Etcd {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async { Ok(self.list().await?) })
    }
}

/// Waits for the first message that tells of a change, or that the watch is over, for which the reason may be that
/// the revision is too old to be told from (compaction).
async fn happens(answer: &mut GatewayResponse, read: &Read) -> Result<(), GatewayError> {
    loop {
        match answer.message::<Watched>().await? {
            Some(Watched { result: Some(Happened { canceled: false, events, header }) })
                if events.is_empty() && !read.is_unknown_to(&header) => {}
            Some(_) => return Ok(()),
            None => return Err(GatewayError::Missing("etcd".to_owned(), "what happens from now on")),
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The first key after all that begin with this prefix; one zero byte stands for no end.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The endpoint that each pair stands for, or why it stands for none, with the key.
fn understood(pairs: &[Pair], is_https: bool) -> Vec<Result<config::Endpoint, String>> {
    let text = |encoded: &str| String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok();
    let one = |pair: &Pair| {
        let key = text(&pair.key).unwrap_or_else(|| pair.key.clone());
        let value = text(&pair.value).ok_or_else(|| format!("{key}: the value is not text"))?;
        endpoint(&value, is_https).map_err(|error| format!("{key}: {error}"))
    };
    pairs.iter().map(one).collect()
}

/// An endpoint as the configuration has it, in JSON, or its `host:port` alone.
pub(super) fn endpoint(value: &str, is_https: bool) -> Result<config::Endpoint, String> {
    let value = value.trim();
    match value.starts_with(['{', '"']) {
        true => serde_json::from_str(value).map_err(|error| error.to_string()),
        false => config::Endpoint::parse(value, is_https).map_err(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        for (prefix, end) in [("/a/", &b"/a0"[..]), ("a", b"b"), ("", b"\0"), ("a~", b"a\x7f")] {
            assert_eq!(end_of(prefix), end, "{prefix}");
        }
    }

    #[test]
    fn a_range_is_understood_pair_by_pair() {
        let pair = |key: &str, value: &str| json!({ "key": encode(key.as_bytes()), "value": encode(value.as_bytes()) });
        let answer = json!({
            "header": { "cluster_id": "1", "revision": "17" },
            "kvs": [
                pair("/a", "10.0.0.1:80"),
                pair("/b", "https://b.test"),
                pair("/c", r#"{"url": "http://c.test:81", "weight": 3, "tags": {"zone": "a"}}"#),
                pair("/d", "nonsense:port"),
                pair("/e", "{}"),
                { "key": "L2Y=", "value": "/w==" },
            ],
            "count": "6",
        });
        let range: Range = serde_json::from_value(answer).unwrap();
        assert_eq!(range.header.revision, "17");
        let understood = understood(&range.kvs, false);
        let shown: Vec<_> = understood
            .iter()
            .map(|one| match one {
                Ok(endpoint) => format!("{} {} {}", endpoint.authority, endpoint.is_https, endpoint.weight),
                Err(error) => error.split(':').next().unwrap().to_owned(),
            })
            .collect();
        let expected = ["10.0.0.1:80 false 1", "b.test:443 true 1", "c.test:81 false 3", "/d", "/e", "/f"];
        assert_eq!(shown, expected);
        assert!(endpoint("10.0.0.1:80", true).unwrap().is_https);
        let empty: Range = serde_json::from_str(r#"{"header":{"revision":"3"}}"#).unwrap();
        assert!(empty.kvs.is_empty());
    }

    #[test]
    fn messages_of_a_watch_are_told_apart() {
        let message = |text: &str| serde_json::from_str::<Watched>(text).unwrap().result.unwrap();
        let created = message(r#"{"result":{"header":{"revision":"17"},"created":true}}"#);
        assert!(created.events.is_empty() && !created.canceled);
        let put = message(r#"{"result":{"header":{},"events":[{"kv":{"key":"L2E="}}]}}"#);
        assert_eq!(put.events.len(), 1);
        assert!(message(r#"{"result":{"canceled":true,"compact_revision":"20"}}"#).canceled);
        let read = Read { cluster: "7".to_owned(), revision: 17 };
        for (header, is_unknown) in [
            (r#"{"cluster_id":"7","revision":"17"}"#, false),
            (r#"{"cluster_id":"7","revision":"18"}"#, false),
            (r#"{"cluster_id":"7","revision":"16"}"#, true),
            (r#"{"cluster_id":"8","revision":"18"}"#, true),
            ("{}", false),
        ] {
            let header: Header = serde_json::from_str(header).unwrap();
            assert_eq!(read.is_unknown_to(&header), is_unknown, "{header:?}");
        }
    }
}

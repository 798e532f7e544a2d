//! What may a plugin reach beyond the message in hand?
//!
//! A plugin asks for a capability by importing its interface, and gets it by a line in its table. What it is
//! given is made by whoever loads it, so that a plugin under test can be given something else.

mod secret;
mod store;

use std::path::Path;

pub use secret::{SecretError, Secrets};
pub use store::{Quota, Store, StoreError, Usage};

use crate::{
    config::{BodyGrant, Grants},
    outgoing::Target,
};

/// An interface of the contract that is granted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    Store,
    Secret,
    HttpClient,
    Body,
}

impl Capability {
    pub const ALL: [Self; 4] = [Self::Store, Self::Secret, Self::HttpClient, Self::Body];

    /// The name of its interface in the contract.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Secret => "secret",
            Self::HttpClient => "http-client",
            Self::Body => "body",
        }
    }

    /// What grants it, to be written in the table `grants` of the plugin.
    pub fn grant(self) -> &'static str {
        match self {
            Self::Store => "store = true",
            Self::Secret => "secrets = { <name> = { env = \"<VARIABLE>\" } }",
            Self::HttpClient => "http = [\"https://<host>\"]",
            Self::Body => "body = true",
        }
    }

    /// Whether a plugin that uses it may have to wait.
    pub fn waits(self) -> bool {
        match self {
            Self::Store | Self::Secret => false,
            Self::HttpClient | Self::Body => true,
        }
    }

    /// Whether it is granted.
    pub fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::Store => grants.store.is_some(),
            Self::Secret => !grants.secrets.is_empty(),
            Self::HttpClient => !grants.http.is_empty(),
            Self::Body => grants.body.is_some(),
        }
    }
}

/// What one plugin was granted, ready to be used; but for the connections to origins, which whoever calls it has.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    pub store: Option<Store>,
    pub secrets: Secrets,
    pub body: Option<BodyGrant>,
    pub origins: Granted,
}

/// Where a plugin may send requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    These(Vec<Target>),
    /// Anywhere: nothing leaves the process.
    OnTrial,
}

impl Default for Granted {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Granted {
    /// Whether requests to this URL may be sent.
    pub fn has(&self, url: &str) -> bool {
        let target = url.parse().ok().and_then(|uri| Target::of(&uri));
        target.is_some_and(|target| match self {
            Self::These(granted) => granted.contains(&target),
            Self::OnTrial => true,
        })
    }
}

impl Capabilities {
    /// What these grants amount to. Paths are relative to `folder`; `previous` is what the plugin had before.
    pub fn granted(grants: &Grants, folder: &Path, previous: Option<&Self>) -> Result<Self, SecretError> {
        let known = previous.and_then(|previous| previous.store.as_ref());
        let store = grants.store.as_ref().map(|grant| {
            let quota = Quota { memory: grant.memory.as_usize(), entries: grant.entries };
            known.map_or_else(|| Store::new(quota), |known| known.with_quota(quota))
        });
        let origins = grants.http.iter().filter_map(|grant| grant.get_ref().target()).collect();
        let secrets = Secrets::read(&grants.secrets, folder)?;
        Ok(Self { store, secrets, body: grants.body, origins: Granted::These(origins) })
    }

    /// Whether these are the same: the same store with the same quota, the same secrets.
    pub fn is_same(&self, other: &Self) -> bool {
        self.store == other.store
            && self.secrets.is_same(&other.secrets)
            && self.body == other.body
            && self.origins == other.origins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_granted_whatever_its_path() {
        let target = |url: &str| Target::of(&url.parse().unwrap()).unwrap();
        let granted =
            Granted::These(vec![target("https://auth.example.com"), target("http://127.0.0.1:8080")]);
        for (url, is_granted) in [
            ("https://auth.example.com/keys?a", true),
            ("https://AUTH.example.com:443/", true),
            ("https://auth.example.com:8443/", false),
            ("http://auth.example.com/", false),
            ("https://auth.example.org/", false),
            ("http://127.0.0.1:8080/", true),
            ("https://user@auth.example.com/", false),
            ("ftp://auth.example.com/", false),
            ("/keys", false),
            ("", false),
        ] {
            assert_eq!(granted.has(url), is_granted, "{url}");
        }
        assert!(Granted::OnTrial.has("https://anywhere.example/") && !Granted::OnTrial.has("nowhere"));
        assert!(!Granted::default().has("https://auth.example.com/"));
    }
}

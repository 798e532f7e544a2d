//! How does a backend join a proxy, and leave it?

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::cli::{admin::Admin, arguments, output::say};

/// With whom a backend registers, and as what.
#[derive(Debug, Args)]
pub(in crate::cli) struct RegisterArguments {
    /// The admin API of the proxy to register with, such as http://127.0.0.1:9901
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// The upstream to register for; `policy-<ID>` if absent
    #[arg(long, value_name = "NAME", requires = "register")]
    upstream: Option<String>,
    /// The privacy policy that the backend says it keeps to: the tag `policy`
    #[arg(long, value_name = "ID", requires = "register")]
    policy: Option<String>,
    /// A further tag; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag, requires = "register")]
    tags: Vec<(String, String)>,
    /// The share of requests
    #[arg(long, default_value_t = 1, requires = "register")]
    weight: u32,
    /// How long the proxy keeps the backend if it does not renew, which it does three times as often
    #[arg(long, value_parser = arguments::duration, default_value = "10s", requires = "register")]
    lifetime: Duration,
    /// What the admin API wants to be shown; TOLLGATE_ADMIN_TOKEN of the environment if absent
    #[arg(long, requires = "register")]
    token: Option<String>,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write a tag as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A backend's place in an upstream.
#[derive(Debug)]
pub(super) struct Registration {
    admin: Admin,
    url: String,
    upstream: String,
    path: String,
    tags: BTreeMap<String, String>,
    weight: u32,
    lifetime: Duration,
}

impl Registration {
    /// The place of the backend of this name at this address; none if it is to have none.
    pub fn new(
        arguments: RegisterArguments,
        name: &str,
        address: SocketAddr,
    ) -> anyhow::Result<Option<Self>> {
        let RegisterArguments { register, upstream, policy, tags, weight, lifetime, token } = arguments;
        let Some(url) = register else { return Ok(None) };
        let upstream = match (upstream, &policy) {
            (Some(upstream), _) => upstream,
            (None, Some(policy)) => format!("policy-{policy}"),
            (None, None) => bail!("say what the backend is to be part of: --upstream NAME, or --policy ID"),
        };
        if lifetime.is_zero() {
            bail!("a lifetime is longer than nothing");
        }
        let mut all = BTreeMap::from([("id".to_owned(), name.to_owned())]);
        all.extend(policy.map(|policy| ("policy".to_owned(), policy)));
        all.extend(tags);
        Ok(Some(Self {
            admin: Admin::new(&url, token.as_deref())?,
            url,
            path: format!("/api/upstreams/{upstream}/endpoints/{address}"),
            upstream,
            tags: all,
            weight,
            lifetime,
        }))
    }

    /// Registers, and renews for as long as it runs. The proxy may come later, or go and come back.
    pub async fn keep(&self) {
        const SOON: Duration = Duration::from_secs(1);
        let about = json!({
            "lifetime": format!("{}ms", self.lifetime.as_millis()),
            "weight": self.weight,
            "tags": self.tags,
        });
        let mut is_registered = None;
        loop {
            let answer = self.admin.ask(Method::PUT, &self.path, Some(&about)).await;
            match &answer {
                Ok(_) if is_registered != Some(true) => {
                    say!("registered with {} for the upstream {}", self.url, self.upstream);
                }
                Err(error) if is_registered != Some(false) => {
                    eprintln!("not registered, trying again: {error:#}");
                }
                Ok(_) | Err(_) => {}
            }
            is_registered = Some(answer.is_ok());
            sleep(if answer.is_ok() { self.lifetime / 3 } else { SOON.min(self.lifetime / 3) }).await;
        }
    }

    /// Takes the backend out, so that no more requests come.
    pub async fn end(&self) {
        match self.admin.ask(Method::DELETE, &self.path, None).await {
            Ok(_) => say!("taken out of the upstream {}", self.upstream),
            Err(error) => eprintln!("not taken out, which the proxy will do by itself: {error:#}"),
        }
    }
}

//! May this be answered from, or kept in, the cache?
//!
//! [`policy`] decides, [`store`] keeps what is stored in memory and [`fill`] what is being fetched. What happens
//! to a request in this is told in `proxy/cached.rs`.

pub mod fill;
pub mod key;
pub mod policy;
pub mod status;
pub mod store;
pub mod stored;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    config,
    telemetry::{Page, PerWorker, Tally, Writer},
};
use key::KeyRules;
use policy::{Terms, Time};
use status::Served;
use store::{Purge, Store};

/// The cache of a proxy. Outlives the generations.
#[derive(Debug)]
pub struct Cache {
    pub store: Arc<Store>,
    /// The body of a response that is stored, at most.
    pub max_object: u64,
    pub wait: Duration,
    pub waiters: usize,
    settings: config::Cache,
    counts: Arc<PerWorker<Counts>>,
}

/// How often what was done.
#[derive(Debug, Default)]
struct Counts {
    hits: Tally,
    stale: Tally,
    revalidated: Tally,
    misses: Tally,
    bypassed: Tally,
}

/// What a route says of caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub terms: Terms,
    pub key: KeyRules,
    pub response_hooks: config::ResponseHooks,
}

impl Cache {
    pub fn new(settings: &config::Cache) -> Self {
        let memory = settings.memory.get();
        let max_object = settings.max_object.get().min(memory / 4);
        Self {
            store: Arc::new(Store::new(settings.entries.get(), memory, max_object)),
            max_object,
            wait: settings.wait.get(),
            waiters: settings.waiters,
            settings: settings.clone(),
            counts: Arc::default(),
        }
    }

    /// Whether `settings` would make this very cache again.
    pub fn is_same(&self, settings: &config::Cache) -> bool {
        self.settings == *settings
    }

    /// One with other settings and what is stored in this one.
    pub fn resized(&self, settings: &config::Cache) -> Self {
        let mut resized = Self::new(settings);
        resized.counts = self.counts.clone();
        self.store.each(|key, resource| {
            for stored in resource.variants().iter().rev() {
                resized.store.put(&key, stored.clone(), Time::now());
            }
        });
        resized
    }

    pub fn count(&self, served: Served, writer: Writer) {
        let counts = self.counts.of(writer);
        let count = match served {
            Served::Hit | Served::Collapsed => &counts.hits,
            Served::Stale => &counts.stale,
            Served::Revalidated => &counts.revalidated,
            Served::Forwarded(status::Forward::Method | status::Forward::Bypass) => &counts.bypassed,
            Served::Forwarded(_) => &counts.misses,
        };
        count.add(1);
    }

    /// Drops what is meant, or with `soft` makes it stale. How many stored responses that were.
    pub fn purge(&self, meant: Purge<'_>, soft: bool) -> usize {
        self.store.purge(meant, soft, Time::now())
    }
}

impl Rules {
    pub fn new(route: &config::RouteCache) -> Self {
        // Shorter than a second is none: HTTP counts in seconds.
        let seconds = |duration: config::Duration| duration.get().as_secs();
        Self {
            terms: Terms {
                default_lifetime: route.ttl.map(seconds),
                lifetime: route.force_ttl.map(seconds),
                stale_while_revalidate: route.stale_while_revalidate.map(seconds),
                stale_if_error: route.stale_if_error.map(seconds),
                stores_cookies: route.store_cookies,
                ignores_request_directives: route.request_directives == config::RequestDirectives::Ignore,
            },
            key: KeyRules {
                query: route.query.clone(),
                headers: route.key_headers.clone(),
                cookies: route.key_cookies.clone(),
            },
            response_hooks: route.response_hooks,
        }
    }

    /// Whether response hooks come before storing, and not after.
    pub fn stores_what_hooks_made(&self) -> bool {
        self.response_hooks == config::ResponseHooks::Once
    }
}

impl Time {
    /// What the system's clock says.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Writes the families of the cache.
pub fn write_cache(page: &mut Page, cache: &Cache) {
    let sum = |count: fn(&Counts) -> &Tally| cache.counts.sum(count);
    page.counter("tollgate_cache_requests_total", "Requests on routes that cache.", |family| {
        family.row(&[("outcome", "hit")], sum(|counts| &counts.hits));
        family.row(&[("outcome", "stale")], sum(|counts| &counts.stale));
        family.row(&[("outcome", "revalidated")], sum(|counts| &counts.revalidated));
        family.row(&[("outcome", "miss")], sum(|counts| &counts.misses));
        family.row(&[("outcome", "bypass")], sum(|counts| &counts.bypassed));
    });
    page.gauge("tollgate_cache_entries", "URLs that something is stored for.", |family| {
        family.row(&[], cache.store.entries());
    });
    page.gauge("tollgate_cache_bytes", "Memory that stored responses take.", |family| {
        family.row(&[], cache.store.bytes());
    });
}

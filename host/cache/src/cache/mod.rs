//! May this be answered from, or kept in, the cache?
//!
//! [`policy`] decides, [`store`] keeps what is stored in memory, [`disk`] what survives the process; [`fill`] is what is
//! being fetched, [`encoded`] what is made of it. What happens to a request in this is told in `proxy/cached.rs`.

pub mod body;
pub mod disk;
pub mod encoded;
mod file;
pub mod fill;
mod forms;
pub mod key;
pub mod policy;
pub mod purge;
pub mod status;
pub mod store;
pub mod stored;
pub mod stream;
pub mod unkeyed;
mod voided;
mod wakers;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;

use crate::{
    config,
    drain::Drain,
    telemetry::{Page, PerWorker, Tally, Writer},
};
use disk::Disk;
use key::KeyRules;
use policy::{Lifetimes, Terms, Time};
use purge::Purge;
pub use status::Served;
use store::Store;

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

/// What can be said of a cache at a glance. Counts are of all routes that cache, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// URLs that something is stored for, in memory.
    pub entries: usize,
    /// What that takes.
    pub bytes: u64,
    /// On disk; none without one.
    pub disk: Option<(usize, u64)>,
    /// Requests that were answered with what was stored, validated or not.
    pub hits: u64,
    /// All other requests.
    pub others: u64,
}

/// What a route says of caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub terms: Terms,
    pub key: KeyRules,
    pub response_hooks: config::ResponseHooks,
    pub methods: Methods,
    /// The longest body of a request that may be part of a key, in bytes.
    pub key_body: usize,
}

/// Which requests are answered from the cache, and what is answered to them stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// HEAD as well.
    pub get: bool,
    /// With the body as a part of the key.
    pub post: bool,
}

impl Cache {
    /// An empty one. Relative paths are relative to `folder`.
    pub fn new(settings: &config::Cache, folder: &Path) -> Self {
        let disk = settings.disk.as_ref().map(|disk| {
            Arc::new(Disk::new(folder.join(&disk.path), disk.size.get(), settings.max_object.get()))
        });
        Self::on(settings, disk)
    }

    fn on(settings: &config::Cache, disk: Option<Arc<Disk>>) -> Self {
        let memory = settings.memory.get();
        let max_object = settings.max_object.get().min(memory / 4);
        Self {
            store: Arc::new(Store::new(settings.entries.get(), memory, max_object, disk)),
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
    pub fn resized(&self, settings: &config::Cache, folder: &Path) -> Self {
        let mut resized = match self.store.disk() {
            Some(disk) if self.settings.disk == settings.disk => Self::on(settings, Some(disk.clone())),
            _ => Self::new(settings, folder),
        };
        resized.counts = self.counts.clone();
        self.store.each(|key, resource| {
            for stored in resource.variants().iter().rev() {
                resized.store.put_in_memory(&key, stored.clone());
            }
        });
        resized
    }

    /// Has what is on disk looked after. Further calls do nothing.
    pub fn keep(&self, drain: &Drain) {
        if let Some(disk) = self.store.disk() {
            disk.keep(self.store.voids(), drain);
        }
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

    pub fn figures(&self) -> Figures {
        let sum = |count: fn(&Counts) -> &Tally| self.counts.sum(count);
        let hits =
            sum(|counts| &counts.hits) + sum(|counts| &counts.stale) + sum(|counts| &counts.revalidated);
        Figures {
            entries: self.store.entries(),
            bytes: self.store.bytes(),
            disk: self.store.disk().map(|disk| (disk.entries(), disk.bytes())),
            hits,
            others: sum(|counts| &counts.misses) + sum(|counts| &counts.bypassed),
        }
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
        let lifetimes = |ttl: &config::Ttl| Lifetimes {
            general: ttl.general.map(seconds),
            by_status: ttl
                .by_status
                .iter()
                .filter_map(|(status, duration)| {
                    Some((StatusCode::from_u16(*status).ok()?, seconds(*duration)))
                })
                .collect(),
        };
        Self {
            terms: Terms {
                default_lifetime: lifetimes(&route.ttl),
                lifetime: lifetimes(&route.force_ttl),
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
            methods: Methods {
                get: route.methods.contains(&config::CacheMethod::Get),
                post: route.methods.contains(&config::CacheMethod::Post),
            },
            key_body: route.key_body.as_usize(),
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
    let Some(disk) = cache.store.disk() else { return };
    page.gauge("tollgate_cache_disk_entries", "URLs that something is on disk for.", |family| {
        family.row(&[], disk.entries());
    });
    page.gauge("tollgate_cache_disk_bytes", "What stored responses take of the disk.", |family| {
        family.row(&[], disk.bytes());
    });
    let counts = disk.counts();
    page.counter(
        "tollgate_cache_disk_writes_total",
        "Responses that were to be written to disk.",
        |family| {
            family.row(&[("outcome", "written")], counts.written.get());
            family.row(&[("outcome", "left-out")], counts.left_out.get());
            family.row(&[("outcome", "failed")], counts.not_written.get());
        },
    );
    page.counter("tollgate_cache_disk_reads_total", "Responses that were read from disk.", |family| {
        family.row(&[("outcome", "read")], counts.read.get());
        family.row(&[("outcome", "damaged")], counts.damaged.get());
        family.row(&[("outcome", "failed")], counts.not_read.get());
    });
}

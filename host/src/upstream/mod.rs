//! Which endpoint serves it, and is it well?
//!
//! An [`Upstream`] is a named group of endpoints; what is known of an [`Endpoint`] is shared by all workers
//! and survives a reload. Connections are each worker's own: see [`pool`].

mod connect;
mod interim;
mod pool;
mod transport;

pub use connect::ConnectError;
pub use interim::Interim;
pub use pool::{Lease, Pool};

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, uri::Authority};

use crate::{
    config::{self, UpstreamTimeouts},
    plugin::{Condition, Member, Members},
};

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub endpoints: Vec<Arc<Endpoint>>,
    pub timeouts: UpstreamTimeouts,
    /// The name of the plugin that picks.
    pub balance: Option<String>,
    settings: config::Upstream,
    version: u64,
}

/// One address of an upstream, and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub authority: Authority,
    pub weight: u32,
    pub tags: Vec<(String, String)>,
    /// The authority as a header value, made once.
    pub address: HeaderValue,
    /// Tells endpoints apart over the life of the process.
    id: u64,
    /// Where the authority is an address and no name.
    fixed: Option<SocketAddr>,
    /// Requests in flight, of all workers.
    active: AtomicU32,
    /// Moving average of the time to the head of a response.
    latency_us: AtomicU32,
    /// Failures since the last success.
    failures: AtomicU32,
}

/// Numbers that are never used twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Upstream {
    /// Makes an upstream; endpoints that `previous` has with equal settings are taken over as they are.
    pub fn new(name: Arc<str>, settings: &config::Upstream, previous: Option<&Upstream>) -> Self {
        let take_over = |wanted: &config::Endpoint| {
            let known = previous?.endpoints.iter().find(|endpoint| endpoint.is_same(wanted))?;
            Some(known.clone())
        };
        let endpoints = settings
            .endpoints
            .iter()
            .map(|wanted| take_over(wanted).unwrap_or_else(|| Arc::new(Endpoint::new(wanted))))
            .collect();
        Self {
            name,
            endpoints,
            timeouts: settings.timeouts.clone(),
            balance: settings.balance.as_ref().map(|name| name.get_ref().clone()),
            settings: settings.clone(),
            version: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether `settings` would make this very upstream again.
    pub fn is_same(&self, settings: &config::Upstream) -> bool {
        self.settings == *settings
    }

    /// The host's own balancing: of two endpoints taken by chance the one with fewer requests in flight.
    ///
    /// Endpoints in `tried` are left out while there are others; none if there are no others. See
    /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    pub fn least_loaded_of_two(&self, tried: &[u32]) -> Option<usize> {
        let count = self.endpoints.len();
        if tried.is_empty() {
            return match count {
                0 => None,
                1 => Some(0),
                _ => {
                    let first = fastrand::usize(..count);
                    let second = (first + fastrand::usize(1..count)) % count;
                    Some(self.less_loaded(first, second))
                }
            };
        }
        let untried: Vec<usize> = (0..count).filter(|index| !tried.contains(&(*index as u32))).collect();
        match untried[..] {
            [] => None,
            [only] => Some(only),
            _ => {
                let first = fastrand::usize(..untried.len());
                let second = (first + fastrand::usize(1..untried.len())) % untried.len();
                Some(self.less_loaded(untried[first], untried[second]))
            }
        }
    }

    fn less_loaded(&self, first: usize, second: usize) -> usize {
        let active = |index: usize| self.endpoints[index].active.load(Ordering::Relaxed);
        if active(second) < active(first) { second } else { first }
    }
}

impl Members for Upstream {
    fn upstream(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn describe(&self) -> Vec<Member> {
        let describe = |endpoint: &Arc<Endpoint>| Member {
            address: endpoint.authority.as_str().to_owned(),
            weight: endpoint.weight,
            tags: endpoint.tags.clone(),
        };
        self.endpoints.iter().map(describe).collect()
    }

    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn inspect(&self, index: usize) -> Option<Condition> {
        self.endpoints.get(index).map(|endpoint| Condition {
            active: endpoint.active.load(Ordering::Relaxed),
            latency_us: endpoint.latency_us.load(Ordering::Relaxed),
            failures: endpoint.failures.load(Ordering::Relaxed),
        })
    }
}

impl Endpoint {
    fn new(settings: &config::Endpoint) -> Self {
        let authority = settings.authority.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok().zip(authority.port_u16()).map(SocketAddr::from);
        Self {
            address: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            weight: settings.weight,
            tags: settings.tags.clone().into_iter().collect(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            fixed: address,
            authority,
            active: AtomicU32::new(0),
            latency_us: AtomicU32::new(0),
            failures: AtomicU32::new(0),
        }
    }

    fn is_same(&self, settings: &config::Endpoint) -> bool {
        self.authority == settings.authority
            && self.weight == settings.weight
            && self.tags.iter().map(|(key, value)| (key, value)).eq(settings.tags.iter())
    }

    /// Whether a request is one of those whose time is taken. To look at the clock twice for each would cost
    /// more than the average gains by it.
    pub fn is_sampled() -> bool {
        fastrand::u8(..) < 32
    }

    /// Notes a response that has come, and after what time, if it was taken.
    pub fn succeeded(&self, after: Option<Duration>) {
        if let Some(after) = after {
            let sample = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
            let average = self.latency_us.load(Ordering::Relaxed);
            // Two workers may do this at once and one sample be lost: it is an average.
            let next = if average == 0 { sample } else { average - average / 8 + sample / 8 };
            self.latency_us.store(next.max(1), Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a request that has got no response.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// One request in flight to an endpoint, for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(count: u16) -> Upstream {
        let endpoints = (1..=count).map(|port| format!("\"http://127.0.0.1:{port}\"")).collect::<Vec<_>>();
        let settings = toml::from_str(&format!("endpoints = [{}]", endpoints.join(", "))).unwrap();
        Upstream::new("app".into(), &settings, None)
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let upstream = upstream(2);
        let _busy = InFlight::new(upstream.endpoints[0].clone());
        for _ in 0..20 {
            assert_eq!(upstream.least_loaded_of_two(&[]), Some(1));
        }
        assert_eq!(upstream.least_loaded_of_two(&[1]), Some(0));
        assert_eq!(upstream.least_loaded_of_two(&[0, 1]), None);
        assert_eq!(self::upstream(0).least_loaded_of_two(&[]), None);
    }

    #[test]
    fn equal_endpoints_survive_a_reload_with_what_is_known_of_them() {
        let before = upstream(2);
        let after = Upstream::new("app".into(), &upstream(3).settings, Some(&before));
        assert!(Arc::ptr_eq(&before.endpoints[1], &after.endpoints[1]));
        assert_ne!(before.version(), after.version(), "balancers are told of the new list");
        assert!(before.is_same(&upstream(2).settings));
    }
}

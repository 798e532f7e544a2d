//! Which endpoints are there, besides those that the configuration names?
//!
//! Each source tells a whole list whenever it changes; servers register themselves one by one. What they have
//! said is kept for all upstreams of a name, so that it survives a reload. Nothing here waits or looks at a clock.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashSet;

use crate::config;

/// Where an endpoint comes from. If several name the same address, the first of them counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Configured,
    /// By the admin API.
    Registered,
    Dns,
    File,
    Etcd,
    Consul,
    ZooKeeper,
}

impl Source {
    /// As logs, metrics and the admin API call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Registered => "registered",
            Self::Dns => "dns",
            Self::File => "file",
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::ZooKeeper => "zookeeper",
        }
    }
}

/// The sources that the settings of an upstream name, without the configuration itself and those who register.
pub(super) fn sources(settings: &config::Upstream) -> Vec<Source> {
    let Some(discover) = &settings.discover else { return Vec::new() };
    let config::Discover { dns, file, etcd, consul, zookeeper, https: _, may_be_empty: _, tls: _ } = discover;
    let dns = dns.as_ref().map(|_| Source::Dns);
    let file = file.as_ref().map(|_| Source::File);
    let etcd = etcd.as_ref().map(|_| Source::Etcd);
    let consul = consul.as_ref().map(|_| Source::Consul);
    let zookeeper = zookeeper.as_ref().map(|_| Source::ZooKeeper);
    [dns, file, etcd, consul, zookeeper].into_iter().flatten().collect()
}

/// What a source has said, and how it does.
#[derive(Debug, Clone, Default)]
pub struct SourceReport {
    endpoints: Arc<[config::Endpoint]>,
    /// Lists that came, whether they were new or not.
    pub answers: u64,
    /// Times that there was none.
    pub failures: u64,
    pub last_answer: Option<Instant>,
    pub last_change: Option<Instant>,
    /// Why there is none now, or why it does not count.
    pub error: Option<Arc<str>>,
}

impl SourceReport {
    /// How many endpoints it names, those included that others name as well.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }
}

/// What a list changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Same,
    Changed {
        joined: usize,
        left: usize,
    },
    /// It names nobody, which is not believed.
    Empty,
}

/// Whether a server was known that registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    New,
    /// With another weight, other tags, or another scheme.
    Changed,
    Renewed,
}

/// Why a server cannot register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    #[error("the upstream takes no registrations: it has no `register = true`")]
    NotTaken,
    #[error("this endpoint stands in the configuration")]
    Configured,
    #[error("the upstream has no table `tls` that says how endpoints with https are reached")]
    NoTls,
    #[error(
        "{0} is no address that anybody can reach, or is where the admin API listens: let the upstream take those of a \
         network, such as register = {{ networks = [\"10.0.0.0/8\"] }}"
    )]
    NotAllowed(IpAddr),
    #[error("as many are registered as may be")]
    TooMany,
}

#[derive(Debug, Clone)]
struct Registration {
    endpoint: config::Endpoint,
    until: Instant,
}

/// What all sources of the upstreams of one name have said.
#[derive(Debug, Default)]
pub(super) struct Members {
    report: BTreeMap<Source, SourceReport>,
    /// By address, in the order of addresses.
    registered: BTreeMap<String, Registration>,
}

/// Servers that may be registered with one upstream: a mistake in a loop is to have an end.
const REGISTERED: usize = 10_000;

impl Members {
    /// A source has answered.
    pub fn tell(
        &mut self,
        source: Source,
        endpoints: Vec<config::Endpoint>,
        may_be_empty: bool,
        now: Instant,
    ) -> News {
        let report = self.report.entry(source).or_default();
        report.answers += 1;
        report.last_answer = Some(now);
        if endpoints.is_empty() && !report.endpoints.is_empty() && !may_be_empty {
            report.error = Some("it names no endpoint, so those that it named last stay".into());
            return News::Empty;
        }
        report.error = None;
        if *report.endpoints == *endpoints {
            return News::Same;
        }
        report.last_change = Some(now);
        let before = std::mem::replace(&mut report.endpoints, endpoints.into());
        let missing = |these: &[config::Endpoint], those: &[config::Endpoint]| {
            let those: FxHashSet<_> = those.iter().map(|endpoint| endpoint.authority.as_str()).collect();
            these.iter().filter(|endpoint| !those.contains(endpoint.authority.as_str())).count()
        };
        News::Changed {
            joined: missing(&report.endpoints, &before),
            left: missing(&before, &report.endpoints),
        }
    }

    /// A source has not answered; what it said last stays. Whether this is another failure than the last.
    pub fn fail(&mut self, source: Source, error: &str) -> bool {
        let report = self.report.entry(source).or_default();
        report.failures += 1;
        let is_news = report.error.as_deref() != Some(error);
        report.error = Some(error.into());
        is_news
    }

    /// Forgets what sources have said that are no longer asked.
    pub fn keep_only(&mut self, sources: &[Source], registers: bool) {
        self.report.retain(|source, _| sources.contains(source));
        if !registers {
            self.registered.clear();
        }
    }

    /// What a source has said.
    pub fn report(&self, source: Source) -> SourceReport {
        self.report.get(&source).cloned().unwrap_or_default()
    }

    /// A server registers, or says that it is still there.
    pub fn register(
        &mut self,
        endpoint: config::Endpoint,
        until: Instant,
    ) -> Result<Registered, RegisterError> {
        let count = self.registered.len();
        if let Some(known) = self.registered.get_mut(endpoint.authority.as_str()) {
            known.until = until;
            if known.endpoint == endpoint {
                return Ok(Registered::Renewed);
            }
            known.endpoint = endpoint;
            return Ok(Registered::Changed);
        }
        if count >= REGISTERED {
            return Err(RegisterError::TooMany);
        }
        let address = endpoint.authority.as_str().to_owned();
        self.registered.insert(address, Registration { endpoint, until });
        Ok(Registered::New)
    }

    /// A server is to get no more requests. Whether it was registered.
    pub fn take_out(&mut self, address: &str) -> bool {
        self.registered.remove(address).is_some()
    }

    /// Takes out the servers that have not renewed in time; they are returned.
    pub fn expire(&mut self, now: Instant) -> Vec<config::Endpoint> {
        let mut gone = Vec::new();
        self.registered.retain(|_, registration| {
            let stays = registration.until > now;
            if !stays {
                gone.push(registration.endpoint.clone());
            }
            stays
        });
        gone
    }

    /// When the next server goes that does not renew.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.registered.values().map(|registration| registration.until).min()
    }

    /// How long a registered server stays if it does not renew.
    pub fn lifetime(&self, address: &str, now: Instant) -> Option<Duration> {
        self.registered.get(address).map(|registration| registration.until.saturating_duration_since(now))
    }

    /// All endpoints of an upstream with these settings, each address once.
    pub fn of<'a>(
        &'a self,
        settings: &'a config::Upstream,
    ) -> impl Iterator<Item = (Source, &'a config::Endpoint)> {
        let configured = settings.endpoints.iter().map(|endpoint| (Source::Configured, endpoint));
        let registered = self.registered.values().filter(|_| settings.register.is_some());
        let registered = registered.map(|registration| (Source::Registered, &registration.endpoint));
        let asked = sources(settings);
        let report = self.report.iter().filter(move |(source, _)| asked.contains(source));
        let report =
            report.flat_map(|(source, report)| report.endpoints.iter().map(|endpoint| (*source, endpoint)));
        let mut seen = FxHashSet::default();
        let others = registered.chain(report);
        // What stands twice in the configuration is meant to.
        configured.chain(others).filter(move |(source, endpoint)| {
            seen.insert(endpoint.authority.as_str()) || *source == Source::Configured
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ports: &[u16]) -> Vec<config::Endpoint> {
        ports
            .iter()
            .map(|port| config::Endpoint::parse(&format!("127.0.0.1:{port}"), false).unwrap())
            .collect()
    }

    fn ports(members: &Members, settings: &str) -> Vec<(Source, u16)> {
        let settings = toml::from_str(settings).unwrap();
        let port = |endpoint: &config::Endpoint| endpoint.authority.port_u16().unwrap();
        members.of(&settings).map(|(source, endpoint)| (source, port(endpoint))).collect()
    }

    #[test]
    fn a_source_that_names_nobody_or_says_nothing_empties_nothing() {
        let now = Instant::now();
        let mut members = Members::default();
        let mut tell =
            |ports: &[u16], may_be_empty| members.tell(Source::File, list(ports), may_be_empty, now);
        assert_eq!(tell(&[], false), News::Same, "nobody was there");
        assert_eq!(tell(&[1, 2], false), News::Changed { joined: 2, left: 0 });
        assert_eq!(tell(&[1, 2], false), News::Same);
        assert_eq!(tell(&[2, 3, 4], false), News::Changed { joined: 2, left: 1 });
        assert_eq!(tell(&[], false), News::Empty);
        assert!(members.fail(Source::File, "gone"));
        assert!(!members.fail(Source::File, "gone"), "the same again");
        assert!(members.fail(Source::File, "refused"));
        let report = members.report(Source::File);
        assert_eq!((report.endpoints(), report.answers, report.failures), (3, 5, 3));
        assert_eq!(report.error.as_deref(), Some("refused"));
        assert_eq!(members.tell(Source::File, list(&[2, 3, 4]), false, now), News::Same);
        assert_eq!(members.report(Source::File).error, None, "it is well again");
        assert_eq!(members.tell(Source::File, list(&[]), true, now), News::Changed { joined: 0, left: 3 });
    }

    #[test]
    fn each_address_is_there_once_and_the_first_source_says_how() {
        let now = Instant::now();
        let mut members = Members::default();
        members.tell(Source::File, list(&[1, 2, 3]), false, now);
        for endpoint in list(&[2, 4]) {
            members.register(endpoint, now + Duration::from_secs(1)).unwrap();
        }
        let (configured, registered, file) = (Source::Configured, Source::Registered, Source::File);
        for (settings, expected) in [
            ("endpoints = ['http://127.0.0.1:1']", vec![(configured, 1)]),
            ("register = true", vec![(registered, 2), (registered, 4)]),
            ("discover.file = 'a.toml'", vec![(file, 1), (file, 2), (file, 3)]),
            (
                "endpoints = ['http://127.0.0.1:1']\nregister = true\ndiscover.file = 'a.toml'",
                vec![(configured, 1), (registered, 2), (registered, 4), (file, 3)],
            ),
            (
                "endpoints = ['http://127.0.0.1:1', 'http://127.0.0.1:1']\ndiscover.file = 'a.toml'",
                vec![(configured, 1), (configured, 1), (file, 2), (file, 3)],
            ),
        ] {
            assert_eq!(ports(&members, settings), expected, "{settings}");
        }
        members.keep_only(&[], true);
        assert_eq!(
            ports(&members, "register = true\ndiscover.file = 'a.toml'"),
            [(registered, 2), (registered, 4)]
        );
        members.keep_only(&[], false);
        assert_eq!(ports(&members, "register = true"), []);
    }

    #[test]
    fn a_server_stays_for_as_long_as_it_renews() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut members = Members::default();
        let [one, mut other] = <[_; 2]>::try_from(list(&[1, 2])).unwrap();
        assert_eq!(members.register(one.clone(), at(10)), Ok(Registered::New));
        assert_eq!(members.register(other.clone(), at(20)), Ok(Registered::New));
        assert_eq!(members.next_expiry(), Some(at(10)));
        assert_eq!(members.register(one.clone(), at(30)), Ok(Registered::Renewed));
        other.weight = 5;
        assert_eq!(members.register(other.clone(), at(20)), Ok(Registered::Changed));
        assert_eq!(members.lifetime("127.0.0.1:2", at(15)), Some(Duration::from_secs(5)));
        assert_eq!(members.expire(at(19)), []);
        assert_eq!(members.expire(at(20)), [other]);
        assert!(members.take_out("127.0.0.1:1") && !members.take_out("127.0.0.1:1"));
        assert_eq!(members.next_expiry(), None);
        for number in 0..REGISTERED as u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let endpoint = config::Endpoint::parse(&format!("10.{b}.{c}.{d}:80"), false).unwrap();
            assert_eq!(members.register(endpoint, at(1)), Ok(Registered::New));
        }
        assert_eq!(members.register(one, at(1)), Err(RegisterError::TooMany));
    }
}

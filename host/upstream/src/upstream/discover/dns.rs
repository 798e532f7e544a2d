//! Which addresses does a name have?
//!
//! With a port the name is asked for its addresses, without one for services (SRV, RFC 2782), which say their port and
//! weight. It is asked again when the first of the records is out of date.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::rr::{RData, Record, RecordType},
};
use tokio::time::sleep_until;

use super::{
    directory::{Directory, Next},
    error::DirectoryError,
};
use crate::config;

/// For one question to one server.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a name without records is taken to have none, if the answer does not say.
const NOTHING: Duration = Duration::from_secs(5);

/// Services of one name whose addresses are asked for.
const SERVICES: usize = 1_000;

/// A name that is asked for.
pub(super) struct Dns {
    settings: config::DnsName,
    is_https: bool,
    /// Made when it is first needed, and anew after a failure: the system may have other servers by then.
    resolver: Option<TokioResolver>,
    due: Option<Instant>,
}

/// What was found, and how long it holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found<T> {
    list: Vec<T>,
    /// At most; absent if nothing says.
    holds: Option<Duration>,
}

/// A service that a name has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    host: String,
    port: NonZero<u16>,
    weight: u32,
}

impl Dns {
    pub fn new(settings: config::DnsName, is_https: bool) -> Self {
        Self { settings, is_https, resolver: None, due: None }
    }

    async fn ask(&mut self) -> Result<Vec<config::Endpoint>, NetError> {
        if let Some(due) = self.due.take() {
            sleep_until(due.into()).await;
        }
        let resolver = match self.resolver.take() {
            Some(resolver) => resolver,
            None => resolver(&self.settings.servers)?,
        };
        let name = self.settings.name.as_str();
        let found = match self.settings.port {
            Some(port) => {
                let found = addresses(&resolver, name).await?;
                let endpoint = |address| self.endpoint(SocketAddr::new(address, port.get()), 1, None);
                Found { list: found.list.into_iter().map(endpoint).collect(), holds: found.holds }
            }
            None => {
                let found = services(&asked(&resolver, name, RecordType::SRV).await?);
                let (mut list, mut holds) = (Vec::new(), found.holds);
                for service in found.list.into_iter().take(SERVICES) {
                    let of_host = addresses(&resolver, &service.host).await?;
                    let Service { host, port, weight } = service;
                    let host = host.trim_end_matches('.');
                    list.extend(of_host.list.into_iter().map(|address| {
                        self.endpoint(SocketAddr::new(address, port.get()), weight, Some(host))
                    }));
                    holds = shorter(holds, of_host.holds);
                }
                Found { list, holds }
            }
        };
        self.resolver = Some(resolver);
        let holds = found.holds.unwrap_or(NOTHING);
        let holds = holds.max(self.settings.ttl_min.get()).min(self.settings.ttl_max.get());
        self.due = Some(Instant::now() + holds);
        Ok(found.list)
    }

    fn endpoint(&self, address: SocketAddr, weight: u32, host: Option<&str>) -> config::Endpoint {
        let mut endpoint = config::Endpoint::at(address, self.is_https);
        endpoint.weight = weight;
        endpoint.tags.extend(host.map(|host| ("host".to_owned(), host.to_owned())));
        endpoint
    }
}

impl Directory for Dns {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async { self.ask().await.map_err(DirectoryError::Dns) })
    }
}

/// Asks these servers, or those of the system if there are none. Keeps nothing: how long answers hold is known here.
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.to_vec())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = PATIENCE;
    builder.build()
}

/// The records of a name of one type; that there are none is an answer, too.
async fn asked(
    resolver: &TokioResolver,
    name: &str,
    record_type: RecordType,
) -> Result<Found<Record>, NetError> {
    match resolver.lookup(name, record_type).await {
        Ok(lookup) => {
            let list = lookup.answers().to_vec();
            let holds = list.iter().map(|record| Duration::from_secs(record.ttl.into())).min();
            Ok(Found { list, holds })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { negative_ttl, .. }))) => Ok(Found {
            list: Vec::new(),
            holds: negative_ttl.map(|seconds| Duration::from_secs(seconds.into())),
        }),
        Err(error) => Err(error),
    }
}

/// All addresses of a name, in order. If one of the two questions fails, nothing is known.
async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Found<IpAddr>, NetError> {
    let (old, new) =
        tokio::try_join!(asked(resolver, name, RecordType::A), asked(resolver, name, RecordType::AAAA))?;
    let address = |record: &Record| record.data.ip_addr();
    let mut list: Vec<IpAddr> = old.list.iter().chain(&new.list).filter_map(address).collect();
    list.sort_unstable();
    list.dedup();
    // A name with addresses of one kind alone need not be asked for those of the other more often.
    let holds = match (old.list.is_empty(), new.list.is_empty()) {
        (false, true) => old.holds,
        (true, false) => new.holds,
        (true, true) | (false, false) => shorter(old.holds, new.holds),
    };
    Ok(Found { list, holds })
}

/// The services that come first (RFC 2782): those of a higher number would be asked if none of them was there, which
/// is not known here. One of weight 0 has a small share, and an equal one where all have 0.
fn services(found: &Found<Record>) -> Found<Service> {
    let records = || {
        found.list.iter().filter_map(|record| match &record.data {
            // A root stands for no service at all.
            RData::SRV(service) if !service.target.is_root() => Some(service),
            _ => None,
        })
    };
    let first = records().map(|service| service.priority).min();
    let mut list: Vec<Service> = records()
        .filter(|service| Some(service.priority) == first)
        .filter_map(|service| {
            let port = NonZero::new(service.port)?;
            Some(Service { host: service.target.to_ascii(), port, weight: u32::from(service.weight).max(1) })
        })
        .collect();
    list.sort_unstable_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
    Found { list, holds: found.holds }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::{Name, rdata::SRV};

    use super::*;

    #[test]
    fn services_that_come_first_count() {
        let record = |(priority, weight, port, target): (u16, u16, u16, &str)| {
            let service = SRV::new(priority, weight, port, Name::from_ascii(target).unwrap());
            Record::from_rdata(Name::root(), 30, RData::SRV(service))
        };
        for (records, expected) in [
            (&[][..], &[][..]),
            (&[(0, 0, 0, ".")], &[]),
            (&[(1, 0, 0, "a.")], &[]),
            (&[(1, 0, 80, "b."), (1, 5, 80, "a.")], &[("a.", 80, 5), ("b.", 80, 1)]),
            (&[(2, 1, 80, "b."), (1, 7, 81, "a."), (1, 7, 80, "a.")], &[("a.", 80, 7), ("a.", 81, 7)]),
        ] {
            let holds = Some(Duration::from_secs(30));
            let found = services(&Found { list: records.iter().copied().map(record).collect(), holds });
            let list: Vec<_> = found
                .list
                .iter()
                .map(|service| (service.host.as_str(), service.port.get(), service.weight))
                .collect();
            assert_eq!((list.as_slice(), found.holds), (expected, holds), "{records:?}");
        }
    }
}

//! Who says which endpoints there are?
//!
//! A [`Directory`] does, for as long as its upstream is in force: see [`run`]. One that fails is asked again, later
//! each time, and what it said last stays. All of this is on the control side.

mod consul;
mod dns;
mod etcd;
mod file;
mod gateway;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Source, Upstream};
use crate::{config, telemetry::with_sources};

/// Something that knows the endpoints of an upstream.
pub(super) trait Directory: Send {
    /// Waits until the list may be another than the one before; the first time there is nothing to wait for.
    /// After an error it begins anew.
    fn next(&mut self) -> Next<'_>;
}

/// A whole list, or why there is none.
pub(super) type Next<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<config::Endpoint>, DirectoryError>> + Send + 'a>>;

/// Why a directory has no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("the name cannot be resolved")]
    Dns(#[source] hickory_resolver::net::NetError),
    #[error(transparent)]
    Gateway(#[from] gateway::GatewayError),
    #[cfg(feature = "zookeeper")]
    #[error("ZooKeeper does not tell")]
    ZooKeeper(#[source] zookeeper_client::Error),
    #[error(transparent)]
    File(#[from] file::FileError),
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

/// The directory of one of these sources; `folder` is what relative paths are relative to.
fn open(upstream: &Upstream, source: Source, folder: &Path) -> Option<Box<dyn Directory>> {
    let discover = upstream.settings.discover.as_ref()?;
    let gateway =
        |servers: &[config::Endpoint]| gateway::Gateway::new(servers, upstream.tls.sources.as_ref());
    match source {
        Source::Configured | Source::Registered => None,
        Source::Dns => Some(Box::new(dns::Dns::new(discover.dns.clone()?, discover.https))),
        Source::File => Some(Box::new(file::File::new(folder.join(discover.file.as_ref()?)))),
        Source::Etcd => {
            let settings = discover.etcd.clone()?;
            Some(Box::new(etcd::Etcd::new(gateway(&settings.servers), settings, discover.https)))
        }
        Source::Consul => {
            let settings = discover.consul.clone()?;
            Some(Box::new(consul::Consul::new(gateway(&settings.servers), settings, discover.https)))
        }
        #[cfg(feature = "zookeeper")]
        Source::ZooKeeper => {
            let settings = discover.zookeeper.clone()?;
            Some(Box::new(zookeeper::ZooKeeper::new(settings, discover.https)))
        }
        // The configuration is refused that names it.
        #[cfg(not(feature = "zookeeper"))]
        Source::ZooKeeper => None,
    }
}

/// The endpoints of a list, without what is none: one of them that is written wrong does not take the others along.
/// It is logged when that is another than `before`.
fn listed(
    source: &str,
    understood: Vec<Result<config::Endpoint, String>>,
    before: &mut Vec<String>,
) -> Vec<config::Endpoint> {
    let (mut endpoints, mut not_understood) = (Vec::new(), Vec::new());
    for one in understood {
        match one {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => not_understood.push(error),
        }
    }
    if not_understood != *before {
        for error in &not_understood {
            tracing::warn!(source, error, "not an endpoint, left out");
        }
        *before = not_understood;
    }
    endpoints
}

/// Between two lists at least: a directory that changes all the time is not to keep everybody busy.
const PAUSE: Duration = Duration::from_millis(50);

/// How long after a failure a directory is asked again; twice as long each time, up to the last.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(10);

/// Asks a source for as long as it runs, and tells the upstream.
pub(super) async fn run(upstream: Arc<Upstream>, source: Source, folder: Arc<Path>) {
    let Some(mut directory) = open(&upstream, source, &folder) else { return };
    let mut wait = FIRST;
    loop {
        let earliest = Instant::now() + PAUSE;
        match directory.next().await {
            Ok(endpoints) => {
                wait = FIRST;
                upstream.report(source, endpoints);
                sleep_until(earliest).await;
            }
            Err(error) => {
                upstream.not_told(source, &with_sources(&error));
                // Not all proxies at once.
                sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                wait = (wait * 2).min(LAST);
            }
        }
    }
}

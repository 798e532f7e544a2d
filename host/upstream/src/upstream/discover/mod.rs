//! Who says which endpoints there are?
//!
//! A [`Directory`] does, for as long as its upstream is in force: see [`run`]. One that fails is asked again, later
//! each time, and what it said last stays. All of this is on the control side.

mod consul;
mod directory;
mod dns;
mod error;
mod etcd;
mod file;
mod gateway;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use directory::Directory;

use super::{Source, Upstream};
use crate::{config, telemetry::with_sources};

/// The directory of one of these sources; `folder` is what relative paths are relative to.
fn open(upstream: &Upstream, source: Source, folder: &Path) -> Option<Box<dyn Directory>> {
    let discover = upstream.settings.discover.as_ref()?;
    let gateway =
        |servers: &[config::Endpoint]| gateway::Gateway::new(servers, upstream.tls().sources.as_ref());
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

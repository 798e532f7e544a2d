//! Which endpoints stand below a node in ZooKeeper?
//!
//! Each of its children is one, by its data. Servers make theirs ephemeral, so that it goes with their session. All
//! that happens below the node is watched (from ZooKeeper 3.6 on); whatever it is, the children are read again.

use std::time::Duration;

use tokio::time::timeout;
use zookeeper_client::{AddWatchMode, Client, Error, EventType, PersistentWatcher, SessionState};

use super::{
    directory::{Directory, Next, listed},
    error::DirectoryError,
    etcd,
};
use crate::config;

/// For a session.
const PATIENCE: Duration = Duration::from_secs(5);

/// After this time without another the children are read. Many often come and go at once.
const STILL: Duration = Duration::from_millis(20);

/// Children that are read.
const MOST: usize = 10_000;

/// A node in ZooKeeper.
pub(super) struct ZooKeeper {
    settings: config::ZooKeeper,
    is_https: bool,
    /// Made when it is first needed, and anew after a failure.
    session: Option<Session>,
    /// What could not be understood the last time.
    not_understood: Vec<String>,
}

struct Session {
    client: Client,
    watcher: PersistentWatcher,
}

impl ZooKeeper {
    pub fn new(settings: config::ZooKeeper, is_https: bool) -> Self {
        Self { settings, is_https, session: None, not_understood: Vec::new() }
    }

    async fn list(&mut self) -> Result<Vec<config::Endpoint>, Error> {
        let session = match self.session.take() {
            Some(mut session) => {
                session.wait().await?;
                session
            }
            None => {
                let opening = Session::open(&self.settings);
                timeout(PATIENCE, opening).await.map_err(|_| Error::Timeout)??
            }
        };
        let mut names = match session.client.list_children(&self.settings.path).await {
            Ok(names) => names,
            // Nobody has been there yet.
            Err(Error::NoNode) => Vec::new(),
            Err(error) => return Err(error),
        };
        names.sort_unstable();
        let mut understood = Vec::new();
        for name in names.iter().take(MOST) {
            let path = format!("{}/{name}", self.settings.path.trim_end_matches('/'));
            match session.client.get_data(&path).await {
                Ok((data, _)) => {
                    let text = String::from_utf8(data).map_err(|_| "the data is not text".to_owned());
                    let endpoint = text.and_then(|text| etcd::endpoint(&text, self.is_https));
                    understood.push(endpoint.map_err(|error| format!("{path}: {error}")));
                }
                // It has gone meanwhile.
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
        self.session = Some(session);
        Ok(listed("zookeeper", understood, &mut self.not_understood))
    }
}

impl Session {
    async fn open(settings: &config::ZooKeeper) -> Result<Self, Error> {
        let client = Client::connect(&settings.servers.join(",")).await?;
        let watcher = client.watch(&settings.path, AddWatchMode::PersistentRecursive).await?;
        Ok(Self { client, watcher })
    }

    /// Waits until something has happened, and then for a moment without anything.
    async fn wait(&mut self) -> Result<(), Error> {
        let mut event = self.watcher.changed().await;
        loop {
            // What happens while there is no connection is not told of (ZOOKEEPER-4698), so all is begun anew. After
            // the end of a session there is no event at all.
            let is_lost =
                event.session_state == SessionState::Disconnected || event.session_state.is_terminated();
            if event.event_type == EventType::Session && is_lost {
                return Err(Error::ConnectionLoss);
            }
            match timeout(STILL, self.watcher.changed()).await {
                Ok(next) => event = next,
                Err(_) => return Ok(()),
            }
        }
    }
}

impl Directory for ZooKeeper {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async { Ok(self.list().await.map_err(DirectoryError::ZooKeeper)?) })
    }
}

//! Who gets a place at the admin API, and who has to make room?
//!
//! Probes ask here whether the proxy lives, and an orchestrator that gets no answer restarts it. So no number of clients
//! that open connections, and send half a head or half a body, may keep a probe out. A new connection always finds a
//! place: the one that has waited longest without a whole request makes room. What takes time, which is everything but
//! the probes, has places of its own, so that some connections always wait and can make room.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 256;

/// Connections of one address at once. On loopback that is everybody on the machine.
const OF_ONE_CLIENT: usize = 64;

/// Requests at once that are no probes. Fewer than one client may have connections.
const REQUESTS: usize = 32;

/// How long a connection may be without a request in hand: while it is idle, and while its client does not take an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The places that there are.
#[derive(Debug)]
pub(super) struct Room {
    open: Mutex<Vec<Arc<OpenConnection>>>,
    requests: Arc<Semaphore>,
}

/// The place of a connection.
#[derive(Debug)]
struct OpenConnection {
    client: IpAddr,
    /// Since when it has had no request in hand; none while it has one.
    waiting: Mutex<Option<Instant>>,
    /// It has to go.
    gone: CancellationToken,
}

impl OpenConnection {
    fn waiting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has a place, until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    connection: Arc<OpenConnection>,
    room: Arc<Room>,
}

impl Room {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), requests: Arc::new(Semaphore::new(REQUESTS)) })
    }

    /// A place for a connection of this client. None if all others have a request in hand.
    pub fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Admitted> {
        let mut open = self.open();
        let of_client = |connection: &Arc<OpenConnection>| connection.client == client;
        if open.iter().filter(|connection| of_client(connection)).count() >= OF_ONE_CLIENT {
            make_room(&mut open, of_client)?;
        }
        if open.len() >= CONNECTIONS {
            make_room(&mut open, |_| true)?;
        }
        let waiting = Mutex::new(Some(Instant::now()));
        let connection = Arc::new(OpenConnection { client, waiting, gone: CancellationToken::new() });
        open.push(connection.clone());
        Some(Admitted { connection, room: self.clone() })
    }

    /// A place for a request that may take its time.
    pub fn take_request(&self) -> Option<OwnedSemaphorePermit> {
        self.requests.clone().try_acquire_owned().ok()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<OpenConnection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the connection go that has waited longest. None if there is no such one.
fn make_room(
    open: &mut Vec<Arc<OpenConnection>>,
    may_go: impl Fn(&Arc<OpenConnection>) -> bool,
) -> Option<()> {
    let waiting =
        |connection: &Arc<OpenConnection>| may_go(connection).then(|| *connection.waiting()).flatten();
    let longest =
        open.iter().enumerate().filter_map(|(index, connection)| Some((waiting(connection)?, index)));
    let (_, index) = longest.min()?;
    open.swap_remove(index).gone.cancel();
    Some(())
}

impl Admitted {
    /// Runs what serves the connection, until it ends or has to make room.
    pub async fn serve(&self, serving: impl Future<Output = ()>) {
        let patience = async {
            loop {
                let waiting = *self.connection.waiting();
                let until = waiting.unwrap_or_else(Instant::now) + PATIENCE;
                if waiting.is_some() && until <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(until.into()).await;
            }
        };
        tokio::select! {
            () = serving => {}
            () = patience => {}
            () = self.connection.gone.cancelled() => {}
        }
    }

    /// A request has come whole.
    pub fn begin(&self) {
        *self.connection.waiting() = None;
    }

    /// There is an answer to it.
    pub fn end(&self) {
        *self.connection.waiting() = Some(Instant::now());
    }

    /// The places that there are.
    pub fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.room.open().retain(|connection| !Arc::ptr_eq(connection, &self.connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        [127, 0, 0, number].into()
    }

    #[test]
    fn a_new_connection_takes_the_place_of_the_one_that_has_waited_longest() {
        let room = Room::new();
        let held: Vec<_> = (0..OF_ONE_CLIENT).map(|_| room.enter(client(1)).unwrap()).collect();
        held[0].begin();
        let another = room.enter(client(1)).expect("there is always a place");
        assert!(!held[0].connection.gone.is_cancelled(), "it has a request in hand");
        assert!(held[1].connection.gone.is_cancelled(), "it has waited longest");
        assert!(held[2..].iter().all(|seated| !seated.connection.gone.is_cancelled()));
        assert_eq!(room.open().len(), OF_ONE_CLIENT);
        let others: Vec<_> = (0..OF_ONE_CLIENT).map(|_| room.enter(client(2)).unwrap()).collect();
        assert_eq!(others.iter().filter(|seated| seated.connection.gone.is_cancelled()).count(), 0);
        drop((held, others, another));
        assert_eq!(room.open().len(), 0);
    }

    #[test]
    fn all_clients_together_have_so_many_places() {
        let room = Room::new();
        let held: Vec<_> = (0..=255).map(|number| room.enter(client(number)).unwrap()).collect();
        let _another = room.enter(client(7)).unwrap();
        assert!(held[0].connection.gone.is_cancelled());
        assert_eq!(room.open().len(), CONNECTIONS);
    }

    #[test]
    fn requests_that_take_their_time_leave_connections_that_can_make_room() {
        const { assert!(REQUESTS < OF_ONE_CLIENT && OF_ONE_CLIENT < CONNECTIONS) };
        let room = Room::new();
        let held: Vec<_> = (0..OF_ONE_CLIENT).map(|_| room.enter(client(1)).unwrap()).collect();
        let mut permits = Vec::new();
        for seated in &held {
            if let Some(permit) = room.take_request() {
                seated.begin();
                permits.push(permit);
            }
        }
        assert_eq!(permits.len(), REQUESTS);
        assert!(room.enter(client(1)).is_some());
        drop(permits.pop());
        assert!(room.take_request().is_some());
    }
}

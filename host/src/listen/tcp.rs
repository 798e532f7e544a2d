//! Where are connections accepted?
//!
//! Every worker has a socket of its own on each address (`SO_REUSEPORT`), and the kernel deals connections out. A
//! socket of Unix is one for all of them, and whoever is first accepts.

use std::{
    cell::RefCell,
    collections::HashMap,
    io, net,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net as unix_net,
    },
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::StatusCode;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    clients::{Clients, Entered},
    http::Server,
    unix::{self, SocketFile},
    wire,
};
use crate::{
    address::{Address, Caller},
    clock::Elapsed,
    config::Listener,
    descriptors,
    live::{Counted, Gauge, Worker},
    proxy::Connection,
    proxy_protocol::{Fault, ProxyHeader},
    socket::Socket,
    telemetry::{
        Part, PerWorker, sampled,
        traffic::{Limit, ListenerCounts, ListenerTraffic, RefusedHeader},
    },
    tls::Termination,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Cannot accept connections.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}: {error}; {}", self.place(), self.remedy())]
pub struct BindError {
    pub address: Address,
    /// The file and the line that name the address, where that is known.
    pub place: Option<String>,
    pub error: io::Error,
}

impl BindError {
    fn new(address: Address, error: io::Error) -> Self {
        Self { address, place: None, error }
    }

    fn place(&self) -> String {
        self.place.as_ref().map_or_else(String::new, |place| format!(" ({place})"))
    }

    /// What to do about it.
    fn remedy(&self) -> String {
        match (self.error.kind(), &self.address) {
            (io::ErrorKind::AddrInUse, Address::Ip(address)) => format!(
                "stop the process that listens there (`ss -ltnp 'sport = :{}'` names it), or change `address`",
                address.port()
            ),
            (io::ErrorKind::PermissionDenied, Address::Ip(address)) if address.port() < 1024 => format!(
                "ports below 1024 are for root: let `tollgate` have them (`setcap cap_net_bind_service+ep`, or \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit), or change `address` to a port such as {}",
                8000 + address.port()
            ),
            (io::ErrorKind::AddrNotAvailable, _) => {
                "no interface of this machine has the address (`ip address` lists them): change `address`"
                    .to_owned()
            }
            (io::ErrorKind::AddrInUse, Address::Unix(_)) => {
                "stop the process that listens there, or change `address`".to_owned()
            }
            (io::ErrorKind::NotFound, Address::Unix(_)) => "make the folder of the socket".to_owned(),
            (io::ErrorKind::PermissionDenied, Address::Unix(_)) => {
                "let the user that runs `tollgate` write to the folder of the socket".to_owned()
            }
            _ => "change `address`".to_owned(),
        }
    }
}

/// The sockets of one listener, a worker's each.
#[derive(Debug)]
pub struct Sockets {
    /// Where connections are really accepted: port 0 has become one that was free.
    pub address: Address,
    /// By worker; taken by it.
    sockets: Mutex<Vec<Option<Listening>>>,
    /// Of a socket of Unix.
    file: Option<SocketFile>,
    /// Connections to this listener, of all workers.
    connections: Gauge,
    clients: Arc<Clients>,
    /// What is counted here.
    counts: Arc<PerWorker<ListenerCounts>>,
    /// Whether IPv4 is left to others.
    pub is_only_v6: bool,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    Tcp(net::TcpListener),
    Unix(unix_net::UnixListener),
}

/// A listener that is bound. Equal `sockets` mean that it goes on from the generation before.
#[derive(Debug, Clone)]
pub struct Bound {
    pub listener: Arc<Listener>,
    /// TLS is spoken if it is there.
    pub tls: Option<Arc<Termination>>,
    pub sockets: Arc<Sockets>,
}

/// Binds what a configuration asks for; what `previous` has bound to the same address is taken over.
///
/// A socket on `[::]` takes IPv4 as well, unless an IPv4 address has the same port in this configuration
/// (`is_only_v6`).
pub fn bind(
    listeners: impl IntoIterator<Item = (Listener, Option<Arc<Termination>>)>,
    previous: &[Bound],
    workers: usize,
    is_only_v6: impl Fn(SocketAddr) -> bool,
) -> Result<Vec<Bound>, BindError> {
    let mut free: Vec<&Bound> = previous.iter().collect();
    let mut take_over = |address: &Address| {
        let is_it = |bound: &&Bound| {
            let is_as_wanted = address.ip().is_none_or(|ip| bound.sockets.is_only_v6 == is_only_v6(ip));
            bound.listener.address == *address && is_as_wanted
        };
        let index = free.iter().position(is_it)?;
        Some(free.remove(index).sockets.clone())
    };
    // A port that this proxy has already may be bound on another address beside the old one.
    let is_ours = |port| {
        previous.iter().filter_map(|bound| bound.sockets.address.ip()).any(|address| address.port() == port)
    };
    let bound: Vec<Bound> = listeners
        .into_iter()
        .map(|(listener, tls)| {
            let mode = mode(&listener);
            let sockets = match (take_over(&listener.address), &listener.address) {
                (Some(sockets), _) => sockets,
                (None, Address::Ip(address)) => {
                    let port = address.port();
                    let may_share = port == 0 || is_ours(port);
                    Arc::new(Sockets::bind(*address, workers, may_share, is_only_v6(*address))?)
                }
                (None, Address::Unix(path)) => Arc::new(Sockets::bind_unix(path, mode, workers)?),
            };
            Ok(Bound { listener: Arc::new(listener), tls, sockets })
        })
        .collect::<Result<_, _>>()?;
    // After everything is bound: what is in use stays as it is if something cannot be.
    bound.iter().try_for_each(|bound| bound.sockets.set_mode(mode(&bound.listener)))?;
    Ok(bound)
}

fn mode(listener: &Listener) -> Option<u32> {
    listener.mode.as_ref().map(|mode| mode.get_ref().0)
}

impl Sockets {
    /// Binds as many sockets as there are workers, of which each takes one. With `may_share` others may have the
    /// port already.
    ///
    /// With `is_only_v6` one on `[::]` leaves IPv4 to others.
    pub fn bind(
        address: SocketAddr,
        workers: usize,
        may_share: bool,
        is_only_v6: bool,
    ) -> Result<Self, BindError> {
        let error = |error| BindError::new(address.into(), error);
        let socket = |address, is_shared| socket(address, is_shared, is_only_v6).map_err(error);
        // Without this, a second proxy would share the port in silence and get half of the connections.
        if !may_share {
            drop(socket(address, false)?);
        }
        let first = socket(address, true)?;
        let bound = first.local_addr().map_err(error)?;
        let mut sockets = vec![Listening::Tcp(first)];
        for _ in 1..workers {
            sockets.push(Listening::Tcp(socket(bound, true)?));
        }
        Ok(Self { is_only_v6, ..Self::new(bound.into(), sockets, None) })
    }

    /// Binds a socket in the file system, with this mode, that all workers accept from.
    fn bind_unix(path: &Arc<Path>, mode: Option<u32>, workers: usize) -> Result<Self, BindError> {
        let address = Address::Unix(path.clone());
        let error = |error| BindError::new(address.clone(), error);
        let (first, file) = unix::bind(path, mode, BACKLOG).map_err(error)?;
        let mut sockets = Vec::new();
        for _ in 1..workers {
            sockets.push(Listening::Unix(first.try_clone().map_err(error)?));
        }
        sockets.push(Listening::Unix(first));
        Ok(Self::new(address, sockets, Some(file)))
    }

    fn new(address: Address, sockets: Vec<Listening>, file: Option<SocketFile>) -> Self {
        Self {
            address,
            sockets: Mutex::new(sockets.into_iter().map(Some).collect()),
            file,
            connections: Gauge::default(),
            clients: Arc::default(),
            counts: Arc::default(),
            is_only_v6: false,
        }
    }

    /// Who may connect to a socket of Unix, where that is said.
    fn set_mode(&self, mode: Option<u32>) -> Result<(), BindError> {
        match (&self.file, mode) {
            (Some(file), Some(mode)) => {
                file.set_mode(mode).map_err(|error| BindError::new(self.address.clone(), error))
            }
            _ => Ok(()),
        }
    }

    /// Nobody is going to accept here any more: takes the file of a socket of Unix away.
    pub fn remove_file(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// What has been counted so far.
    pub fn traffic(&self) -> ListenerTraffic {
        ListenerTraffic {
            address: self.address.to_string(),
            open: self.connections.get(),
            counts: self.counts.clone(),
        }
    }

    /// The socket of a worker; once.
    pub fn take(&self, worker: usize) -> Option<Listening> {
        self.sockets.lock().expect("no holder of this lock panics").get_mut(worker)?.take()
    }
}

fn socket(address: SocketAddr, is_shared: bool, is_only_v6: bool) -> io::Result<net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said in either case, as what the system does by itself differs (net.ipv6.bindv6only).
        socket.set_only_v6(is_only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The accept loops of one worker.
pub struct Acceptors {
    worker: usize,
    server: Server,
    running: Vec<Running>,
    /// Sockets of a configuration that is about to come into force.
    prepared: Vec<(*const Sockets, Accepting)>,
}

struct Running {
    /// Replaced with the listener's settings, for connections that come from now on.
    bound: Rc<RefCell<Bound>>,
    stop: CancellationToken,
}

impl Acceptors {
    /// For the worker of this number.
    pub fn new(number: usize, worker: Rc<Worker>) -> Self {
        Self { worker: number, server: Server::new(worker), running: Vec::new(), prepared: Vec::new() }
    }

    /// Does all that can fail of [`Acceptors::update`], and changes nothing.
    pub fn prepare(&mut self, bound: &[Bound]) -> io::Result<()> {
        self.forget();
        for bound in bound {
            let sockets = Arc::as_ptr(&bound.sockets);
            if self.running.iter().any(|running| running.sockets() == sockets) {
                continue;
            }
            let taken = || io::Error::other(format!("the socket of {} is not there", bound.sockets.address));
            let socket = bound.sockets.take(self.worker).ok_or_else(taken)?;
            self.prepared.push((sockets, Accepting::new(socket)?));
        }
        Ok(())
    }

    /// Lets go of what was prepared.
    pub fn forget(&mut self) {
        self.prepared.clear();
    }

    /// Starts what is new, goes on with what stays, and stops what is gone. After [`Acceptors::prepare`] with the same.
    pub fn update(&mut self, bound: &[Bound]) {
        let mut before: HashMap<_, _> =
            self.running.drain(..).map(|running| (running.sockets(), running)).collect();
        for bound in bound {
            let sockets = Arc::as_ptr(&bound.sockets);
            let running = match before.remove(&sockets) {
                Some(running) => {
                    running.bound.replace(bound.clone());
                    running
                }
                None => {
                    let index = self.prepared.iter().position(|(prepared, _)| *prepared == sockets);
                    let socket = index.map(|index| self.prepared.swap_remove(index).1);
                    self.start(bound, socket)
                }
            };
            self.running.push(running);
        }
        self.forget();
        for gone in before.values() {
            gone.stop.cancel();
        }
    }

    /// Accepts nothing more.
    pub fn stop(&mut self) {
        self.forget();
        for running in self.running.drain(..) {
            running.stop.cancel();
        }
    }

    fn start(&self, bound: &Bound, socket: Option<Accepting>) -> Running {
        let running = Running { bound: Rc::new(bound.clone().into()), stop: CancellationToken::new() };
        let Some(socket) = socket else { return running };
        let (current, stop) = (running.bound.clone(), running.stop.clone());
        let acceptor = Rc::new(Acceptor {
            server: self.server.clone(),
            bound: current,
            counts: Part::new(bound.sockets.counts.clone(), self.server.worker().writer),
            lingering: Gauge::default(),
        });
        self.server.worker().drain.spawn_local(async move {
            stop.run_until_cancelled(acceptor.run(&socket)).await;
            // Those that wait to be accepted would be reset by the end of the socket.
            for (stream, address) in socket.into_waiting() {
                acceptor.accepted(stream, address);
            }
        });
        running
    }
}

impl Running {
    /// What tells it from others.
    fn sockets(&self) -> *const Sockets {
        Arc::as_ptr(&self.bound.borrow().sockets)
    }
}

/// One worker's loop on one listener.
struct Acceptor {
    server: Server,
    bound: Rc<RefCell<Bound>>,
    counts: Part<ListenerCounts>,
    /// Connections that were refused and are being told so.
    lingering: Gauge,
}

/// A connection that was accepted, and what holds for it.
struct Arrival {
    stream: Socket,
    /// Of who is at its other end.
    address: Caller<SocketAddr>,
    listener: Arc<Listener>,
    tls: Option<Arc<Termination>>,
}

/// What a connection is counted in for as long as it lives: of the process, of the listener.
type Places = (Counted, Counted);

impl Acceptor {
    async fn run(self: &Rc<Self>, socket: &Accepting) {
        /// How long to wait when there is no file descriptor left, or no memory.
        const BACK_OFF: Duration = Duration::from_millis(20);
        let worker = self.server.worker();
        let clock = &worker.clock;
        let mut is_short = false;
        let mut say = |error: Option<&io::Error>| {
            let was_short = std::mem::replace(&mut is_short, error.is_some());
            match error {
                Some(error) if !was_short => {
                    let help = "let the process open more files (`ulimit -n`, LimitNOFILE=), or lower limits.connections";
                    sampled!(error, of: (), %error, help, "cannot accept connections, which wait until it works again");
                }
                None if was_short => {
                    sampled!(info, of: (), "connections are accepted again");
                }
                Some(_) | None => {}
            }
        };
        let mut may_go_on = true;
        loop {
            // What a connection needs toward an endpoint has to be left. Those that wait here wait in the kernel.
            if !may_go_on || worker.connections.get() >= descriptors::most_clients() {
                let is_room = worker.connections.get() < descriptors::most_clients();
                may_go_on = is_room && descriptors::may_accept(socket);
                if !may_go_on {
                    self.counts.reached(Limit::FileDescriptors);
                    say(Some(&Errno::MFILE.into()));
                    clock.pause(BACK_OFF).await;
                    continue;
                }
            }
            let (stream, address) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_about_the_connection(&error) => continue,
                Err(error) => {
                    self.counts.reached(Limit::FileDescriptors);
                    say(Some(&error));
                    clock.pause(BACK_OFF).await;
                    continue;
                }
            };
            may_go_on = descriptors::may_accept_after(&stream);
            if may_go_on {
                say(None);
            }
            self.accepted(stream, address);
        }
    }

    fn accepted(self: &Rc<Self>, stream: Socket, address: Caller<SocketAddr>) {
        let (listener, tls) = {
            let bound = self.bound.borrow();
            (bound.listener.clone(), bound.tls.clone())
        };
        let is_trusted = listener.trusted_proxies.holds(address.client());
        let arrival = Arrival { stream, address, listener, tls };
        match arrival.listener.expects_introduction() {
            true if is_trusted => self.introduce(arrival),
            true => self.not_introduced(address, RefusedHeader::Untrusted),
            false => {
                let destination = self.destination(&arrival.stream);
                self.admit(arrival, Client { address, destination, is_trusted });
            }
        }
    }

    /// Where a client has connected to, where an upstream is told.
    fn destination(&self, stream: &Socket) -> Option<SocketAddr> {
        let generation = self.server.worker().generation();
        if generation.snapshot.introduces_clients { stream.local_address() } else { None }
    }

    /// Serves a connection, if there is a place for it.
    fn admit(&self, arrival: Arrival, client: Client) {
        match self.enter(&arrival.listener) {
            Ok(places) => self.serve(arrival, client, places),
            Err(limit) => self.turn_away(arrival, client, limit),
        }
    }

    /// Serves a connection once it is said whose it is.
    fn introduce(self: &Rc<Self>, mut arrival: Arrival) {
        let address = arrival.address;
        let own = Client { address, destination: None, is_trusted: true };
        let places = match self.enter(&arrival.listener) {
            Ok(places) => places,
            Err(limit) => return self.turn_away(arrival, own, limit),
        };
        let acceptor = self.clone();
        self.server.worker().drain.spawn_local(async move {
            let clock = &acceptor.server.worker().clock;
            let limit = arrival.listener.timeouts.handshake.get();
            let read = clock.within(limit, introduction(&mut arrival.stream)).await;
            let introduction = match read {
                Ok(Ok(introduction)) => introduction,
                Ok(Err(why)) => return acceptor.not_introduced(address, why),
                Err(Elapsed) => {
                    acceptor.counts.reached(Limit::HandshakeTime);
                    return acceptor.not_introduced(address, RefusedHeader::Late);
                }
            };
            let client = match introduction {
                ProxyHeader::Own => own,
                // It comes from whoever is trusted, and on behalf of somebody who may not be.
                ProxyHeader::Unknown => Client { is_trusted: false, ..own },
                ProxyHeader::Client { source, destination } => {
                    let address = Caller::Ip(source);
                    let is_trusted = arrival.listener.trusted_proxies.holds(address.client());
                    Client { address, destination: Some(destination), is_trusted }
                }
            };
            let destination = client.destination.or_else(|| acceptor.destination(&arrival.stream));
            acceptor.serve(arrival, Client { destination, ..client }, places);
        });
    }

    /// A connection is closed, as nobody knows whose it is.
    fn not_introduced(&self, address: Caller<SocketAddr>, why: RefusedHeader) {
        self.counts.refused_header(why);
        // Some connect and say nothing to see whether anybody is there.
        if why != RefusedHeader::Silent {
            sampled!(warn, of: why.name(), peer = %address, reason = why.name(), "connection without a PROXY header that counts");
        }
    }

    /// Finds a place for a connection, or says what it is that there is too much of.
    fn enter(&self, listener: &Listener) -> Result<Places, Limit> {
        let worker = self.server.worker();
        let sockets = self.bound.borrow().sockets.clone();
        let in_all = worker.generation().snapshot.config.limits.connections;
        let in_all = worker.connections.enter(in_all).ok_or(Limit::Connections)?;
        let here =
            sockets.connections.enter(listener.limits.connections).ok_or(Limit::ListenerConnections)?;
        Ok((in_all, here))
    }

    /// The same for the client, where it may have so many. Those who bring many clients are not counted, and those
    /// that come by a socket of Unix cannot be told from each other.
    fn enter_client(&self, listener: &Listener, client: Client) -> Result<Option<Entered>, Limit> {
        let most = listener.limits.connections_per_address;
        let is_counted = !listener.trusted_proxies.holds(client.address.client());
        let (Some(most), Caller::Ip(address)) = (most.filter(|_| is_counted), client.address) else {
            return Ok(None);
        };
        let clients = &self.bound.borrow().sockets.clients;
        let entered = clients.enter(address.ip(), listener.limits.ipv6_prefix, most.get());
        entered.map(Some).ok_or(Limit::ConnectionsPerAddress)
    }

    fn serve(&self, arrival: Arrival, client: Client, places: Places) {
        let of_client = match self.enter_client(&arrival.listener, client) {
            Ok(entered) => entered,
            Err(limit) => return self.turn_away(arrival, client, limit),
        };
        let places = (places, of_client);
        let Arrival { stream, listener, tls, .. } = arrival;
        let (worker, server, counts) = (self.server.worker(), self.server.clone(), self.counts.clone());
        counts.accepted.add(1);
        // Two tasks of different size, so that a connection in clear does not hold the memory of the other.
        match tls {
            Some(tls) => spawn(worker, places, server.serve_tls(stream, client, listener, counts, tls)),
            None => {
                let connection = Rc::new(Connection::http1(client.peer("http"), listener, counts));
                spawn(worker, places, server.serve(stream, connection));
            }
        }
    }

    /// There is no place for a connection.
    fn turn_away(&self, arrival: Arrival, client: Client, limit: Limit) {
        let listener = &arrival.listener.address;
        sampled!(warn, of: (listener, limit.name()), %listener, client = %client.address, limit = limit.name(), "too many connections");
        self.refuse(arrival.stream, limit, arrival.tls.is_some());
    }

    fn refuse(&self, stream: Socket, limit: Limit, is_secure: bool) {
        /// Of connections at once that are told why they are refused: those take a file descriptor each, too.
        const LINGERING: usize = 64;
        self.counts.refused.add(1);
        self.counts.reached(limit);
        if is_secure {
            // To say it, hands would have to be shaken first, and that is the most costly of all.
            return;
        }
        let status = match limit {
            Limit::ConnectionsPerAddress => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let Some(lingering) = self.lingering.enter(LINGERING) else { return };
        self.counts.refused_with(status);
        let worker = self.server.worker();
        let clock = worker.clock.clone();
        worker.drain.spawn_local(async move {
            let _lingering = lingering;
            let _ = clock.within(Duration::from_secs(1), refuse(stream, status)).await;
        });
    }
}

/// What a connection begins with, where it has to say whose it is. What comes after that is still to be read.
async fn introduction(stream: &mut Socket) -> Result<ProxyHeader, RefusedHeader> {
    loop {
        match ProxyHeader::read(stream.held()) {
            Ok(Some((introduction, length))) => {
                stream.drop_held(length);
                return Ok(introduction);
            }
            Ok(None) => {}
            Err(Fault::Absent) => return Err(RefusedHeader::Absent),
            Err(Fault::Malformed) => return Err(RefusedHeader::Malformed),
            Err(Fault::TooLong) => return Err(RefusedHeader::TooLong),
        }
        if !stream.hold().await.unwrap_or(false) {
            let has_begun = !stream.held().is_empty();
            return Err(if has_begun { RefusedHeader::Malformed } else { RefusedHeader::Silent });
        }
    }
}

fn spawn(worker: &Worker, places: impl Sized + 'static, serving: impl Future<Output = ()> + 'static) {
    worker.drain.spawn_local(async move {
        let _places = places;
        serving.await;
    });
}

/// A socket that a worker accepts from.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Accepting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Accepting {
    fn new(socket: Listening) -> io::Result<Self> {
        match socket {
            Listening::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            Listening::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    /// The connections that wait to be accepted. No more are.
    fn into_waiting(self) -> Vec<(Socket, Caller<SocketAddr>)> {
        let mut waiting = Vec::new();
        match self {
            Self::Tcp(socket) => {
                let Ok(socket) = socket.into_std() else { return waiting };
                while waiting.len() < BACKLOG as usize
                    && let Ok((stream, address)) = socket.accept()
                {
                    // As of those that are accepted in time.
                    let _ = stream.set_nodelay(true);
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    waiting.extend(stream.map(|stream| (stream.into(), Caller::Ip(address))));
                }
            }
            // Other workers accept from the same one; the last to go leaves none.
            Self::Unix(socket) => {
                let Ok(socket) = socket.into_std() else { return waiting };
                while waiting.len() < BACKLOG as usize
                    && let Ok((stream, _)) = socket.accept()
                {
                    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                    waiting.extend(stream.map(|stream| (stream.into(), Caller::Unix)));
                }
            }
        }
        waiting
    }

    async fn accept(&self) -> io::Result<(Socket, Caller<SocketAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                // Small answers go out at once.
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), Caller::Ip(address)))
            }
            Self::Unix(socket) => Ok((socket.accept().await?.0.into(), Caller::Unix)),
        }
    }
}

/// Errors of `accept` that concern the connection that was to be accepted and no other (see accept(2)).
fn is_about_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn refuse(mut stream: Socket, status: StatusCode) -> io::Result<()> {
    stream.write_all(&wire::refusal(status)).await?;
    stream.shutdown().await?;
    // Reads what the client was about to say, so that the refusal is not lost to a reset.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

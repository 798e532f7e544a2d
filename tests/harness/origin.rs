//! A server behind the proxy, which records every byte it gets and answers as it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{HandshakeKind, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Client, Config, Endpoints,
    client::{Stream, find, owned},
    fields, reached, soon,
};

/// A server on a free port. Stops when dropped.
pub struct Origin {
    pub address: SocketAddr,
    is_secure: bool,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    bytes: AtomicUsize,
    count: watch::Sender<usize>,
    connections: AtomicUsize,
    resumed: AtomicUsize,
    open: watch::Sender<usize>,
}

/// A request as it came from the proxy.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The head to the letter.
    pub raw: String,
    /// The bytes after the head as they came, framing included.
    pub raw_body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Its place among the requests of the origin, from 0.
    pub number: usize,
}

impl Received {
    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        fields::values(&self.headers, name)
    }

    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&str> {
        fields::value(&self.headers, name)
    }
}

type Respond = dyn Fn(&Received) -> Answer + Send + Sync;

/// What an origin does when a request has come.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Written as it is, a piece at a time.
    pub pieces: Vec<Vec<u8>>,
    pub then: Then,
}

/// What an origin does after it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    KeepOpen,
    Close,
    /// Keeps the connection, and never says another word.
    Hang,
}

impl Answer {
    /// 200 with this body.
    pub fn ok(body: &str) -> Self {
        Self::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![bytes.into()], then: Then::KeepOpen }
    }

    pub fn close(mut self) -> Self {
        self.then = Then::Close;
        self
    }

    pub fn hang(mut self) -> Self {
        self.then = Then::Hang;
        self
    }
}

impl Origin {
    /// Answers 200 with its own port.
    pub async fn start() -> Self {
        Self::bind(None, None).await
    }

    /// The same by TLS.
    pub async fn secure(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self::bind(None, Some(config.into())).await
    }

    /// Answers by TLS as `answer` says.
    pub async fn secure_answering(
        config: impl Into<Arc<ServerConfig>>,
        answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::bind(Some(Box::new(answer)), Some(config.into())).await
    }

    /// Answers as `answer` says, when the whole request has come.
    pub async fn answering(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::bind(Some(Box::new(answer)), None).await
    }

    async fn bind(answer: Option<Box<Respond>>, tls: Option<Arc<ServerConfig>>) -> Self {
        let is_secure = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let answer = answer.unwrap_or_else(|| Box::new(move |_| Answer::ok(&address.port().to_string())));
        let answer: Arc<Respond> = answer.into();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            bytes: AtomicUsize::new(0),
            count: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            open: watch::Sender::new(0),
        });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                // Dropped with this task, and the connections with it.
                let mut serving = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
                    shared.open.send_modify(|open| *open += 1);
                    let _ = stream.set_nodelay(true);
                    let (shared, answer, tls) = (shared.clone(), answer.clone(), tls.clone());
                    serving.spawn(async move {
                        match tls {
                            None => serve(stream, connection, &shared, &*answer).await,
                            Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                                Ok(stream) => {
                                    let is_resumed = stream.get_ref().1.handshake_kind();
                                    if is_resumed == Some(HandshakeKind::Resumed) {
                                        shared.resumed.fetch_add(1, Ordering::SeqCst);
                                    }
                                    serve(stream, connection, &shared, &*answer).await;
                                }
                                Err(_refused) => {}
                            },
                        }
                        shared.open.send_modify(|open| *open -= 1);
                    });
                }
            }
        });
        Self { address, is_secure, shared, accepting }
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last request.
    pub fn last(&self) -> Received {
        self.received().pop().expect("the origin has got a request")
    }

    /// Bytes that have ever come, those of unfinished requests included.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// TLS handshakes that went on with a session of before.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Waits until this many requests have come.
    pub async fn has_received(&self, count: usize) {
        reached("requests at the origin", &self.shared.count, |now| now >= count).await;
    }

    /// Waits until this many connections are open.
    pub async fn has_open(&self, count: usize) {
        reached("connections to the origin", &self.shared.open, |now| now == count).await;
    }
}

/// A configuration with an admin API and a route through one plugin, of which its table says `table`.
pub fn through(origin: &Origin, plugin: &str, table: &str) -> String {
    Config::to(origin).admin().plugin(plugin, table).toml()
}

/// The list that an upstream of these origins has: `["http://127.0.0.1:1234"]`.
pub fn endpoints(origins: &[&Origin]) -> String {
    format!("{:?}", origins.urls())
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: impl Stream, connection: usize, shared: &Shared, answer: &Respond) {
    let mut buffer = Vec::new();
    while let Some(mut received) = read(&mut stream, &mut buffer, &shared.bytes).await {
        received.connection = connection;
        {
            let mut all = shared.received.lock().unwrap_or_else(PoisonError::into_inner);
            received.number = all.len();
            all.push(received.clone());
        }
        shared.count.send_modify(|count| *count += 1);
        let answer = answer(&received);
        for piece in answer.pieces {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
            tokio::task::yield_now().await;
        }
        match answer.then {
            Then::KeepOpen => {}
            Then::Close => return,
            Then::Hang => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
                return;
            }
        }
    }
}

/// The next request, or none at the end of the connection.
async fn read(stream: &mut impl Stream, buffer: &mut Vec<u8>, bytes: &AtomicUsize) -> Option<Received> {
    let end = loop {
        if let Some(place) = find(buffer, b"\r\n\r\n") {
            break place + 4;
        }
        fill(stream, buffer, bytes).await?;
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let lines = head.iter().filter(|byte| **byte == b'\n').count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut parsed = httparse::Request::new(&mut fields);
    assert!(parsed.parse(&head).expect("what the proxy sends is a request").is_complete());
    let mut received = Received {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers: owned(parsed.headers),
        raw: String::from_utf8_lossy(&head).into_owned(),
        ..Received::default()
    };
    if received.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    match (received.header("content-length"), received.header("transfer-encoding")) {
        (Some(_), Some(_)) => panic!("two lengths: {received:?}"),
        (None, None) => {}
        (Some(length), None) => {
            let length: usize = length.parse().expect("a length is a number");
            while buffer.len() < length {
                fill(stream, buffer, bytes).await?;
            }
            received.body = buffer.drain(..length).collect();
            received.raw_body = received.body.clone();
        }
        (None, Some(_)) => loop {
            let place = loop {
                if let Some(place) = find(buffer, b"\r\n") {
                    break place;
                }
                fill(stream, buffer, bytes).await?;
            };
            let line: Vec<u8> = buffer.drain(..place + 2).collect();
            received.raw_body.extend_from_slice(&line);
            let line = String::from_utf8_lossy(&line[..place]).into_owned();
            let size =
                usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk begins with {line:?}"));
            if size == 0 {
                // Trailers, up to an empty line.
                loop {
                    let place = loop {
                        if let Some(place) = find(buffer, b"\r\n") {
                            break place;
                        }
                        fill(stream, buffer, bytes).await?;
                    };
                    received.raw_body.extend(buffer.drain(..place + 2));
                    if place == 0 {
                        break;
                    }
                }
                break;
            }
            while buffer.len() < size + 2 {
                fill(stream, buffer, bytes).await?;
            }
            received.body.extend_from_slice(&buffer[..size]);
            received.raw_body.extend(buffer.drain(..size + 2));
        },
    }
    Some(received)
}

async fn fill(stream: &mut impl Stream, buffer: &mut Vec<u8>, bytes: &AtomicUsize) -> Option<()> {
    let mut some = [0; 16 << 10];
    let count = stream.read(&mut some).await.ok().filter(|count| *count > 0)?;
    buffer.extend_from_slice(&some[..count]);
    bytes.fetch_add(count, Ordering::SeqCst);
    Some(())
}

/// A server that does nothing by itself: the test plays it, byte by byte.
pub struct BareOrigin {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl BareOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self { address, listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next connection as a socket, however long it takes.
    pub async fn accept_in_any_time(&self) -> std::io::Result<tokio::net::TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// The proxy's next connection, seen from its other end.
    pub async fn accept(&self) -> Client {
        let (stream, _) =
            soon("a connection to the origin", self.listener.accept()).await.expect("the listener lives");
        stream.into()
    }
}

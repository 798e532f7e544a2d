//! HTTP/2 on either side of the proxy: clients and origins that speak it properly, and clients that send whatever
//! frames they are given.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{client::Stream, reached, soon};

/// A client on one connection.
pub struct Http2Client {
    pub sender: h2::client::SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response as it came.
#[derive(Debug)]
pub struct Http2Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// What cut it short.
    pub error: Option<h2::Error>,
}

impl Http2Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("the value is text"))
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).map(|value| value.to_str().expect("the value is text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Reads the body of a response whose head has come.
    pub async fn read(response: Response<RecvStream>) -> Self {
        let (head, mut stream) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let mut read = Self { status, headers, body: Vec::new(), trailers: HeaderMap::new(), error: None };
        while let Some(data) = soon("data", stream.data()).await {
            match data {
                Ok(data) => {
                    let _ = stream.flow_control().release_capacity(data.len());
                    read.body.extend_from_slice(&data);
                }
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            }
        }
        match soon("trailers", stream.trailers()).await {
            Ok(trailers) => read.trailers = trailers.unwrap_or_default(),
            Err(error) => read.error = Some(error),
        }
        read
    }
}

impl Http2Client {
    /// With prior knowledge, in clear.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(address: SocketAddr, settings: &h2::client::Builder) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("the listener accepts");
        stream.set_nodelay(true).expect("a socket has options");
        Self::over(stream, settings).await
    }

    /// Over a connection that is there, such as one by TLS.
    pub async fn over(stream: impl Stream + 'static, settings: &h2::client::Builder) -> Self {
        let (sender, connection) = settings.handshake(stream).await.expect("the preface can be sent");
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Sends the head of a request. With `is_last` it has no body.
    pub async fn open(&mut self, request: Request<()>, is_last: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = soon("room for a stream", self.sender.clone().ready()).await.expect("it is open");
        ready.send_request(request, is_last).expect("the request can be sent")
    }

    /// Sends a request with this body.
    pub async fn send(&mut self, request: Request<()>, body: &[u8]) -> Result<Http2Response, h2::Error> {
        let (response, mut stream) = self.open(request, body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        Ok(Http2Response::read(soon("a response", response).await?).await)
    }

    /// GET to the authority `test`.
    pub async fn get(&mut self, path: &str) -> Http2Response {
        self.send(request("GET", path, &[]), b"").await.expect("there is a response")
    }

    /// Waits for the end of the connection.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.sender);
        soon("the end of the connection", self.connection).await.expect("the connection does not panic")
    }
}

/// A request to the authority `test`.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.version(http::Version::HTTP_2).body(()).expect("the request is one")
}

/// A server that speaks HTTP/2, with prior knowledge in clear or by TLS. Stops when dropped.
pub struct Http2Origin {
    pub address: SocketAddr,
    is_secure: bool,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<http::request::Parts>>,
    count: watch::Sender<usize>,
    connections: AtomicUsize,
    open: watch::Sender<usize>,
}

impl Http2Origin {
    /// Answers 200 with what has come as the body.
    pub async fn start() -> Self {
        Self::serving(|request, mut respond| async move {
            let mut body = request.into_body();
            let mut all = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                all.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.ok().flatten();
            let is_last = all.is_empty() && trailers.is_none();
            let Ok(mut stream) = respond.send_response(Response::new(()), is_last) else { return };
            if !all.is_empty() {
                let _ = stream.send_data(all.into(), trailers.is_none());
            }
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        })
        .await
    }

    /// Answers as `serve` does, each request in a task of its own.
    pub async fn serving<F>(
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serving_with(h2::server::Builder::new(), serve).await
    }

    pub async fn serving_with<F>(
        settings: h2::server::Builder,
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::bind(settings, None, serve).await
    }

    /// The same by TLS, for clients that agree to HTTP/2 in the handshake.
    pub async fn secure<F>(
        mut tls: ServerConfig,
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::bind(h2::server::Builder::new(), Some(tls.into()), serve).await
    }

    async fn bind<F>(
        settings: h2::server::Builder,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_secure = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (shared, serve) = (Arc::<Shared>::default(), Arc::new(serve));
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                // Dropped with this task, and the connections with it.
                let mut serving = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (shared, settings, serve) = (shared.clone(), settings.clone(), serve.clone());
                    let tls = tls.clone();
                    let _ = stream.set_nodelay(true);
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    shared.open.send_modify(|open| *open += 1);
                    serving.spawn(async move {
                        let mut streams = tokio::task::JoinSet::new();
                        let stream: Box<dyn Stream> = match tls {
                            None => Box::new(stream),
                            Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                                Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                                    Box::new(stream)
                                }
                                _ => return,
                            },
                        };
                        if let Ok(mut connection) = settings.handshake(stream).await {
                            while let Some(Ok((request, respond))) = connection.accept().await {
                                let (head, body) = request.into_parts();
                                let mut received =
                                    shared.received.lock().unwrap_or_else(PoisonError::into_inner);
                                received.push(head.clone());
                                drop(received);
                                shared.count.send_modify(|count| *count += 1);
                                streams.spawn(serve(Request::from_parts(head, body), respond));
                            }
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

    /// The heads of the requests so far.
    pub fn received(&self) -> Vec<http::request::Parts> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
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

impl Drop for Http2Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A client that sends frames, or bytes that are none; or a server that does.
pub struct FrameClient {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// A frame as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl RawFrame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A head in one frame, which is the whole request with `END_STREAM`.
    pub fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, flags | END_HEADERS, stream, literals(fields))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a payload is not as long").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The error code of GOAWAY and RST_STREAM.
    pub fn code(&self) -> u32 {
        let code = &self.payload[if self.kind == GOAWAY { 4 } else { 0 }..];
        u32::from_be_bytes(code[..4].try_into().expect("a code has four bytes"))
    }

    /// The status of a response, whose head begins with it.
    pub fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        // RFC 7541, section 6.3: what is said of the size of the table comes before it.
        let payload = self.payload.strip_prefix(&[0x20]).unwrap_or(&self.payload);
        match *payload {
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed) - 0x88],
            // RFC 7541: a literal with the name of an index, and its value in the code of appendix B.
            [0x08 | 0x48, length, ref rest @ ..] if length & 0x80 != 0 => {
                let bits = rest[..usize::from(length & 0x7f)]
                    .iter()
                    .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
                let bits: Vec<u8> = bits.collect();
                let (mut digits, mut place) = (Vec::new(), 0);
                while digits.len() < 3 {
                    let number = |count: usize| {
                        bits[place..place + count].iter().fold(0, |sum, bit| sum << 1 | u16::from(*bit))
                    };
                    let (digit, count) =
                        if number(5) < 3 { (number(5), 5) } else { (number(6) - 0b011001 + 3, 6) };
                    digits.push(digit);
                    place += count;
                }
                digits.iter().fold(0, |sum, digit| sum * 10 + digit)
            }
            _ => panic!("no status comes first: {self:?}"),
        }
    }
}

/// Fields as literals that go into no table (RFC 7541, section 6.2.2). A byte is the character of its number.
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        push_text(&mut block, name);
        push_text(&mut block, value);
    }
    block
}

fn push_text(block: &mut Vec<u8>, text: &str) {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect();
    // An integer with a prefix of seven bits, section 5.1.
    match u8::try_from(bytes.len()) {
        Ok(length) if length < 0x7f => block.push(length),
        _ => {
            let mut rest = bytes.len() - 0x7f;
            block.push(0x7f);
            while rest >= 0x80 {
                block.push((rest % 0x80) as u8 | 0x80);
                rest /= 0x80;
            }
            block.push(rest as u8);
        }
    }
    block.extend(bytes);
}

/// The fields of GET /.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")];

impl FrameClient {
    /// Connects, and says nothing.
    pub async fn bare(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("the listener accepts");
        stream.set_nodelay(true).expect("a socket has options");
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// The other end of a connection that the proxy has made: has read the preface and the settings of the proxy, and
    /// sends its own.
    pub async fn serve(mut stream: Box<dyn Stream>, settings: &[u8]) -> Self {
        let mut preface = [0; 24];
        soon("the preface", stream.read_exact(&mut preface)).await.expect("the proxy speaks HTTP/2");
        let mut server = Self { stream, buffer: Vec::new() };
        assert_eq!(server.next().await.expect("the proxy begins with its settings").kind, SETTINGS);
        server.send(&RawFrame::new(SETTINGS, 0, 0, settings)).await;
        server.send(&RawFrame::new(SETTINGS, ACK, 0, [])).await;
        server
    }

    /// Sends the preface and empty settings, and has read those of the proxy.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::bare(address).await;
        client.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(&RawFrame::new(SETTINGS, 0, 0, [])).await;
        assert_eq!(client.next().await.expect("the proxy begins with its settings").kind, SETTINGS);
        client.send(&RawFrame::new(SETTINGS, ACK, 0, [])).await;
        client
    }

    /// False if the connection is known to have ended.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        soon("sending", self.stream.write_all(bytes)).await.is_ok()
    }

    pub async fn send(&mut self, frame: &RawFrame) -> bool {
        self.send_bytes(&frame.bytes()).await
    }

    /// The next frame; none at the end of the connection.
    pub async fn next(&mut self) -> Option<RawFrame> {
        soon("a frame, or the end", self.next_in_any_time()).await
    }

    /// The same, however long it takes.
    pub async fn next_in_any_time(&mut self) -> Option<RawFrame> {
        loop {
            if let [a, b, c, kind, flags, d, e, f, g, ref rest @ ..] = self.buffer[..] {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if rest.len() >= length {
                    let payload = &rest[..length];
                    let frame = RawFrame::new(kind, flags, u32::from_be_bytes([d, e, f, g]), payload);
                    self.buffer.drain(..9 + length);
                    return Some(frame);
                }
            }
            let mut bytes = [0; 16 << 10];
            let count = self.stream.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&bytes[..count]);
        }
    }

    /// The next frame of this kind on this stream.
    pub async fn next_of(&mut self, kind: u8, stream: u32) -> RawFrame {
        let mut passed = Vec::new();
        loop {
            match self.next().await {
                Some(frame) if frame.kind == kind && frame.stream == stream => return frame,
                Some(frame) => passed.push(frame),
                None => panic!("the connection ended after {passed:?}"),
            }
        }
    }

    /// The next head, reset or end.
    pub async fn next_after_control(&mut self) -> RawFrame {
        loop {
            match self.next().await.expect("there is an answer") {
                frame if [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind) => return frame,
                _ => {}
            }
        }
    }

    /// What a stream comes to: the status of its response, or the error that it is reset with.
    pub async fn outcome(&mut self, stream: u32) -> Result<u16, u32> {
        loop {
            match self.next().await.expect("the stream is answered") {
                frame if frame.kind == HEADERS && frame.stream == stream => return Ok(frame.status()),
                frame if frame.kind == RST_STREAM && frame.stream == stream => return Err(frame.code()),
                frame if frame.kind == GOAWAY => panic!("the connection ends: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The error that the connection ends with; none if it ends without a word.
    pub async fn last_word(&mut self) -> Option<u32> {
        let mut last = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                last = Some(frame.code());
            }
        }
        last
    }
}

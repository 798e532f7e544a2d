//! A client that sends whatever bytes it is given, and reads responses to the letter.

use std::{future::Future, net::SocketAddr, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{fields, soon};

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    /// What has come and not been read.
    buffer: Vec<u8>,
}

/// What bytes go over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// In order; names as they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// False if the connection ended before the body did.
    pub is_complete: bool,
}

impl Response {
    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        fields::values(&self.headers, name)
    }

    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&str> {
        fields::value(&self.headers, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket has options");
        Self::over(stream)
    }
}

impl Client {
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        soon("a connection", TcpStream::connect(address)).await.expect("the listener accepts").into()
    }

    /// One that resets its connection when it is dropped. One that closes it looks like one that has sent all it had to,
    /// and waits for its answer (RFC 9112, section 9.6).
    pub async fn connect_and_reset(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("the listener accepts");
        stream.set_zero_linger().expect("a socket has options");
        stream.into()
    }

    /// The socket, for whoever speaks something else on it. Nothing may have been read.
    pub fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.buffer.is_empty(), "something has been read");
        self.stream
    }

    /// Sends these bytes. False if the connection is known to have ended, which need be no error.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        soon("sending", sending).await.is_ok()
    }

    /// Sends one byte after the other, with a pause before each.
    pub async fn send_slowly(&mut self, bytes: &[u8], pause: Duration) {
        for byte in bytes {
            tokio::time::sleep(pause).await;
            self.send([*byte]).await;
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next response to a request other than HEAD. Interim responses are skipped.
    pub async fn response(&mut self) -> Response {
        loop {
            let response = self.any_response(false).await.expect("there is a response");
            if response.status >= 200 {
                return response;
            }
        }
    }

    /// The next response, of whatever status; none if the connection ends. To HEAD there is no body.
    pub async fn any_response(&mut self, is_head: bool) -> Option<Response> {
        let end = loop {
            if let Some(place) = find(&self.buffer, b"\r\n\r\n") {
                break place + 4;
            }
            if !self.fill().await {
                assert!(
                    self.buffer.is_empty(),
                    "a response broke off: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut fields = vec![httparse::EMPTY_HEADER; 128.max(head.len() / 4)];
        let mut parsed = httparse::Response::new(&mut fields);
        assert!(parsed.parse(&head).expect("the head is a response's").is_complete());
        let mut response = Response {
            status: parsed.code.expect("a whole head has a status"),
            headers: owned(parsed.headers),
            body: Vec::new(),
            trailers: Vec::new(),
            is_complete: true,
        };
        let has_body = !is_head && response.status >= 200 && response.status != 204 && response.status != 304;
        if !has_body {
            return Some(response);
        }
        assert!(
            response.header("content-length").is_none() || response.header("transfer-encoding").is_none(),
            "two lengths: {response:?}"
        );
        if response.header("transfer-encoding").is_some() {
            self.chunks(&mut response).await;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().expect("a length is a number");
            while self.buffer.len() < length && self.fill().await {}
            response.is_complete = self.buffer.len() >= length;
            response.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.fill().await {}
            response.body = std::mem::take(&mut self.buffer);
        }
        Some(response)
    }

    async fn chunks(&mut self, response: &mut Response) {
        response.is_complete = false;
        loop {
            let Some(line) = self.line().await else { return };
            let size = usize::from_str_radix(&line, 16).expect("a chunk begins with its size");
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if !self.fill().await {
                    response.body.append(&mut self.buffer);
                    return;
                }
            }
            response.body.extend(self.buffer.drain(..size));
            assert_eq!(self.buffer.drain(..2).collect::<Vec<_>>(), b"\r\n");
        }
        loop {
            let Some(line) = self.line().await else { return };
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "");
                response.is_complete = true;
                return;
            };
            response.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(place) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..place + 2).collect();
                return Some(String::from_utf8_lossy(&line[..place]).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Whether nothing has come that was not read. What is on its way is not waited for.
    pub async fn is_silent(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let read = {
            let mut reading = std::pin::pin!(self.stream.read(&mut bytes));
            std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await
        };
        if let Poll::Ready(Ok(count)) = read {
            self.buffer.extend_from_slice(&bytes[..count]);
        }
        read.is_pending() && self.buffer.is_empty()
    }

    /// Whether the proxy closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// Some bytes of the answer as they come; empty at its end.
    pub async fn read_some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill().await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Everything up to these bytes, which are going to come.
    pub async fn read_until(&mut self, wanted: impl AsRef<[u8]>) -> String {
        let wanted = wanted.as_ref();
        loop {
            if let Some(place) = find(&self.buffer, wanted) {
                let bytes: Vec<u8> = self.buffer.drain(..place + wanted.len()).collect();
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            assert!(
                self.fill().await,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Everything up to the end of the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether there was anything more to read.
    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        let count = soon("something to read, or the end", self.stream.read(&mut bytes)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..count]);
        count > 0
    }
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

pub(crate) fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |value: &[u8]| value.iter().copied().map(char::from).collect();
    headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect()
}

//! `tollgate backend`: a server to put behind a proxy, which answers with what it received.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    time::{Sleep, sleep},
};

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    /// The port on 127.0.0.1 to listen on; 0 takes one that is free
    #[arg(long, value_name = "N")]
    port: u16,
    /// What the backend calls itself; `backend-<port>` if absent
    #[arg(long)]
    name: Option<String>,
    /// How long every answer takes, such as 20ms
    #[arg(long, value_parser = duration, default_value = "0ms")]
    delay: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|_| "write a duration such as 20ms or 1s")?;
    duration.try_into().map_err(|_| "a delay cannot be negative".into())
}

pub(super) async fn run(arguments: BackendArguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", arguments.port))?;
    let address = listener.local_addr()?;
    let name = arguments.name.unwrap_or_else(|| format!("backend-{}", address.port()));
    println!("{name} listens on http://{address}");
    let backend = Backend::new(name, arguments.delay, listener)?;
    tokio::select! {
        () = backend.serve() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// A sample backend, bound.
pub(super) struct Backend {
    listener: TcpListener,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    name: String,
    port: u16,
    delay: Duration,
}

impl Backend {
    pub fn new(name: String, delay: Duration, listener: TcpListener) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        Ok(Self { listener, about: Arc::new(About { name, port, delay }) })
    }

    pub async fn serve(self) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "backend cannot accept");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let about = self.about.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let about = about.clone();
                    async move { Ok::<_, Infallible>(answer(&about, request).await) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new());
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "connection to the backend ended");
                }
            });
        }
    }
}

async fn answer(about: &About, request: Request<Incoming>) -> Response<Answer> {
    sleep(about.delay).await;
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    let number = |prefix| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    if path == "/stream" {
        return Response::new(Answer::stream());
    }
    if let Some(count) = number("/bytes/") {
        return with_type("application/octet-stream", Answer::Zeros(count));
    }
    if path == "/slow" {
        sleep(Duration::from_secs(2)).await;
    }
    let mut digest = Sha256::new();
    let mut length = 0;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                length += data.len();
                digest.update(&data);
            }
            Ok(Err(_trailers)) => {}
            Err(_) => break,
        }
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let received = json!({
        "backend": about.name,
        "port": about.port,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers(&head.headers),
        "body": { "length": length, "sha256": digest },
    });
    let text = format!("{received:#}\n");
    let mut response = with_type("application/json", Answer::Whole(Some(text.into())));
    if let Some(status) =
        number("/status/").and_then(|number| StatusCode::from_u16(number.try_into().ok()?).ok())
        && !status.is_informational()
    {
        *response.status_mut() = status;
    }
    response
}

/// Names with a list of values each.
fn headers(headers: &HeaderMap) -> Value {
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let values = |name| Value::Array(headers.get_all(name).iter().map(text).collect());
    headers.keys().map(|name| (name.as_str().to_owned(), values(name))).collect()
}

fn with_type(content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What a backend sends.
enum Answer {
    Whole(Option<Bytes>),
    /// So many bytes that are all zero.
    Zeros(u64),
    /// Ten lines, a tenth of a second apart.
    Stream {
        left: u32,
        next: Pin<Box<Sleep>>,
    },
}

impl Answer {
    const PAUSE: Duration = Duration::from_millis(100);

    fn stream() -> Self {
        Self::Stream { left: 10, next: Box::pin(sleep(Duration::ZERO)) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let piece = match self.get_mut() {
            Self::Whole(content) => content.take(),
            Self::Zeros(0) | Self::Stream { left: 0, .. } => None,
            Self::Zeros(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(ZEROS.len());
                *left -= size as u64;
                Some(Bytes::from_static(&ZEROS[..size]))
            }
            Self::Stream { left, next } => {
                ready!(next.as_mut().poll(cx));
                next.set(sleep(Self::PAUSE));
                *left -= 1;
                Some(format!("line {}\n", 10 - *left).into())
            }
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Zeros(0) | Self::Stream { left: 0, .. })
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(content) => {
                http_body::SizeHint::with_exact(content.as_ref().map_or(0, |c| c.len() as u64))
            }
            Self::Zeros(left) => http_body::SizeHint::with_exact(*left),
            Self::Stream { .. } => http_body::SizeHint::default(),
        }
    }
}

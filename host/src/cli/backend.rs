//! `tollgate backend`: a server to put behind a proxy, which answers with what it received.

mod register;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
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
    signal::unix::{SignalKind, signal},
    time::{Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{arguments, output::say};
use register::{RegisterArguments, Registration};

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    /// The port on 127.0.0.1 to listen on; 0 takes one that is free
    #[arg(long, value_name = "N")]
    port: u16,
    /// What the backend calls itself; `backend-<port>` if absent
    #[arg(long)]
    name: Option<String>,
    /// How long every answer takes, such as 20ms
    #[arg(long, value_parser = arguments::duration, default_value = "0ms")]
    delay: Duration,
    #[command(flatten)]
    register: RegisterArguments,
}

pub(super) async fn run(arguments: BackendArguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", arguments.port))?;
    let address = listener.local_addr()?;
    let name = arguments.name.unwrap_or_else(|| format!("backend-{}", address.port()));
    say!("{name} listens on http://{address}");
    let registration = Registration::new(arguments.register, &name, address)?;
    let backend = Backend::new(name, arguments.delay, listener)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let registering = async {
        match &registration {
            Some(registration) => registration.keep().await,
            None => std::future::pending().await,
        }
    };
    let mut serving = pin!(backend.serve());
    tokio::select! {
        () = &mut serving => {}
        () = registering => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    if let Some(registration) = &registration {
        // Requests come until the proxy knows.
        tokio::select! {
            () = &mut serving => {}
            () = registration.end() => {}
        }
        backend.finish().await;
    }
    Ok(())
}

/// A sample backend, bound.
pub(super) struct Backend {
    listener: TcpListener,
    about: Arc<About>,
    connections: TaskTracker,
    /// No more requests are taken.
    finished: CancellationToken,
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
        let about = Arc::new(About { name, port, delay });
        let (connections, finished) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { listener, about, connections, finished })
    }

    /// Answers what it has been asked, and no more.
    async fn finish(&self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.finished.cancel();
        self.connections.close();
        // Who has not read the answer by then will not.
        let _ = tokio::time::timeout(PATIENCE, self.connections.wait()).await;
    }

    pub async fn serve(&self) {
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
            let finished = self.finished.clone();
            self.connections.spawn(async move {
                let service = service_fn(move |request| {
                    let about = about.clone();
                    async move { Ok::<_, Infallible>(answer(&about, request).await) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new());
                let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = finished.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to the backend ended");
                }
            });
        }
    }
}

async fn answer(about: &About, request: Request<Incoming>) -> Response<Reply> {
    sleep(about.delay).await;
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    let number = |prefix| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    if path == "/stream" {
        return Response::new(Reply::stream());
    }
    if let Some(count) = number("/bytes/") {
        return with_type("application/octet-stream", Reply::Zeros(count));
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
    let mut response = with_type("application/json", Reply::Whole(Some(text.into())));
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

fn with_type(content_type: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What a backend sends.
enum Reply {
    Whole(Option<Bytes>),
    /// So many bytes that are all zero.
    Zeros(u64),
    /// Ten lines, a tenth of a second apart.
    Stream {
        left: u32,
        next: Pin<Box<Sleep>>,
    },
}

impl Reply {
    const PAUSE: Duration = Duration::from_millis(100);

    fn stream() -> Self {
        Self::Stream { left: 10, next: Box::pin(sleep(Duration::ZERO)) }
    }
}

impl Body for Reply {
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

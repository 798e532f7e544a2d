//! What can an operator see and do?
//!
//! An API over HTTP on an address of its own, served by the control runtime: never by a worker, never on a
//! data listener. [`endpoints`] is the list of all there is; what is behind an endpoint stands in a file of its
//! own. Who may ask is decided in [`access`], before anything else.

mod access;
mod actions;
mod cache;
mod config;
mod context;
mod explain;
mod health;
mod metrics;
mod page;
mod plugins;
mod problem;
mod recent;
mod record;
mod room;
mod status;
mod upstreams;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use http::{Request, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    listen::{Listening, Sockets},
    server::Server,
    telemetry::sampled,
};
use context::Context;
use problem::Problem;
use room::{Admitted, Room};

/// From one request to the end of the head of the next.
const HEAD: Duration = Duration::from_secs(10);

/// For the body of a request.
const BODY: Duration = Duration::from_secs(10);

/// Bytes of a request's body, that of a question to `explain` being the largest.
const LARGEST_BODY: usize = 2 << 20;

/// Probes, which are answered at once, however many other requests there are.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Everything there is. Whoever asks for a thing with a token where one is wanted, or from this machine.
fn endpoints() -> Router<Context> {
    let list: [(&str, MethodRouter<Context>); 15] = [
        ("/", get(page::show)),
        ("/healthz", get(health::live)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(metrics::show)),
        ("/api/status", get(status::show)),
        ("/api/cache", delete(cache::purge)),
        ("/api/upstreams", get(upstreams::list)),
        ("/api/upstreams/{name}/endpoints/{address}", put(upstreams::register).delete(upstreams::take_out)),
        ("/api/plugins", get(plugins::list)),
        ("/api/plugins/{name}/rollback", post(plugins::roll_back).delete(plugins::allow)),
        ("/api/plugins/{name}/record", post(record::record)),
        ("/api/config", get(config::show)),
        ("/api/explain", post(explain::explain).layer(DefaultBodyLimit::max(explain::LARGEST))),
        ("/api/reload", post(actions::reload)),
        ("/api/drain", post(actions::drain)),
    ];
    let router = list.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is asked for with another method")
        })
}

/// Serves the API wherever the configuration in force says, until the drain has ended. `config` is the file that
/// a reload reads.
pub async fn run(server: Arc<Server>, config: Option<PathBuf>) {
    let mut changes = server.changes();
    let router = endpoints().with_state(Context {
        server: server.clone(),
        config: config.map(Into::into),
        recent: Arc::default(),
    });
    let room = Room::new();
    let mut open: Option<(Arc<Sockets>, TcpListener)> = None;
    loop {
        let wanted = server.admin().map(|admin| admin.sockets);
        open = match (wanted, open) {
            (Some(sockets), Some(open)) if Arc::ptr_eq(&sockets, &open.0) => Some(open),
            (Some(sockets), _) => listener(&sockets).map(|listener| (sockets, listener)),
            (None, _) => None,
        };
        let accepting = async {
            match &open {
                Some((_, listener)) => accept(&server, &router, &room, listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = accepting => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn listener(sockets: &Sockets) -> Option<TcpListener> {
    let Listening::Tcp(listener) = sockets.take(0)? else { return None };
    let address = &sockets.address;
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            tracing::info!(%address, "admin API listening");
            Some(listener)
        }
        Err(error) => {
            tracing::error!(%address, %error, "no admin API");
            None
        }
    }
}

async fn accept(server: &Arc<Server>, router: &Router, room: &Arc<Room>, listener: &TcpListener) {
    /// How long to wait when there is no file descriptor left, or no memory.
    const BACK_OFF: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => match room.enter(address.ip().to_canonical()) {
                Some(seated) => {
                    let (server, router) = (server.clone(), router.clone());
                    let drain = server.drain().clone();
                    drain
                        .accompany(async move { seated.serve(serve(server, router, stream, &seated)).await });
                }
                None => {
                    // Whoever does not take it at once is not waited for.
                    let _ = stream.try_write(FULL);
                }
            },
            Err(error) => {
                sampled!(warn, of: (), %error, "the admin API cannot accept a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// What a connection is told for which there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

async fn serve(server: Arc<Server>, router: Router, stream: TcpStream, seated: &Admitted) {
    let service = service_fn(async |request: Request<Incoming>| {
        seated.begin();
        let answer = match access::check(&server, &request) {
            Ok(()) => answer(&router, request, seated.room()).await,
            Err(denied) => denied.into_answer(),
        };
        seated.end();
        Ok::<_, Infallible>(answer)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // A client that breaks off is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(router: &Router, request: Request<Incoming>, room: &Room) -> Response {
    let (head, body) = request.into_parts();
    if PROBES.contains(&head.uri.path()) {
        // Nobody waits for a body that a probe may still send.
        return ask(router, Request::from_parts(head, Body::empty())).await;
    }
    let Some(_permit) = room.take_request() else {
        let detail = "too many requests at once; ask again when others are answered";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    match tokio::time::timeout(BODY, to_bytes(Body::new(body), LARGEST_BODY)).await {
        Ok(Ok(whole)) => ask(router, Request::from_parts(head, Body::from(whole))).await,
        // Or it broke off, and nobody is there to be told.
        Ok(Err(_)) => {
            let detail = format!("the body is larger than {LARGEST_BODY} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response()
        }
        Err(_) => {
            let detail = format!("the body has not come within {} s", BODY.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}

async fn ask(router: &Router, request: Request<Body>) -> Response {
    let Ok(answer) = TowerToHyperService::new(router.clone()).call(request).await;
    answer
}

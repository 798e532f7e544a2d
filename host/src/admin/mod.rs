//! What can an operator see and do?
//!
//! An API over HTTP on an address of its own, served by the control runtime: never by a worker, never on a
//! data listener. [`endpoints`] is the list of all there is; what is behind an endpoint stands in a file of its
//! own. Who may ask is decided in [`access`], before anything else.

mod access;
mod actions;
mod cache;
mod config;
mod explain;
mod health;
mod metrics;
mod page;
mod plugins;
mod problem;
mod recent;
mod record;
mod status;
mod upstreams;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRef},
    routing::{MethodRouter, delete, get, post, put},
};
use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    listen::{Listening, Sockets},
    server::Server,
};
use problem::Problem;
use recent::Recent;

/// Connections at once.
const CONNECTIONS: usize = 128;

/// From one request to the next, and for the head of each.
const PATIENCE: Duration = Duration::from_secs(60);

/// What endpoints work with.
#[derive(Debug, Clone)]
struct Context {
    server: Arc<Server>,
    /// What a reload reads.
    config: Option<Arc<Path>>,
    recent: Arc<Recent>,
}

impl FromRef<Context> for Arc<Server> {
    fn from_ref(context: &Context) -> Self {
        context.server.clone()
    }
}

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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
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

async fn accept(server: &Arc<Server>, router: &Router, room: &Arc<Semaphore>, listener: &TcpListener) {
    /// How long to wait when there is no file descriptor left, or no memory.
    const BACK_OFF: Duration = Duration::from_millis(100);
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(server.clone(), router.clone(), stream);
                server.drain().accompany(async move {
                    let _place = place;
                    serving.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

async fn serve(server: Arc<Server>, router: Router, stream: TcpStream) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(match access::check(&server, &request) {
            Ok(()) => router.call(request.map(Body::new)).await?,
            Err(denied) => denied.into_answer(),
        })
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A client that breaks off is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<Body>;

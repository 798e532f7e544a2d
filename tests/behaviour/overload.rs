//! An upstream gets no more at once than it may have; what is more waits, and not for ever.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tollgate::upstream::Load;
use tollgate_tests::{
    Answer, Authority, BareOrigin, Client, Config, Origin, Proxy, Then, endpoints, soon, until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

fn config(endpoints: &str, limits: &str) -> String {
    Config::to_list(endpoints).top("workers = 4").upstream(&format!("limits = {{ {limits} }}")).toml()
}

fn load(proxy: &Proxy) -> Load {
    proxy.server().snapshot().upstreams[0].upstream.load().expect("there is a limit")
}

/// A client that has sent a request, and resets its connection when it is dropped.
async fn asking(proxy: &Proxy) -> Client {
    let mut client = proxy.connect_and_reset().await;
    client.send(GET).await;
    client
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_others_to_end() {
    let origin = BareOrigin::start().await;
    let list = format!("[{:?}]", origin.url());
    let proxy = Proxy::start(&config(&list, "requests = 1, queue = 2, queue-timeout = '1h'")).await;
    let mut first = asking(&proxy).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    let mut waiting = Vec::new();
    for count in 1..=2 {
        waiting.push(asking(&proxy).await);
        until("one more waits", || load(&proxy).waiting == count).await;
    }
    let refused = proxy.request(GET).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(load(&proxy), Load { requests: 1, waiting: 2, limit: 1 });

    // Who goes away makes room for another.
    drop(waiting.remove(0));
    until("one has given up", || load(&proxy).waiting == 1).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi").await;
    first.read_until("fi").await;
    assert_eq!(load(&proxy).waiting, 1, "a response that has begun has not ended");
    upstream.send("ne").await;
    first.read_until("ne").await;
    let answering = async {
        let mut second = soon("the next request", async {
            tokio::select! {
                () = async { upstream.read_until("\r\n\r\n").await; } => None,
                other = origin.accept() => Some(other),
            }
        })
        .await;
        if let Some(other) = &mut second {
            other.read_until("\r\n\r\n").await;
        }
        second.as_mut().unwrap_or(&mut upstream).send(FINE).await;
    };
    let (response, ()) = tokio::join!(waiting[0].response(), answering);
    assert_eq!(response.text(), "fine");
    until("nobody is left", || load(&proxy) == Load { requests: 0, waiting: 0, limit: 1 }).await;
}

#[tokio::test]
async fn nobody_waits_longer_than_allowed() {
    let hanging = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let limits = "requests = 1, queue-timeout = '50ms'";
    let proxy = Proxy::start(&config(&endpoints(&[&hanging]), limits)).await;
    let first = asking(&proxy).await;
    hanging.has_received(1).await;
    assert_eq!(proxy.request(GET).await.status, 503);
    drop(first);
    until("room again", || load(&proxy).requests == 0).await;
    assert_eq!(hanging.received().len(), 1);
}

#[tokio::test]
async fn an_endpoint_gets_no_more_than_its_share_from_all_workers() {
    let most: [Arc<AtomicUsize>; 2] = Default::default();
    let origins = [BareOrigin::start().await, BareOrigin::start().await];
    let list = format!("[{:?}, {:?}]", origins[0].url(), origins[1].url());
    let proxy = Proxy::start(&config(&list, "endpoint-requests = 2, queue-timeout = '1h'")).await;
    let mut serving = tokio::task::JoinSet::new();
    for (origin, most) in origins.into_iter().zip(most.clone()) {
        serving.spawn(async move {
            let now = Arc::<AtomicUsize>::default();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let mut upstream = origin.accept().await;
                let (now, most) = (now.clone(), most.clone());
                connections.spawn(async move {
                    loop {
                        upstream.read_until("\r\n\r\n").await;
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        for _ in 0..20 {
                            tokio::task::yield_now().await;
                        }
                        now.fetch_sub(1, Ordering::SeqCst);
                        upstream.send(FINE).await;
                    }
                });
            }
        });
    }
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = proxy.connect().await;
        clients.spawn(async move {
            for _ in 0..20 {
                client.send(GET).await;
                assert_eq!(client.response().await.text(), "fine");
            }
        });
    }
    while let Some(client) = soon("all answers", clients.join_next()).await {
        client.unwrap();
    }
    assert_eq!(most.map(|most| most.load(Ordering::SeqCst)), [2, 2]);
    assert_eq!(load(&proxy), Load { requests: 0, waiting: 0, limit: 4 });
}

#[tokio::test]
async fn there_are_no_more_connections_to_an_endpoint_than_there_may_be() {
    let hanging = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let proxy = Proxy::start(&config(&endpoints(&[&hanging]), "connections = 2, queue = 0")).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(asking(&proxy).await);
    }
    hanging.has_received(2).await;
    for _ in 0..10 {
        let refused = proxy.request(GET).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    }
    assert_eq!(hanging.connections(), 2);
    drop(clients);
    hanging.has_open(0).await;
    let _next = asking(&proxy).await;
    hanging.has_received(3).await;
}

#[tokio::test]
async fn workers_leave_connections_to_each_other() {
    let origin = Origin::start().await;
    let limits = "connections = 1, queue-timeout = '20s'";
    let proxy = Proxy::start(&config(&endpoints(&[&origin]), limits)).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = proxy.connect().await;
        clients.spawn(async move {
            for _ in 0..5 {
                client.send(GET).await;
                assert_eq!(client.response().await.status, 200);
            }
        });
    }
    while let Some(client) = soon("all answers", clients.join_next()).await {
        client.unwrap();
    }
}

/// Connections from here to this port that this end has not closed.
///
/// The kernel's table is no snapshot: while it is read, connections that were seen end, and others begin. What stands in
/// it twice, read one after the other, was there all at once in between.
fn established(port: u16) -> usize {
    let read = || -> HashSet<_> {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("it runs on Linux");
        let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .filter(|fields| fields[2] == format!("0100007F:{port:04X}") && fields[3] == "01")
            // Where it comes from, and the inode of its socket.
            .map(|fields| (fields[1].to_owned(), fields[9].to_owned()))
            .collect()
    };
    read().intersection(&read()).count()
}

/// Serves HTTP/2 with so many streams at once on a connection, and notes the most connections that there were.
async fn serve_http2(origin: BareOrigin, streams: u32, most: Arc<AtomicUsize>) {
    loop {
        let stream = origin.accept().await.into_stream();
        most.fetch_max(established(origin.address.port()), Ordering::SeqCst);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            let handshake = builder.max_concurrent_streams(streams).handshake::<_, bytes::Bytes>(stream);
            let Ok(mut connection) = handshake.await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let _ = respond.send_response(http::Response::new(()), true);
            }
        });
    }
}

/// So many clients send the request so many times each, and are answered each time.
async fn all_are_answered(proxy: &Proxy, request: &'static str, clients: usize, requests: usize) {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let mut client = proxy.connect().await;
        asking.spawn(async move {
            for _ in 0..requests {
                client.send(request).await;
                assert_eq!(client.response().await.status, 200);
            }
        });
    }
    while let Some(client) = soon("all answers", asking.join_next()).await {
        client.expect("it is answered");
    }
}

#[tokio::test]
async fn connections_of_http_2_are_no_more_than_there_may_be_of_all_workers() {
    for (workers, limit, streams, clients) in [(6, 2, 100, 24), (1, 3, 2, 12), (2, 3, 2, 12)] {
        let origin = BareOrigin::start().await;
        let list = format!("[{:?}]", origin.url());
        let limits = format!("connections = {limit}, queue-timeout = '1m'");
        let config = config(&list, &limits)
            .replace("[upstreams.app]", "[upstreams.app]\nprotocol = 'h2'\ntimeouts.connect = '1m'");
        let config = config.replace("workers = 4", &format!("workers = {workers}"));
        let proxy = Proxy::start(&config).await;
        let most = Arc::<AtomicUsize>::default();
        let serving = tokio::spawn(serve_http2(origin, streams, most.clone()));
        all_are_answered(&proxy, GET, clients, 10).await;
        let most = most.load(Ordering::SeqCst);
        assert!((1..=limit).contains(&most), "{most} of {limit} with {workers} workers");
        serving.abort();
    }
}

#[tokio::test]
async fn a_connection_that_comes_free_is_used_by_whoever_waits_on_any_worker() {
    let authority = Authority::new();
    for (is_secure, request) in [(false, GET), (true, GET), (false, POST)] {
        let origin = match is_secure {
            true => Origin::secure(authority.vouch(&["127.0.0.1"]).server(None)).await,
            false => Origin::start().await,
        };
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("ca.pem"), &authority.certificate).expect("a file can be written");
        let mut config = config(&endpoints(&[&origin]), "connections = 4, queue-timeout = '1m'");
        if is_secure {
            config = config
                .replace("[upstreams.app]", "[upstreams.app]\ntls.ca = 'ca.pem'\ntimeouts.connect = '1m'");
        }
        let proxy = Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts");
        all_are_answered(&proxy, request, 12, 30).await;
        assert_eq!(origin.received().len(), 12 * 30);
        let count = origin.connections();
        assert!(count <= 4, "{count} connections, secure: {is_secure}, {request}");
    }
}

//! Clients that send one request after another, for as long as they are let.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::task::JoinSet;

use crate::{Client, Secure, soon, until};

/// Requests under way. Each must be answered 200, or the test fails.
pub struct Load {
    clients: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

impl Load {
    /// GET of `path` on so many connections, which are kept.
    pub fn start(address: SocketAddr, path: &str, connections: usize) -> Self {
        Self::over(move || Client::connect(address), usize::MAX, ("test", path), connections)
    }

    /// The same by TLS, with a connection for every four requests.
    pub fn secure(client: &Secure, address: SocketAddr, name: &'static str, connections: usize) -> Self {
        let client = client.clone();
        let connect = move || {
            let client = client.clone();
            async move { client.connect(address, name).await }
        };
        Self::over(connect, 4, (name, "/"), connections)
    }

    /// On connections that are made like this, so many requests on each.
    fn over<C: Future<Output = Client> + Send>(
        connect: impl Fn() -> C + Clone + Send + 'static,
        each: usize,
        (host, path): (&str, &str),
        connections: usize,
    ) -> Self {
        let answered = Arc::<AtomicUsize>::default();
        let has_ended = Arc::<AtomicBool>::default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let (request, answered, has_ended) = (request.clone(), answered.clone(), has_ended.clone());
            let connect = connect.clone();
            clients.spawn(async move {
                while !has_ended.load(Ordering::Relaxed) {
                    let mut client = connect().await;
                    let mut left = each;
                    while left > 0 && !has_ended.load(Ordering::Relaxed) {
                        client.send(&request).await;
                        let response = client.response().await;
                        assert!(response.status == 200 && response.is_complete, "{response:?}");
                        answered.fetch_add(1, Ordering::Relaxed);
                        left -= 1;
                    }
                }
            });
        }
        Self { clients, answered, has_ended }
    }

    /// Waits until so many more requests have been answered.
    pub async fn has_answered(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        until("requests answered", || self.answered.load(Ordering::Relaxed) >= wanted).await;
    }

    /// Stops, and says how many requests were answered.
    pub async fn stop(mut self) -> usize {
        self.has_ended.store(true, Ordering::Relaxed);
        while let Some(client) = soon("the last response", self.clients.join_next()).await {
            client.expect("every request is answered 200");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

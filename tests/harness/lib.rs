//! What the tests are made with: a real proxy, real origins and clients that say what they like.
//!
//! Everything is on loopback and port 0, and waits for events with an end: nothing sleeps.

mod browser;
mod client;
mod config;
mod dns;
mod executable;
mod fields;
mod guest;
mod handmade;
pub mod http2;
mod load;
mod log;
mod metrics;
mod origin;
mod proxy;
mod tls;

pub use browser::Browser;
pub use client::{Client, Response, Stream};
pub use config::{Config, Endpoints};
pub use dns::{NameServer, Resource};
pub use executable::Executable;
pub use guest::{
    block_agents, granted_guest, guest, guest_version, privacy_body_router, privacy_router, told_guest,
    waiting_guest,
};
pub use handmade::Handmade;
pub use load::Load;
pub use log::logged;
pub use metrics::Metrics;
pub use origin::{Answer, BareOrigin, Origin, Received, Then, endpoints, through};
pub use proxy::{Proxy, listener, route_to, shipped};
pub use tls::{Authority, Identity, Secure};

use std::{future::Future, time::Duration};

use tokio::sync::watch;

/// Waits for what is going to happen; fails the test if it takes absurdly long.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), event).await {
        Ok(output) => output,
        Err(_) => panic!("this has not happened: {what}"),
    }
}

/// Waits until a condition holds that nothing tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until a number that an origin counts is as it is to be.
async fn reached(what: &str, counted: &watch::Sender<usize>, is_reached: impl Fn(usize) -> bool) {
    let mut counts = counted.subscribe();
    soon(what, counts.wait_for(|now| is_reached(*now))).await.expect("the origin lives");
}

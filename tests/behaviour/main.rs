//! The promises of Tollgate, each tested on a proxy that runs.

mod admin;
mod architecture;
mod bad_responses;
mod breaker;
mod caching;
mod caching_disk;
mod caching_encoded;
mod canary;
mod capabilities;
mod completed;
mod compression;
mod configuration;
mod connections;
mod discovery;
mod documented;
mod examples;
mod explain;
mod forwarding;
mod grpc;
mod health;
mod hostile;
mod http2;
mod limits;
mod load;
mod overload;
mod plugin_commands;
mod plugins;
mod proxy_protocol;
mod raw_requests;
mod record;
mod reload;
mod retries;
mod rollout;
mod routing;
mod safety;
mod shadow;
mod sockets;
mod sticky;
mod ticks;
mod tls;
mod trial;
mod upgrades;
mod upstream_protocol;
mod waiting;

/// The executable, as cargo has built it for these tests.
const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate-tested");

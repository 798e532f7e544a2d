//! Which endpoint is this client's?

use tollgate_plugin_sdk::{Balance, Endpoint, Plugin, Ring, config, request};

struct ClientHash;

impl Plugin for ClientHash {
    fn configure(config: &str) -> Result<Self, String> {
        config::nothing(config).map(|()| Self)
    }
}

impl Balance for ClientHash {
    type Pool = Ring;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Ring>) -> Ring {
        Ring::new(&endpoints)
    }

    fn pick(&self, _: &str, ring: &Ring, tried: &[u32]) -> Option<u32> {
        ring.prefer(request::client_address().as_bytes(), tried).next()
    }
}

tollgate_plugin_sdk::export!(ClientHash: Balance);

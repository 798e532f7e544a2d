//! How does the rotation reach the proxy?
//!
//! The plugin keeps one [`Rotation`] per upstream, made anew whenever the endpoints change, and asks
//! the host's `sequence` which turn it is: all workers draw from the same one, so the rotation is
//! strict over the whole process and goes on after a reload.

mod config;
mod rotation;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bindings::{
    exports::tollgate::policy::{
        balance_hook::{self, Endpoint},
        lifecycle,
    },
    tollgate::policy::sequence,
};
use rotation::Rotation;

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:round-robin;

            world round-robin {
                include tollgate:policy/plugin@0.1.0;
                export tollgate:policy/balance-hook@0.1.0;
            }
        ",
        generate_all,
    });

    // The names of exports are none that a native linker would take.
    #[cfg(target_family = "wasm")]
    export!(Plugin with_types_in self);

    #[cfg(target_family = "wasm")]
    use super::Plugin;
}

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn configure(config: String) -> Result<(), String> {
        config::check(&config)
    }
}

impl balance_hook::Guest for Plugin {
    fn endpoints_changed(upstream: String, endpoints: Vec<Endpoint>) {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let rotation = Rotation::new(&weights);
        let mut upstreams = upstreams();
        match find(&upstreams, &upstream) {
            Ok(place) => upstreams[place].rotation = rotation,
            Err(place) => {
                let sequence = sequence::open(&upstream);
                upstreams.insert(place, Upstream { name: upstream, sequence, rotation });
            }
        }
    }

    fn pick(upstream: String, tried: Vec<u32>) -> Option<u32> {
        let upstreams = upstreams();
        let place = find(&upstreams, &upstream).ok()?;
        let Upstream { sequence, rotation, .. } = &upstreams[place];
        if rotation.is_empty() {
            return None;
        }
        rotation.pick(sequence::next(*sequence), &tried)
    }
}

struct Upstream {
    name: String,
    sequence: u32,
    rotation: Rotation,
}

/// The upstreams that this instance knows, by name. An instance has no other place than a static for
/// what it keeps between two calls, and no threads that would wait for it.
fn upstreams() -> MutexGuard<'static, Vec<Upstream>> {
    static UPSTREAMS: Mutex<Vec<Upstream>> = Mutex::new(Vec::new());
    UPSTREAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of an upstream, or the one where it belongs.
fn find(upstreams: &[Upstream], name: &str) -> Result<usize, usize> {
    upstreams.binary_search_by(|upstream| upstream.name.as_str().cmp(name))
}

//! Which hooks has a plugin, and where does an instance keep what it was configured to be?

use std::cell::{OnceCell, RefCell};

use crate::{Endpoint, Outcome, ResponseVerdict, Verdict};

/// A policy, made from its configuration once for each instance.
pub trait Plugin: Sized + 'static {
    /// Takes the plugin's `config` table as JSON; see [`config::read`](crate::config::read). The error is shown to
    /// the operator: one sentence that names the place and the remedy, and prints no secret.
    fn configure(config: &str) -> Result<Self, String>;
}

/// Decides on requests before they are forwarded.
pub trait OnRequest: Plugin {
    fn on_request(&self) -> Verdict;
}

/// Decides on the heads of responses.
pub trait OnResponse: Plugin {
    fn on_response(&self) -> ResponseVerdict;
}

/// Chooses endpoints.
pub trait Balance: Plugin {
    /// What is prepared for the endpoints of one upstream, so that a pick is quick.
    type Pool;

    /// Called before the first pick and whenever the endpoints change; `previous` is what this instance had
    /// prepared for the same upstream.
    fn prepare(&self, upstream: &str, endpoints: Vec<Endpoint>, previous: Option<Self::Pool>) -> Self::Pool;

    /// A place in the endpoints that `pool` was prepared for, or none for "no opinion". `tried` holds the places
    /// of those that this request has failed on.
    fn pick(&self, upstream: &str, pool: &Self::Pool, tried: &[u32]) -> Option<u32>;
}

/// Is told of requests that have ended, in batches.
pub trait OnComplete: Plugin {
    fn on_complete(&self, outcomes: Vec<Outcome>);
}

/// Is called now and then, on one instance of the process.
pub trait OnTick: Plugin {
    fn on_tick(&self);
}

/// Where an instance keeps its plugin between two calls: in a thread-local, since an instance is one thread.
#[doc(hidden)]
pub struct Place<P>(OnceCell<P>);

impl<P: Plugin> Place<P> {
    #[expect(clippy::new_without_default, reason = "a thread-local wants a constant")]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    pub fn configure(&self, config: &str) -> Result<(), String> {
        let plugin = P::configure(config)?;
        self.0.set(plugin).map_err(|_| "an instance is configured once".to_owned())
    }

    /// The plugin; the host configures an instance before it calls any hook.
    pub fn get(&self) -> &P {
        self.0.get().expect("the host configures an instance before it calls a hook")
    }
}

/// What a balancer has prepared, by the upstream's name and sorted by it.
#[doc(hidden)]
pub struct Pools<T>(RefCell<Vec<(String, T)>>);

impl<T> Pools<T> {
    #[expect(clippy::new_without_default, reason = "a thread-local wants a constant")]
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    pub fn change(&self, upstream: String, prepare: impl FnOnce(&str, Option<T>) -> T) {
        let mut pools = self.0.borrow_mut();
        let place = pools.binary_search_by(|(name, _)| name.as_str().cmp(&upstream));
        let previous = place.ok().map(|place| pools.remove(place).1);
        let pool = prepare(&upstream, previous);
        let (Ok(place) | Err(place)) = place;
        pools.insert(place, (upstream, pool));
    }

    pub fn with<R>(&self, upstream: &str, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        let pools = self.0.borrow();
        let place = pools.binary_search_by(|(name, _)| name.as_str().cmp(upstream)).ok()?;
        Some(use_it(&pools[place].1))
    }
}

/// Exports a plugin with the hooks it has: `export!(Type: OnRequest, OnResponse);`
///
/// On any other target than WebAssembly, where the plugin's own tests run, nothing is exported: the names are none
/// that a native linker would take.
#[macro_export]
macro_rules! export {
    ($plugin:ident: $($hook:ident),+ $(,)?) => {
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&str) -> Result<$plugin, String> = {
            $({
                const fn has<P: $crate::$hook>() {}
                has::<$plugin>();
            })+
            <$plugin as $crate::Plugin>::configure
        };
        #[cfg(target_family = "wasm")]
        mod exported {
            use super::$plugin;

            thread_local! {
                static PLACE: $crate::Place<$plugin> = const { $crate::Place::new() };
            }

            struct Exported;

            impl $crate::hooks::lifecycle::exports::tollgate::policy::lifecycle::Guest for Exported {
                fn configure(config: String) -> Result<(), String> {
                    PLACE.with(|place| place.configure(&config))
                }
            }

            $crate::hooks::lifecycle::export_lifecycle!(Exported with_types_in $crate::hooks::lifecycle);

            $($crate::export!(@$hook $plugin);)+
        }
    };
    (@OnRequest $plugin:ident) => {
        impl $crate::hooks::request::exports::tollgate::policy::request_hook::Guest for Exported {
            fn on_request() -> $crate::Verdict {
                PLACE.with(|place| $crate::OnRequest::on_request(place.get()))
            }
        }

        $crate::hooks::request::export_request!(Exported with_types_in $crate::hooks::request);
    };
    (@OnResponse $plugin:ident) => {
        impl $crate::hooks::response::exports::tollgate::policy::response_hook::Guest for Exported {
            fn on_response() -> $crate::ResponseVerdict {
                PLACE.with(|place| $crate::OnResponse::on_response(place.get()))
            }
        }

        $crate::hooks::response::export_response!(Exported with_types_in $crate::hooks::response);
    };
    (@Balance $plugin:ident) => {
        thread_local! {
            static POOLS: $crate::Pools<<$plugin as $crate::Balance>::Pool> = const { $crate::Pools::new() };
        }

        impl $crate::hooks::balance::exports::tollgate::policy::balance_hook::Guest for Exported {
            fn endpoints_changed(upstream: String, endpoints: Vec<$crate::Endpoint>) {
                PLACE.with(|place| POOLS.with(|pools| {
                    pools.change(upstream, |upstream, previous| {
                        $crate::Balance::prepare(place.get(), upstream, endpoints, previous)
                    });
                }));
            }

            fn pick(upstream: String, tried: Vec<u32>) -> Option<u32> {
                PLACE.with(|place| POOLS.with(|pools| {
                    pools.with(&upstream, |pool| {
                        $crate::Balance::pick(place.get(), &upstream, pool, &tried)
                    }).flatten()
                }))
            }
        }

        $crate::hooks::balance::export_balance!(Exported with_types_in $crate::hooks::balance);
    };
    (@OnComplete $plugin:ident) => {
        impl $crate::hooks::complete::exports::tollgate::policy::complete_hook::Guest for Exported {
            fn on_complete(outcomes: Vec<$crate::Outcome>) {
                PLACE.with(|place| $crate::OnComplete::on_complete(place.get(), outcomes));
            }
        }

        $crate::hooks::complete::export_complete!(Exported with_types_in $crate::hooks::complete);
    };
    (@OnTick $plugin:ident) => {
        impl $crate::hooks::tick::exports::tollgate::policy::tick_hook::Guest for Exported {
            fn on_tick() {
                PLACE.with(|place| $crate::OnTick::on_tick(place.get()));
            }
        }

        $crate::hooks::tick::export_tick!(Exported with_types_in $crate::hooks::tick);
    };
}

//! What does a plugin written in Rust need besides its policy?
//!
//! The contract of `wit/` as traits. A plugin is a type that [`Plugin::configure`] makes, with a trait for each
//! hook it has, and one line that exports them:
//!
//! ```ignore
//! struct Greeter { name: HeaderValue }
//!
//! impl Plugin for Greeter {
//!     fn configure(config: &str) -> Result<Self, String> {
//!         #[derive(serde::Deserialize)]
//!         #[serde(deny_unknown_fields)]
//!         struct Config { name: String }
//!         let Config { name } = config::read(config)?;
//!         let name = HeaderValue::text(&name).map_err(|why| format!("`name` in `config`: {why}"))?;
//!         Ok(Self { name })
//!     }
//! }
//!
//! impl OnResponse for Greeter {
//!     fn on_response(&self) -> ResponseVerdict {
//!         let _ = response::set_header("x-greeting", &self.name);
//!         ResponseVerdict::Next
//!     }
//! }
//!
//! tollgate_plugin_sdk::export!(Greeter: OnResponse);
//! ```
//!
//! The component imports the interfaces of the contract that the plugin calls, and no others: what it must be
//! granted follows from its code.

mod bindings;
mod candidates;
pub mod config;
pub mod content;
mod document;
mod field;
mod message;
#[path = "../../../host/base/src/field/owned.rs"]
mod owned;
mod pattern;
mod plugin;
mod problem;
mod ring;
mod seconds;
pub mod template;
mod url;

#[doc(hidden)]
pub use bindings::hooks;
pub use bindings::{
    hooks::{
        balance::exports::tollgate::policy::balance_hook::Endpoint,
        complete::exports::tollgate::policy::complete_hook::Outcome,
        request::exports::tollgate::policy::request_hook::Verdict,
        response::exports::tollgate::policy::response_hook::Verdict as ResponseVerdict,
    },
    imports::tollgate::policy::{body, http_client, log, metrics, pool, secret, sequence, store, types},
};
pub use candidates::Candidates;
pub use document::Document;
pub use field::{Change, HeaderValue, Lossy, is_same_field, may_change, twice};
pub use message::{request, response};
pub use pattern::Pattern;
pub use plugin::{Balance, OnComplete, OnRequest, OnResponse, OnTick, Plugin};
#[doc(hidden)]
pub use plugin::{Place, Pools};
pub use problem::Problem;
pub use ring::{Ring, hash};
pub use seconds::Seconds;
pub use template::Template;
pub use types::{HeaderError, Reply};
pub use url::Url;

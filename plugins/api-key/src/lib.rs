//! May this request pass, and on whose behalf?
//!
//! Read in this order: [`Policy`] is what was configured, [`Keys`](keys::Keys) finds the consumer,
//! [`Problem`] is what a client is told that may not pass.

mod policy;
mod keys;
mod problem;

use std::sync::OnceLock;

use bindings::{
    exports::tollgate::policy::{
        lifecycle,
        request_hook::{self, Reply, Verdict},
    },
    tollgate::policy::{
        log::{self, Level},
        request::{self, HeaderError},
    },
};
use keys::Finding;
use policy::Policy;
use problem::Problem;

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:api-key;

            world api-key {
                include tollgate:policy/plugin@0.1.0;
                export tollgate:policy/request-hook@0.1.0;
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

/// An instance has no other place than a static for what it keeps between two calls.
static POLICY: OnceLock<Policy> = OnceLock::new();

impl lifecycle::Guest for Plugin {
    fn configure(config: String) -> Result<(), String> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| format!("there are no random numbers: {error}"))?;
        let policy = Policy::parse(&config, &secret)?;
        POLICY.set(policy).map_err(|_| "an instance is configured once".to_owned())
    }
}

impl request_hook::Guest for Plugin {
    fn on_request() -> Verdict {
        let Some(policy) = POLICY.get() else {
            return unable("the plugin has not been configured");
        };
        match policy.keys.identify(request::header(&policy.header).as_deref()) {
            Finding::Consumer(name) => match pass(policy, name) {
                Ok(()) => Verdict::Next,
                Err(error) => unable(&format!(
                    "cannot set `{}` and remove `{}`, choose another `header`: {}",
                    policy::CONSUMER,
                    policy.header,
                    error.name()
                )),
            },
            Finding::Missing => refuse(policy, &policy.missing),
            Finding::Wrong => refuse(policy, &policy.wrong),
        }
    }
}

/// Names the consumer to the upstream, in place of what the client may have claimed.
fn pass(policy: &Policy, consumer: &str) -> Result<(), HeaderError> {
    request::set_header(policy::CONSUMER, consumer)?;
    if !policy.forward {
        request::remove_header(&policy.header)?;
    }
    Ok(())
}

fn refuse(policy: &Policy, problem: &Problem) -> Verdict {
    let mut reply = reply(problem);
    reply.headers.push(("www-authenticate".to_owned(), policy.challenge.clone()));
    Verdict::Reply(reply)
}

/// Nobody passes where the plugin cannot do its work.
fn unable(why: &str) -> Verdict {
    log::write(Level::Error, why);
    Verdict::Reply(reply(&Problem::new(500, "Internal Server Error", "the API key could not be checked")))
}

fn reply(problem: &Problem) -> Reply {
    Reply {
        status: problem.status,
        headers: vec![
            ("content-type".to_owned(), "application/problem+json".to_owned()),
            ("cache-control".to_owned(), "no-store".to_owned()),
        ],
        body: problem.body(&request::id()),
    }
}

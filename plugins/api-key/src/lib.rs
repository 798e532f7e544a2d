//! May this request pass, and on whose behalf?
//!
//! Read in this order: [`Policy`] is what was configured, [`Keys`](keys::Keys) finds the consumer,
//! [`Problem`] is what a client is told that may not pass.

mod policy;
mod keys;
mod problem;

use keys::Finding;
use policy::Policy;
use problem::Problem;
use tollgate_plugin_sdk::{
    HeaderError, HeaderValue, OnRequest, Plugin, Reply, Verdict,
    log::{self, Level},
    request,
};

impl Plugin for Policy {
    fn configure(config: &str) -> Result<Self, String> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| format!("there are no random numbers: {error}"))?;
        Self::parse(config, &secret)
    }
}

impl OnRequest for Policy {
    fn on_request(&self) -> Verdict {
        match self.keys.identify(request::header(&self.header).as_deref()) {
            Finding::Consumer(name) => match pass(self, name) {
                Ok(()) => Verdict::Next,
                Err(error) => unable(&format!(
                    "cannot set `{}` and remove `{}`, choose another `header`: {}",
                    policy::CONSUMER,
                    self.header,
                    error.name()
                )),
            },
            Finding::Missing => refuse(self, &self.missing),
            Finding::Wrong => refuse(self, &self.wrong),
        }
    }
}

/// Names the consumer to the upstream, in place of what the client may have claimed.
fn pass(policy: &Policy, consumer: &HeaderValue) -> Result<(), HeaderError> {
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

tollgate_plugin_sdk::export!(Policy: OnRequest);

//! May this request pass, and on whose behalf?
//!
//! [`Policy`] is what was configured, [`Keys`](keys::Keys) finds the consumer of a request.

mod policy;
mod keys;

use keys::Finding;
use policy::Policy;
use tollgate_plugin_sdk::{
    HeaderError, HeaderValue, OnRequest, Plugin, Problem, Verdict,
    log::{self, Level},
    request,
};

impl Plugin for Policy {
    fn configure(config: &str) -> Result<Self, String> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| format!("there are no random numbers: {error}"))?;
        Self::read(config, &secret)
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
            Finding::Missing => Verdict::Reply(self.missing.reply()),
            Finding::Wrong => Verdict::Reply(self.wrong.reply()),
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

/// Nobody passes where the plugin cannot do its work.
fn unable(why: &str) -> Verdict {
    log::write(Level::Error, why);
    Verdict::Reply(Problem::new(500, "Internal Server Error", "the API key could not be checked").reply())
}

tollgate_plugin_sdk::export!(Policy: OnRequest);

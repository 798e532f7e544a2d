//! What has a hook decided?

use super::{
    bindings::exports::tollgate::policy::{request_hook, response_hook},
    error::CallError,
    exchange::Reply,
    unsent::UnsentLimit,
};

/// What a request hook decided.
#[derive(Debug)]
pub enum RequestVerdict {
    Next,
    Reply(Reply),
    /// Go on, to the upstream of this name.
    Forward(String),
}

/// What a response hook decided.
#[derive(Debug)]
pub enum ResponseVerdict {
    Next,
    Reply(Reply),
}

impl RequestVerdict {
    pub(super) fn of(
        verdict: Option<request_hook::Verdict>,
        unsent: UnsentLimit<'_>,
    ) -> Result<Self, CallError> {
        Ok(match verdict {
            None | Some(request_hook::Verdict::Next) => Self::Next,
            Some(request_hook::Verdict::Forward(upstream)) => Self::Forward(upstream),
            Some(request_hook::Verdict::Reply(reply)) => {
                Self::Reply(Reply::new(reply.status, reply.headers, unsent.keep(reply.body)?)?)
            }
        })
    }
}

impl ResponseVerdict {
    pub(super) fn of(
        verdict: Option<response_hook::Verdict>,
        unsent: UnsentLimit<'_>,
    ) -> Result<Self, CallError> {
        Ok(match verdict {
            None | Some(response_hook::Verdict::Next) => Self::Next,
            Some(response_hook::Verdict::Reply(reply)) => {
                Self::Reply(Reply::new(reply.status, reply.headers, unsent.keep(reply.body)?)?)
            }
        })
    }
}

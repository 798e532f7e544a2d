//! What have the request hooks of a route decided?

use crate::{
    live::Generation,
    plugin::{CallError, Reply, RequestVerdict, brief},
    snapshot::Route,
};

/// What the request hooks of a route decided.
pub(super) enum Decision {
    Next,
    Reply(Reply),
    /// Go to another upstream: a place in the snapshot's list.
    Forward(usize),
}

impl Decision {
    /// What the verdict of a plugin, by its place, means on this route.
    pub fn of(
        verdict: RequestVerdict,
        generation: &Generation,
        plugin: usize,
        route: &Route,
    ) -> Result<Self, CallError> {
        let snapshot = &generation.snapshot;
        match verdict {
            RequestVerdict::Next => Ok(Self::Next),
            RequestVerdict::Reply(reply) => Ok(Self::Reply(reply)),
            RequestVerdict::Forward(name) => {
                let index =
                    snapshot.upstream(&name).ok_or_else(|| CallError::UnknownUpstream(brief(&name)))?;
                match snapshot.may_forward(plugin, route, index) {
                    true => Ok(Self::Forward(index)),
                    false => Err(CallError::UpstreamNotGranted(brief(&name))),
                }
            }
        }
    }
}

//! What do the plugins of a route make of it?
//!
//! A plugin that fails closed ends the request; one that fails open is passed over; a balancer that fails is
//! replaced by the host's own choice, since it decides nobody's rights.

use std::sync::Arc;

use http::Response;

use super::{Error, cached::Answer};
use crate::{
    body::Content,
    config::{Failure, ResponseHooks},
    live::Generation,
    plugin::{CallError, InHand, Reply, RequestVerdict, ResponseHead, ResponseVerdict, Slot},
    snapshot::{Route, Target},
    upstream::Roster,
};

/// What the request hooks of a route decided.
pub(super) enum Decision {
    Next,
    Reply(Reply),
    /// Go to another upstream: a place in the snapshot's list.
    Forward(usize),
}

/// Runs the request hooks in order, up to the first that replies.
pub(super) fn on_request(
    generation: &Generation,
    route: &Route,
    exchange: &mut InHand,
) -> Result<Decision, Error> {
    let mut decision = Decision::Next;
    for &place in &route.on_request {
        let slot = generation.slot(place);
        let verdict = match slot.on_request(exchange) {
            Ok(RequestVerdict::Next) => Ok(()),
            Ok(RequestVerdict::Reply(reply)) => return Ok(Decision::Reply(reply)),
            Ok(RequestVerdict::Forward(name)) => match generation.snapshot.upstream(&name) {
                Some(place) => {
                    exchange.upstream = generation.snapshot.upstreams[place].upstream.name.clone();
                    decision = Decision::Forward(place);
                    Ok(())
                }
                None => Err(CallError::UnknownUpstream(name)),
            },
            Err(error) => Err(error),
        };
        verdict.or_else(|error| by_policy(slot, error))?;
    }
    Ok(decision)
}

/// Runs the response hooks over what an upstream answered, or what is stored of it.
pub(super) fn on_response(
    generation: &Generation,
    route: &Route,
    exchange: &mut InHand,
    mut answer: Answer,
) -> Result<Answer, Error> {
    let is_done = answer.from_cache
        && route.cache.as_ref().is_some_and(|rules| rules.response_hooks == ResponseHooks::Once);
    if route.on_response.is_empty() || is_done {
        return Ok(answer);
    }
    let (parts, body) = answer.response.into_parts();
    let endpoint =
        answer.sent.as_ref().map(|sent| sent.endpoint().address.clone()).or(answer.endpoint.take());
    exchange.response = Some(ResponseHead { parts, endpoint, from_cache: answer.from_cache });
    answer.response = run(generation, route, exchange, body)?;
    if matches!(answer.response.body(), Content::Whole(_))
        && let Some(sent) = &mut answer.sent
    {
        sent.give_up_response();
    }
    Ok(answer)
}

/// Runs the response hooks over what a request hook answered.
pub(super) fn on_reply(
    generation: &Generation,
    route: &Route,
    exchange: &mut InHand,
    reply: Reply,
) -> Result<Response<Content>, Error> {
    let response = into_response(reply);
    if route.on_response.is_empty() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
    run(generation, route, exchange, body)
}

fn run(
    generation: &Generation,
    route: &Route,
    exchange: &mut InHand,
    mut content: Content,
) -> Result<Response<Content>, Error> {
    for &place in &route.on_response {
        let slot = generation.slot(place);
        match slot.on_response(exchange) {
            Ok(ResponseVerdict::Next) => {}
            Ok(ResponseVerdict::Reply(reply)) => {
                let (parts, body) = into_response(reply).into_parts();
                exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
                content = body;
            }
            Err(error) => by_policy(slot, error)?,
        }
    }
    let head = exchange.response.take().expect("nothing takes the response away while hooks run");
    Ok(Response::from_parts(head.parts, content))
}

fn into_response(reply: Reply) -> Response<Content> {
    let mut response = Response::new(Content::Whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// Which endpoint of an upstream is to serve the request: a place among the usable ones of its roster. None if all
/// have been tried.
pub(super) fn pick(
    generation: &Generation,
    target: &Target,
    roster: &Arc<Roster>,
    exchange: &mut InHand,
    tried: &[u32],
) -> Option<usize> {
    if tried.len() >= roster.usable().len() {
        return None;
    }
    let is_untried = |place: &usize| !tried.contains(&(*place as u32));
    let picked = target.balancers.iter().find_map(|place| {
        let slot = generation.slot(*place);
        let picked = slot.pick(exchange, roster, tried).unwrap_or_else(|error| {
            slot.counts().failed(&error);
            tracing::warn!(plugin = %slot.plugin().name, upstream = %target.upstream.name, %error,
                "pick failed, another chooses");
            None
        });
        picked.filter(is_untried)
    });
    picked.or_else(|| roster.least_loaded_of_two(tried))
}

/// What becomes of a request whose plugin could not decide.
fn by_policy(slot: &Slot, error: CallError) -> Result<(), Error> {
    let plugin = slot.plugin();
    slot.counts().failed(&error);
    match plugin.failure {
        Failure::Closed => Err(Error::Plugin { plugin: plugin.name.clone(), source: error }),
        Failure::Open => {
            tracing::warn!(plugin = %plugin.name, %error, "plugin failed, the request goes on without it");
            Ok(())
        }
    }
}

//! What do the plugins of a route make of it?
//!
//! A plugin that fails closed ends the request; one that fails open is passed over; a balancer that fails is
//! replaced by the host's own choice, since it decides nobody's rights.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::{
    answer::Answer,
    canary,
    context::Context,
    decision::Decision,
    error::Error,
    host_io::{Body, LeavingBody, MessageIo},
    observer::Observer,
    shadow::ShadowCall,
};
use crate::{
    body::{Arriving, Content},
    cache::Rules,
    clock::Timer,
    config::Failure,
    plugin::{
        CallContext, CallError, Compare, Decided, ExchangeSlot, Hook, Reply, RequestHook, ResponseHead,
        ResponseHook, ResponseVerdict, RouteCalls, Slot,
    },
    reason::put_reason,
    snapshot::{Route, Step, Target},
    telemetry::sampled,
    upstream::Roster,
};

/// Runs the request hooks in order, up to the first that replies. They may have to wait, until the client's
/// deadline if it has one; `body` is what they may read or replace meanwhile, if there is any.
pub(super) async fn on_request(
    context: &Context,
    route: &Route,
    exchange: &mut ExchangeSlot,
    mut body: Option<&mut Arriving>,
    deadline: Option<&Timer>,
    observer: &mut Observer,
) -> Result<Decision, Error> {
    let mut decision = Decision::Next;
    for (number, step) in route.on_request.iter().enumerate() {
        let before = observer.before_call(exchange);
        let (slot, decided) = ask(context, route, step, exchange, body.as_deref_mut(), deadline).await;
        observer.called(before, context, (route, number, step), exchange, decided.as_ref());
        match decided {
            Ok(Decision::Next) => {}
            Ok(Decision::Reply(reply)) => return Ok(Decision::Reply(reply)),
            Ok(forward @ Decision::Forward(_)) => decision = forward,
            Err(error) => {
                by_policy(slot, step.calls.of(context.generation.writer), error)?;
                observer.passed_over();
            }
        }
    }
    Ok(decision)
}

/// Runs the request hook of one plugin. Also says which of its versions was asked.
fn ask<'a: 'e, 'e>(
    context: &'a Context,
    route: &'e Route,
    step: &'a Step,
    exchange: &'e mut ExchangeSlot,
    body: Option<&'e mut Arriving>,
    deadline: Option<&'e Timer>,
) -> impl Future<Output = (&'a Slot, Result<Decision, CallError>)> {
    let body = body.map_or(Body::None, Body::Request);
    let io = MessageIo::new(context, step.place, body, deadline);
    call::<RequestHook, _>(step, exchange, io, |verdict, io, exchange| {
        let generation = &io.context.generation;
        let decision = Decision::of(verdict, generation, io.index, route)?;
        if let Decision::Forward(index) = &decision {
            exchange.upstream = generation.snapshot.upstreams[*index].upstream.name.clone();
        }
        Ok(decision)
    })
}

/// Calls a hook of one plugin about a message: the version of it that the request's id falls to, recorded, counted, and with
/// its candidate in the shadow after it. `decide` makes something of the verdict. Also says which version was called.
///
/// A function that returns a block, so that what it is given is held once while the hook runs.
fn call<'a: 'e, 'e, H: Compare, D>(
    step: &'a Step,
    exchange: &'e mut ExchangeSlot,
    mut io: MessageIo<'a, 'e>,
    decide: impl FnOnce(H::Verdict, &MessageIo<'a, 'e>, &mut ExchangeSlot) -> Result<D, CallError> + 'e,
) -> impl Future<Output = (&'a Slot, Result<D, CallError>)>
where
    for<'v> &'v H::Verdict: Into<Decided>,
{
    let context = io.context;
    let (slot, side) = canary::version(context, step.place, exchange);
    let shadow = step.shadow.filter(|_| exchange.is_traffic());
    let shadow = shadow.map(|index| Box::new(ShadowCall::new(context, index, exchange)));
    let calls = step.calls.of(context.generation.writer);
    calls.calls.add(1);
    if let Some(taint) = &mut exchange.taint {
        taint.begin_call();
    }
    io.recorded = slot.plugin().begin_recording(H::HOOK, exchange);
    async move {
        let call = CallContext { io: &mut io, route: Some(calls) };
        let verdict = slot.call::<H, _>(exchange, call).await;
        if let Some(recorded) = io.recorded.take() {
            recorded.end(exchange, verdict.as_ref());
        }
        if let Some(shadow) = shadow {
            shadow.compare::<H>(io.context, &verdict, exchange);
        }
        let decided = verdict.and_then(|verdict| decide(verdict, &io, exchange));
        canary::called(io.context, io.index, side, decided.as_ref().err());
        (slot, decided)
    }
}

/// Runs the response hooks over what an upstream answered, or what is stored of it.
pub(super) fn on_response<'e>(
    context: &'e Context,
    route: &'e Route,
    exchange: &'e mut ExchangeSlot,
    answer: &'e mut Answer,
) -> impl Future<Output = Result<(), Error>> {
    let is_done = answer.from_cache && route.cache.as_ref().is_some_and(Rules::stores_what_hooks_made);
    async move {
        if route.on_response.is_empty() || is_done {
            return Ok(());
        }
        let nothing = Response::new(Content::Whole(Bytes::new()));
        let (parts, body) = std::mem::replace(&mut answer.response, nothing).into_parts();
        let endpoint =
            answer.sent.as_ref().map(|sent| sent.endpoint().address.clone()).or(answer.endpoint.take());
        exchange.response = Some(ResponseHead { parts, endpoint, from_cache: answer.from_cache });
        let deadline = answer.sent.as_ref().and_then(|sent| sent.deadline.as_ref());
        let (response, is_left) = run(context, route, exchange, body, deadline).await?;
        answer.response = response;
        if is_left && let Some(sent) = &mut answer.sent {
            sent.give_up_response();
        }
        Ok(())
    }
}

/// Runs the response hooks over what a request hook answered.
pub(super) fn on_reply<'e>(
    context: &'e Context,
    route: &'e Route,
    exchange: &'e mut ExchangeSlot,
    reply: Reply,
) -> impl Future<Output = Result<Response<Content>, Error>> {
    let mut response = into_response(reply);
    exchange.apply_response_headers(response.headers_mut());
    async move {
        if route.on_response.is_empty() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
        Ok(run(context, route, exchange, body, None).await?.0)
    }
}

/// Also says whether something else goes to the client than what came, which was not read to its end.
fn run<'e>(
    context: &'e Context,
    route: &'e Route,
    exchange: &'e mut ExchangeSlot,
    content: Content,
    deadline: Option<&'e Timer>,
) -> impl Future<Output = Result<(Response<Content>, bool), Error>> {
    let mut body = LeavingBody::new(content);
    async move {
        for step in &route.on_response {
            let io = MessageIo::new(context, step.place, Body::Response(&mut body), deadline);
            let call = call::<ResponseHook, _>(step, exchange, io, |verdict, _, _| Ok(verdict));
            let (slot, verdict) = call.await;
            match verdict {
                Ok(ResponseVerdict::Next) => {}
                Ok(ResponseVerdict::Reply(reply)) => {
                    let (parts, content) = into_response(reply).into_parts();
                    exchange.forget_response_body();
                    if let Some(taint) = &mut exchange.taint {
                        taint.changes_response();
                    }
                    exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
                    body.replace(content);
                }
                Err(error) => by_policy(slot, step.calls.of(context.generation.writer), error)?,
            }
        }
        let head = exchange.response.take().expect("nothing takes the response away while hooks run");
        let is_left = body.is_left;
        Ok((Response::from_parts(head.parts, body.into_content()), is_left))
    }
}

fn into_response(reply: Reply) -> Response<Content> {
    let mut response = Response::new(Content::Whole(reply.body));
    *response.status_mut() = reply.status;
    put_reason(&mut response);
    *response.headers_mut() = reply.headers;
    response
}

/// Which endpoint of an upstream is to serve the request: a place among the usable ones of its roster. None if all
/// have been tried.
pub(super) fn pick(
    context: &Context,
    target: &Target,
    roster: &Arc<Roster>,
    exchange: &mut ExchangeSlot,
    tried: &[u32],
) -> Option<usize> {
    choose(context, target, roster, exchange, tried).map(|(index, _)| index)
}

/// The same with the balancer that chose it, a place in the snapshot's list; none if it was the host.
pub(super) fn choose(
    context: &Context,
    target: &Target,
    roster: &Arc<Roster>,
    exchange: &mut ExchangeSlot,
    tried: &[u32],
) -> Option<(usize, Option<usize>)> {
    if tried.len() >= roster.usable().len() {
        return None;
    }
    let is_untried = |index: &usize| !tried.contains(&(*index as u32));
    let picked = target.balancers.iter().find_map(|balancer| {
        let (slot, side) = canary::version(context, *balancer, exchange);
        let recorded = slot.plugin().begin_recording(Hook::Pick, exchange);
        let recorded = recorded.map(|recorded| recorded.choosing(roster.clone(), tried));
        let picked = slot.pick(exchange, roster, tried);
        if let Some(recorded) = recorded {
            recorded.end_pick(exchange, picked.as_ref());
        }
        canary::called(context, *balancer, side, picked.as_ref().err());
        let picked = picked.unwrap_or_else(|error| {
            slot.counts().failed(&error);
            // Of one that is left alone, the log knows.
            if !matches!(error, CallError::Broken) {
                let (plugin, upstream) = (&slot.plugin().name, &target.upstream.name);
                sampled!(warn, of: (plugin, upstream, error.kind()), %plugin, %upstream, %error, "pick failed, another chooses");
            }
            None
        });
        picked.filter(is_untried).map(|index| (index, Some(*balancer)))
    });
    picked.or_else(|| Some((roster.least_loaded_of_two(tried)?, None)))
}

/// What becomes of a request whose plugin could not decide.
fn by_policy(slot: &Slot, calls: &RouteCalls, error: CallError) -> Result<(), Error> {
    let plugin = slot.plugin();
    slot.counts().failed(&error);
    calls.failed(&error);
    match plugin.failure {
        Failure::Closed => Err(Error::Plugin { plugin: plugin.name.clone(), source: error }),
        Failure::Open if matches!(error, CallError::Broken) => Ok(()),
        Failure::Open => {
            let plugin = &plugin.name;
            sampled!(warn, of: (plugin, error.kind()), %plugin, %error, "plugin failed, the request goes on without it");
            Ok(())
        }
    }
}

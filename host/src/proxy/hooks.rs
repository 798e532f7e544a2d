//! What do the plugins of a route make of it?
//!
//! A plugin that fails closed ends the request; one that fails open is passed over; a balancer that fails is
//! replaced by the host's own choice, since it decides nobody's rights.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};

use super::{
    cached::Answer, canary, context::Context, errands::Call, error::Error, observer::Observer, shadow::Shown,
};
use crate::{
    body::{Arriving, Content, Leaving},
    cache::Rules,
    clock::Timer,
    config::Failure,
    live::Generation,
    plugin::{
        CallError, Hook, InHand, Reply, RequestVerdict, ResponseHead, ResponseVerdict, RouteCalls, Slot,
        brief,
    },
    reason::put_reason,
    snapshot::{Route, Step, Target},
    telemetry::sampled,
    upstream::Roster,
};

/// What the request hooks of a route decided.
pub(super) enum Decision {
    Next,
    Reply(Reply),
    /// Go to another upstream: a place in the snapshot's list.
    Forward(usize),
}

/// Runs the request hooks in order, up to the first that replies. They may have to wait, until the client's
/// deadline if it has one; `body` is what they may read or replace meanwhile, if there is any.
pub(super) async fn on_request(
    context: &Context,
    route: &Route,
    exchange: &mut InHand,
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
async fn ask<'a>(
    context: &'a Context,
    route: &Route,
    Step { place, calls, shadow }: &Step,
    exchange: &mut InHand,
    body: Option<&mut Arriving>,
    deadline: Option<&Timer>,
) -> (&'a Slot, Result<Decision, CallError>) {
    let generation = &context.generation;
    let (slot, side) = canary::version(context, *place, exchange);
    let shown = shadow.filter(|_| exchange.is_traffic()).map(|place| Shown::to(context, place, exchange));
    let calls = calls.of(generation.writer);
    calls.calls.add(1);
    if let Some(taint) = &mut exchange.taint {
        taint.begin_call();
    }
    let mut recorded = slot.plugin().begin_recording(Hook::OnRequest, exchange);
    let verdict = if slot.waits() {
        let call = Call {
            request: body,
            says_end: context.connection.turn.is_none(),
            ..Call::of(context, *place, deadline, recorded.as_deref_mut())
        };
        // In a box, since most requests do without.
        Box::pin(request_waiting(slot, exchange, call, calls)).await
    } else if slot.is_slow() {
        Box::pin(slot.on_request_behind(exchange, Some(calls))).await
    } else {
        slot.on_request(exchange, Some(calls))
    };
    if let Some(recorded) = recorded {
        recorded.end(exchange, verdict.as_ref());
    }
    if let Some(shown) = shown {
        shown.request(&verdict, exchange);
    }
    let decided = verdict.and_then(|verdict| Decision::of(verdict, generation, *place, route));
    canary::called(context, *place, side, decided.as_ref().err());
    if let Ok(Decision::Forward(place)) = &decided {
        exchange.upstream = generation.snapshot.upstreams[*place].upstream.name.clone();
    }
    (slot, decided)
}

impl Decision {
    /// What the verdict of a plugin, by its place, means on this route.
    fn of(
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
                let place =
                    snapshot.upstream(&name).ok_or_else(|| CallError::UnknownUpstream(brief(&name)))?;
                match snapshot.may_forward(plugin, route, place) {
                    true => Ok(Self::Forward(place)),
                    false => Err(CallError::UpstreamNotGranted(brief(&name))),
                }
            }
        }
    }
}

/// Calls the request hook of a plugin that may wait.
async fn request_waiting(
    slot: &Slot,
    exchange: &mut InHand,
    mut call: Call<'_>,
    calls: &RouteCalls,
) -> Result<RequestVerdict, CallError> {
    let verdict = slot.on_request_waiting(exchange, &mut call, Some(calls)).await;
    if let Some(content) = exchange.take_made_request_body()
        && let Some(body) = call.request
    {
        let had_content = !http_body::Body::is_end_stream(body);
        exchange.request.headers.remove(header::TRANSFER_ENCODING);
        if had_content || !content.is_empty() {
            exchange.request.headers.insert(header::CONTENT_LENGTH, content.len().into());
        }
        body.make(content);
    }
    verdict
}

/// Runs the response hooks over what an upstream answered, or what is stored of it.
pub(super) async fn on_response(
    context: &Context,
    route: &Route,
    exchange: &mut InHand,
    answer: &mut Answer,
) -> Result<(), Error> {
    let is_done = answer.from_cache && route.cache.as_ref().is_some_and(Rules::stores_what_hooks_made);
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

/// Runs the response hooks over what a request hook answered.
pub(super) async fn on_reply(
    context: &Context,
    route: &Route,
    exchange: &mut InHand,
    reply: Reply,
) -> Result<Response<Content>, Error> {
    let mut response = into_response(reply);
    exchange.keep_promises(response.headers_mut());
    if route.on_response.is_empty() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
    Ok(run(context, route, exchange, body, None).await?.0)
}

/// Also says whether something else goes to the client than what came, which was not read to its end.
async fn run(
    context: &Context,
    route: &Route,
    exchange: &mut InHand,
    content: Content,
    deadline: Option<&Timer>,
) -> Result<(Response<Content>, bool), Error> {
    let mut body = Leaving::Untouched(content);
    let mut is_left = false;
    for Step { place, calls, shadow } in &route.on_response {
        let (slot, side) = canary::version(context, *place, exchange);
        let shown = shadow.filter(|_| exchange.is_traffic()).map(|place| Shown::to(context, place, exchange));
        let calls = calls.of(context.generation.writer);
        calls.calls.add(1);
        if let Some(taint) = &mut exchange.taint {
            taint.begin_call();
        }
        let mut recorded = slot.plugin().begin_recording(Hook::OnResponse, exchange);
        let verdict = if slot.waits() {
            let call = Call {
                response: Some(&mut body),
                ..Call::of(context, *place, deadline, recorded.as_deref_mut())
            };
            // In a box, since most responses do without.
            let (verdict, made) = Box::pin(response_waiting(slot, exchange, call, calls)).await;
            if let Some(content) = made {
                is_left |= !body.is_read();
                body = Leaving::Untouched(Content::Whole(content));
            }
            verdict
        } else if slot.is_slow() {
            Box::pin(slot.on_response_behind(exchange, Some(calls))).await
        } else {
            slot.on_response(exchange, Some(calls))
        };
        if let Some(recorded) = recorded {
            recorded.end(exchange, verdict.as_ref());
        }
        if let Some(shown) = shown {
            shown.response(&verdict, exchange);
        }
        canary::called(context, *place, side, verdict.as_ref().err());
        match verdict {
            Ok(ResponseVerdict::Next) => {}
            Ok(ResponseVerdict::Reply(reply)) => {
                let (parts, content) = into_response(reply).into_parts();
                exchange.forget_response_body();
                if let Some(taint) = &mut exchange.taint {
                    taint.changes_response();
                }
                exchange.response = Some(ResponseHead { parts, endpoint: None, from_cache: false });
                is_left |= !body.is_read();
                body = Leaving::Untouched(content);
            }
            Err(error) => by_policy(slot, calls, error)?,
        }
    }
    let head = exchange.response.take().expect("nothing takes the response away while hooks run");
    Ok((Response::from_parts(head.parts, body.into_content()), is_left))
}

/// Calls the response hook of a plugin that may wait. Gives the body, too, that it wants in the place of the one that
/// is there, with the head as it is to be then.
async fn response_waiting(
    slot: &Slot,
    exchange: &mut InHand,
    mut call: Call<'_>,
    calls: &RouteCalls,
) -> (Result<ResponseVerdict, CallError>, Option<Bytes>) {
    let verdict = slot.on_response_waiting(exchange, &mut call, Some(calls)).await;
    let made = exchange.take_made_response_body();
    let is_head = exchange.request.method == Method::HEAD;
    let made = made.zip(exchange.response.as_mut()).and_then(|(content, response)| {
        reframe(&mut response.parts.headers, response.parts.status, is_head, content)
    });
    (verdict, made)
}

/// Has the head of a response say how long the content is that was put in its place; none where there can be none
/// (RFC 9110, section 6.4.1).
fn reframe(headers: &mut HeaderMap, status: StatusCode, is_head: bool, content: Bytes) -> Option<Bytes> {
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return None;
    }
    headers.remove(header::TRAILER);
    headers.insert(header::CONTENT_LENGTH, content.len().into());
    (!is_head).then_some(content)
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
    exchange: &mut InHand,
    tried: &[u32],
) -> Option<usize> {
    choose(context, target, roster, exchange, tried).map(|(place, _)| place)
}

/// The same with the balancer that chose it, a place in the snapshot's list; none if it was the host.
pub(super) fn choose(
    context: &Context,
    target: &Target,
    roster: &Arc<Roster>,
    exchange: &mut InHand,
    tried: &[u32],
) -> Option<(usize, Option<usize>)> {
    if tried.len() >= roster.usable().len() {
        return None;
    }
    let is_untried = |place: &usize| !tried.contains(&(*place as u32));
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
        picked.filter(is_untried).map(|place| (place, Some(*balancer)))
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

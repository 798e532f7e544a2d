//! Which hooks decide about a message, and how does each of them do it?
//!
//! A slot calls them all in one way. What is different of each is here: its export, and how what it returns becomes a
//! verdict.

use wasmtime::component::{ComponentType, Lift, TypedFunc};

use super::{
    bindings::exports::tollgate::policy::{request_hook, response_hook},
    counts::Hook,
    error::CallError,
    instance::{AsyncExports, Instance},
    unsent::UnsentLimit,
    verdict::{RequestVerdict, ResponseVerdict},
};

/// A hook that is called with a message in hand, and returns a verdict about it.
pub trait MessageHook {
    const HOOK: Hook;
    /// The verdict in the contract.
    type Returned: ComponentType + Lift + Send + Sync + 'static;
    /// The same, checked.
    type Verdict: Send + 'static;

    /// Calls it to its end. None if the plugin does not export it.
    fn call(instance: &mut Instance) -> Option<wasmtime::Result<Self::Returned>>;

    /// Its function in a plugin whose calls may suspend. None if the plugin does not export it.
    fn export(exports: &AsyncExports) -> Option<TypedFunc<(), (Self::Returned,)>>;

    /// Checks what it has returned.
    fn read(returned: Option<Self::Returned>, unsent: UnsentLimit<'_>) -> Result<Self::Verdict, CallError>;
}

/// `on-request`.
#[derive(Debug)]
pub struct RequestHook;

/// `on-response`.
#[derive(Debug)]
pub struct ResponseHook;

impl MessageHook for RequestHook {
    const HOOK: Hook = Hook::OnRequest;
    type Returned = request_hook::Verdict;
    type Verdict = RequestVerdict;

    fn call(instance: &mut Instance) -> Option<wasmtime::Result<Self::Returned>> {
        instance.on_request()
    }

    fn export(exports: &AsyncExports) -> Option<TypedFunc<(), (Self::Returned,)>> {
        exports.on_request
    }

    fn read(returned: Option<Self::Returned>, unsent: UnsentLimit<'_>) -> Result<RequestVerdict, CallError> {
        RequestVerdict::of(returned, unsent)
    }
}

impl MessageHook for ResponseHook {
    const HOOK: Hook = Hook::OnResponse;
    type Returned = response_hook::Verdict;
    type Verdict = ResponseVerdict;

    fn call(instance: &mut Instance) -> Option<wasmtime::Result<Self::Returned>> {
        instance.on_response()
    }

    fn export(exports: &AsyncExports) -> Option<TypedFunc<(), (Self::Returned,)>> {
        exports.on_response
    }

    fn read(returned: Option<Self::Returned>, unsent: UnsentLimit<'_>) -> Result<ResponseVerdict, CallError> {
        ResponseVerdict::of(returned, unsent)
    }
}

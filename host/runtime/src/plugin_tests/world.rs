//! What does a plugin under test find beyond the message in hand?
//!
//! What its tests say: what is in its store, what others answer, what bodies hold. Nothing leaves the process.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::{
    difference::are_as_expected,
    file::{Answered, Case, Grants, SendFault, TestFile},
};
use crate::{
    config::StoreGrant,
    outgoing::{Outgoing, Received, SendError},
    plugin::{BodyError, Capabilities, ExchangeSlot, Granted, HostIo, Quota, Secrets, Store},
};

/// What a plugin is given when it is tested.
#[derive(Debug, Clone, Default)]
pub struct Props {
    pub grants: Grants,
    /// What is in its store, before anything happens.
    pub store: BTreeMap<String, String>,
    /// What it draws next from its sequences; 0 from those that are not named.
    pub sequences: BTreeMap<String, u32>,
    pub secrets: BTreeMap<String, String>,
    pub http: Vec<Answered>,
    /// Decides what comes by chance; the system does if absent.
    pub seed: Option<u64>,
}

impl Props {
    /// What a case gives; of what it does not name, what the file gives.
    pub fn of(file: &TestFile, case: Option<&Case>) -> Self {
        let of_case = |own: Option<&BTreeMap<String, String>>, all: &BTreeMap<String, String>| {
            own.unwrap_or(all).clone()
        };
        Self {
            grants: case.and_then(|case| case.grants.as_ref()).unwrap_or(&file.grants).clone(),
            store: of_case(case.and_then(|case| case.store.as_ref()), &file.store),
            sequences: case.and_then(|case| case.sequences.as_ref()).unwrap_or(&file.sequences).clone(),
            secrets: of_case(case.and_then(|case| case.secrets.as_ref()), &file.secrets),
            http: case.and_then(|case| case.http.as_ref()).unwrap_or(&file.http).clone(),
            seed: None,
        }
    }

    /// What it was granted, with what is in it. `now` is the time of the store.
    pub fn capabilities(&self, now: Duration) -> Capabilities {
        let StoreGrant { memory, entries } = self.grants.store;
        let store = Store::new(Quota { memory: memory.as_usize(), entries });
        for (key, value) in &self.store {
            // What has no place in the store is not there, and whoever expects it sees that.
            let _ = store.set(key, value.as_bytes().to_vec(), None, now);
        }
        let secrets = self.secrets.iter().map(|(name, secret)| (name.clone(), secret.as_bytes().to_vec()));
        let secrets = Secrets::known(secrets);
        Capabilities { store: Some(store), secrets, body: Some(self.grants.body), origins: Granted::OnTrial }
    }
}

impl Answered {
    /// Whether it is the answer to this request.
    pub fn is_to(&self, request: &Outgoing) -> bool {
        self.url.target == request.target
            && self.url.path == request.path
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && are_as_expected(&self.asked.headers, &request.headers)
            && self.asked.body.as_ref().is_none_or(|body| body.as_bytes() == request.body)
    }
}

/// Others, and bodies, as they are written down.
#[derive(Debug, Default)]
pub struct World {
    answers: Vec<Answered>,
    pub request_body: Bytes,
    pub response_body: Bytes,
    /// What was sent, each with its method.
    pub sent: Vec<String>,
    /// Which of it nobody has written an answer to.
    pub unanswered: Vec<String>,
}

impl World {
    pub fn new(answers: Vec<Answered>) -> Self {
        Self { answers, ..Self::default() }
    }

    fn answer(&mut self, request: &Outgoing) -> Result<Received, SendError> {
        let written = format!("{} {}{}", request.method, request.target, request.path);
        self.sent.push(written.clone());
        let place = self.answers.iter().position(|answer| answer.is_to(request));
        let Some(place) = place else {
            self.unanswered.push(written);
            return Err(SendError::Unreachable);
        };
        let answer = self.answers[place].clone();
        // One of several to the same request stands for its turn; the last goes on.
        let has_others = self.answers[place + 1..].iter().any(|other| other.is_to(request));
        if has_others {
            self.answers.remove(place);
        }
        match answer.error {
            None => Ok(Received {
                status: answer.status.as_u16(),
                headers: answer.headers,
                body: Bytes::from(answer.body),
            }),
            Some(SendFault::Denied) => Err(SendError::Denied),
            Some(SendFault::Unreachable) => Err(SendError::Unreachable),
            Some(SendFault::TimedOut) => Err(SendError::TimedOut),
            Some(SendFault::TooLarge) => Err(SendError::TooLarge),
        }
    }
}

impl HostIo for World {
    async fn send(&mut self, request: Outgoing) -> Result<Received, SendError> {
        self.answer(&request)
    }

    async fn request_body(&mut self, most: usize, _: Duration) -> Result<Bytes, BodyError> {
        within(&self.request_body, most)
    }

    async fn response_body(&mut self, most: usize, _: Duration) -> Result<Bytes, BodyError> {
        within(&self.response_body, most)
    }

    fn replace_body(&mut self, exchange: &mut ExchangeSlot) {
        if let Some(content) = exchange.take_made_request_body() {
            self.request_body = content;
        }
        if let Some(content) = exchange.take_made_response_body() {
            self.response_body = content;
        }
    }
}

fn within(body: &Bytes, most: usize) -> Result<Bytes, BodyError> {
    if body.len() > most { Err(BodyError::TooLarge) } else { Ok(body.clone()) }
}

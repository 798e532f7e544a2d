//! What does a plugin get when it calls the host?
//!
//! The always-given interfaces of the contract, on the store's data. Getters outside a request answer with
//! what is empty; nothing here fails, waits or trusts what it is given.

use std::sync::{Arc, atomic::AtomicU32};

use http::{HeaderMap, StatusCode, Version, header};
use wasmtime::component::HasData;

use super::{
    bindings::tollgate::policy::{
        log, metrics, pool, request, response, sequence,
        types::{self, HeaderError},
    },
    counts::MetricKind,
    error::Edit,
    exchange::{Exchange, ResponseHead},
    log_lines::Line,
    sequences::{Sequences, draw},
    state::State,
    taint::Taint,
    text::{brief, joined, to_string},
};

/// Host functions reach the state of the instance that called them.
pub(super) struct Ambient;

impl HasData for Ambient {
    type Data<'a> = &'a mut State;
}

impl From<Edit> for HeaderError {
    fn from(edit: Edit) -> Self {
        match edit {
            Edit::InvalidName => Self::InvalidName,
            Edit::InvalidValue => Self::InvalidValue,
            Edit::Forbidden => Self::Forbidden,
            Edit::TooLarge => Self::TooLarge,
        }
    }
}

impl types::Host for State {}

impl State {
    fn request(&self) -> Option<&http::request::Parts> {
        self.exchange.as_ref().map(|exchange| &exchange.request)
    }

    fn response(&self) -> Option<&ResponseHead> {
        self.exchange.as_ref()?.response.as_ref()
    }

    fn edit(&mut self) -> Result<&mut Exchange, HeaderError> {
        self.exchange.as_deref_mut().ok_or(HeaderError::Forbidden)
    }

    /// Notes what the call has read or changed, where somebody wants to know.
    pub(super) fn note_taint(&mut self, note: impl FnOnce(&mut Taint)) {
        if let Some(taint) = self.exchange.as_mut().and_then(|exchange| exchange.taint.as_mut()) {
            note(taint);
        }
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(to_string).collect()
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), to_string(value))).collect()
}

impl request::Host for State {
    fn id(&mut self) -> String {
        if self.response().is_some() {
            // It is in the request as it is sent; in what is stored of a response it would be another's.
            self.note_taint(Taint::reads_client);
        }
        let id = self.exchange.as_ref().and_then(|exchange| exchange.id());
        id.map(to_string).unwrap_or_default()
    }

    fn method(&mut self) -> String {
        self.request().map(|request| request.method.as_str().to_owned()).unwrap_or_default()
    }

    fn scheme(&mut self) -> String {
        self.exchange.as_ref().map(|exchange| exchange.scheme.to_owned()).unwrap_or_default()
    }

    fn authority(&mut self) -> String {
        self.note_taint(|taint| taint.reads_field(header::HOST.as_str()));
        let host = self.exchange.as_ref().and_then(|exchange| exchange.authority());
        host.map(|host| to_string(host).to_ascii_lowercase()).unwrap_or_default()
    }

    fn path(&mut self) -> String {
        self.note_taint(Taint::reads_path);
        self.request().map(|request| request.uri.path().to_owned()).unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        self.note_taint(Taint::reads_query);
        self.request()?.uri.query().map(str::to_owned)
    }

    fn http_version(&mut self) -> String {
        let version = self.request().map(|request| request.version);
        match version {
            Some(Version::HTTP_10) => "1.0",
            Some(Version::HTTP_11) => "1.1",
            Some(Version::HTTP_2) => "2",
            _ => "",
        }
        .to_owned()
    }

    fn client_address(&mut self) -> String {
        self.note_taint(Taint::reads_client);
        self.exchange.as_ref().map(|exchange| exchange.client.to_string()).unwrap_or_default()
    }

    fn client_certificate(&mut self) -> Option<Vec<u8>> {
        let certificate = self.exchange.as_ref()?.certificate.as_ref()?.der.to_vec();
        self.note_taint(Taint::reads_client);
        Some(certificate)
    }

    fn route(&mut self) -> String {
        self.exchange.as_ref().map(|exchange| exchange.route.to_string()).unwrap_or_default()
    }

    fn upstream(&mut self) -> String {
        self.exchange.as_ref().map(|exchange| exchange.upstream.to_string()).unwrap_or_default()
    }

    fn header(&mut self, name: String) -> Option<String> {
        let value = joined(&self.request()?.headers, &name)?;
        self.note_taint(|taint| taint.reads_field(&name));
        Some(value)
    }

    fn header_values(&mut self, name: String) -> Vec<String> {
        let values = self.request().map(|request| values(&request.headers, &name)).unwrap_or_default();
        if !values.is_empty() {
            self.note_taint(|taint| taint.reads_field(&name));
        }
        values
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        self.note_taint(Taint::reads_all_fields);
        self.request().map(|request| pairs(&request.headers)).unwrap_or_default()
    }

    fn set_header(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        self.edit()?.request_edit()?.set(&name, value)?;
        self.note_taint(|taint| taint.sets_field(&name));
        Ok(())
    }

    fn set_response_header(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        Ok(self.edit()?.set_response_header(&name, value)?)
    }

    fn append_header(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        self.edit()?.request_edit()?.append(&name, value)?;
        self.note_taint(|taint| taint.sets_field(&name));
        Ok(())
    }

    fn remove_header(&mut self, name: String) -> Result<(), HeaderError> {
        let was_there = self.request().is_some_and(|request| request.headers.contains_key(&name));
        self.edit()?.request_edit()?.remove(&name)?;
        if was_there {
            self.note_taint(|taint| taint.removes_field(&name));
        }
        Ok(())
    }

    fn set_target(&mut self, target: String) -> Result<(), HeaderError> {
        self.edit()?.set_target(&target)?;
        self.note_taint(Taint::changes_target);
        Ok(())
    }

    fn note(&mut self, name: String) -> Option<String> {
        self.note_taint(Taint::reads_note);
        self.exchange.as_ref()?.note(&name).map(str::to_owned)
    }

    fn set_note(&mut self, name: String, value: String) {
        self.note_taint(Taint::leaves_note);
        if let Some(exchange) = &mut self.exchange {
            exchange.set_note(name, value);
        }
    }
}

impl response::Host for State {
    fn status(&mut self) -> u16 {
        self.response().map_or(0, |response| response.parts.status.as_u16())
    }

    fn set_status(&mut self, status: u16) {
        let valid = StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status));
        let Some(status) = valid else {
            return self.complain(&format!("plugin set a status that does not exist: {status}"));
        };
        self.note_taint(Taint::changes_response);
        if let Some(response) = self.exchange.as_mut().and_then(|exchange| exchange.response.as_mut()) {
            if response.parts.status != status {
                // The words on the status line were those of the other one.
                response.parts.extensions.remove::<hyper::ext::ReasonPhrase>();
            }
            response.parts.status = status;
        }
    }

    fn header(&mut self, name: String) -> Option<String> {
        joined(&self.response()?.parts.headers, &name)
    }

    fn header_values(&mut self, name: String) -> Vec<String> {
        self.response().map(|response| values(&response.parts.headers, &name)).unwrap_or_default()
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        self.response().map(|response| pairs(&response.parts.headers)).unwrap_or_default()
    }

    fn set_header(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        self.edit()?.response_edit()?.set(&name, value)?;
        self.note_taint(|taint| taint.changes_response_field(&name));
        Ok(())
    }

    fn append_header(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        self.edit()?.response_edit()?.append(&name, value)?;
        self.note_taint(|taint| taint.changes_response_field(&name));
        Ok(())
    }

    fn remove_header(&mut self, name: String) -> Result<(), HeaderError> {
        self.edit()?.response_edit()?.remove(&name)?;
        self.note_taint(|taint| taint.changes_response_field(&name));
        Ok(())
    }

    fn from_cache(&mut self) -> bool {
        self.response().is_some_and(|response| response.from_cache)
    }

    fn endpoint(&mut self) -> Option<String> {
        self.response()?.endpoint.as_ref().map(to_string)
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) {
        self.say(level, &message);
    }
}

impl State {
    /// Logs that the plugin does what has no effect, as a line of its own: it may do so as often as it likes.
    pub(super) fn complain(&self, of: &str) {
        self.say(log::Level::Warn, of);
    }

    fn say(&self, level: log::Level, text: &str) {
        let request = self.exchange.as_ref().and_then(|exchange| exchange.id()).map(to_string);
        let line = Line { plugin: &self.plugin, request: request.as_deref(), text };
        let journal = self.exchange.as_ref().and_then(|exchange| exchange.purpose.journal());
        self.log_lines.write(level, &line, journal);
    }
}

/// What is opened where nothing can be.
const NOTHING: u32 = u32::MAX;

impl State {
    /// Whether a sequence or a metric can have this name: the host keeps it, and looks it up under a lock.
    fn is_name(&self, of: &str, name: &str) -> bool {
        const LONGEST: usize = 1 << 10;
        let is_name = name.len() <= LONGEST;
        if !is_name {
            self.complain(&format!("the name of a {of} is longer than 1 KiB: {}", brief(name)));
        }
        is_name
    }
}

impl sequence::Host for State {
    fn open(&mut self, name: String) -> u32 {
        if !self.is_name("sequence", &name) {
            return NOTHING;
        }
        if let Some(id) = self.sequences.iter().position(|(known, _)| *known == name) {
            return id as u32;
        }
        let sequence = self.shared.sequences.open(&name).unwrap_or_else(|| {
            self.complain(&format!("too many sequences, this one is not shared: {}", brief(&name)));
            Arc::<AtomicU32>::default()
        });
        if self.sequences.len() >= Sequences::MOST {
            // The last place is shared by whatever comes too late.
            self.sequences.truncate(Sequences::MOST - 1);
        }
        self.sequences.push((name, sequence));
        (self.sequences.len() - 1) as u32
    }

    fn next(&mut self, id: u32) -> u32 {
        self.sequences.get(id as usize).map_or(0, |(_, sequence)| draw(sequence))
    }
}

impl metrics::Host for State {
    fn open(&mut self, kind: metrics::Kind, name: String) -> u32 {
        let kind = match kind {
            metrics::Kind::Counter => MetricKind::Counter,
            metrics::Kind::Gauge => MetricKind::Gauge,
            metrics::Kind::Histogram => MetricKind::Histogram,
        };
        if !self.is_name("metric", &name) {
            return NOTHING;
        }
        if let Some(id) = self.metrics.iter().position(|(known, _)| *known == name) {
            return id as u32;
        }
        let Some(metric) = self.shared.metrics.open(&name, kind) else {
            self.complain(&format!("too many metrics, this one is not counted: {}", brief(&name)));
            return NOTHING;
        };
        self.metrics.push((name, metric));
        (self.metrics.len() - 1) as u32
    }

    fn observe(&mut self, id: u32, value: f64) {
        if let Some((_, metric)) = self.metrics.get(id as usize) {
            metric.observe(value);
        }
    }
}

impl pool::Host for State {
    fn inspect(&mut self, upstream: String, index: u32) -> Option<pool::Condition> {
        let members = self.members(&upstream)?;
        members.inspect(index as usize).map(|member| pool::Condition {
            active: member.active,
            latency_us: member.latency_us,
            failures: member.failures,
            load: member.load,
        })
    }

    fn active(&mut self, upstream: String) -> Vec<u32> {
        let Some(members) = self.members(&upstream) else { return Vec::new() };
        (0..members.len()).map(|index| members.inspect(index).map_or(0, |member| member.active)).collect()
    }
}

//! How many requests and connections are there, and what becomes of them?

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{Distribution, Histogram, Page, PerWorker, Tally};

/// What is counted of the requests of one route.
#[derive(Debug, Default)]
pub struct RouteCounts {
    /// By the first digit of the status, less one.
    responses: [Tally; 5],
    /// Responses that did not reach their end.
    cut: Tally,
    request_bytes: Tally,
    response_bytes: Tally,
    durations: Histogram,
    pub tunnels: TunnelCounts,
}

/// What is counted of the tunnels that were opened for requests of a route.
#[derive(Debug, Default)]
pub struct TunnelCounts {
    pub opened: Tally,
    pub closed: Tally,
    /// Bytes from clients, and bytes to them.
    pub up: Tally,
    pub down: Tally,
}

impl TunnelCounts {
    /// Tunnels that are open now.
    pub fn open(counts: &PerWorker<RouteCounts>) -> u64 {
        // A tunnel that is closed while this is read was open when it was opened.
        let closed = counts.sum(|part| &part.tunnels.closed);
        counts.sum(|part| &part.tunnels.opened).saturating_sub(closed)
    }
}

impl RouteCounts {
    /// Notes a request that is over. Bytes are those of the bodies.
    pub fn answered(&self, status: StatusCode, bytes: Bytes, duration: Duration, is_complete: bool) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].add(1);
        self.cut.add(u64::from(!is_complete));
        self.request_bytes.add(bytes.of_request);
        self.response_bytes.add(bytes.of_response);
        self.durations.observe(duration);
    }
}

/// The sizes of a request's body and its response's, as far as they have passed.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    pub of_request: u64,
    pub of_response: u64,
}

/// What is counted at one listener.
#[derive(Debug)]
pub struct ListenerCounts {
    /// Connections that were accepted.
    pub accepted: Tally,
    /// Connections that were turned away since there were too many.
    pub refused: Tally,
    /// By limit: how often somebody has come up against it.
    reached: [Tally; Limit::ALL.len()],
    /// TLS handshakes by version, full ones and resumed ones.
    handshakes: [[Tally; KINDS.len()]; VERSIONS.len()],
    /// TLS handshakes that led to nothing, by the reason.
    failed_handshakes: [Tally; FailedHandshake::ALL.len()],
    /// Connections that did not begin with the PROXY header they should, by the reason.
    refused_headers: [Tally; RefusedHeader::ALL.len()],
    /// Requests that came over its connections.
    pub requests: Tally,
    /// By status, from 400 on.
    refusals: [Tally; 200],
    /// Connections of HTTP/2 that the proxy ended for an error, by its code.
    goaways: [Tally; CODES.len()],
    /// Streams of HTTP/2 that the proxy reset, by the code.
    resets: [Tally; CODES.len()],
}

/// What a client can come up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Connections,
    ListenerConnections,
    ConnectionsPerAddress,
    RequestLine,
    Headers,
    HeaderCount,
    Body,
    Streams,
    HandshakeTime,
    HeaderTime,
    BodyTime,
    WriteTime,
    BodyRate,
    WriteRate,
    ControlFrames,
    FileDescriptors,
}

impl Limit {
    pub const ALL: [Self; 16] = [
        Self::Connections,
        Self::ListenerConnections,
        Self::ConnectionsPerAddress,
        Self::RequestLine,
        Self::Headers,
        Self::HeaderCount,
        Self::Body,
        Self::Streams,
        Self::HandshakeTime,
        Self::HeaderTime,
        Self::BodyTime,
        Self::WriteTime,
        Self::BodyRate,
        Self::WriteRate,
        Self::ControlFrames,
        Self::FileDescriptors,
    ];

    /// The key that sets it, where there is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::ListenerConnections => "listeners.limits.connections",
            Self::ConnectionsPerAddress => "listeners.limits.connections-per-address",
            Self::RequestLine => "listeners.limits.request-line",
            Self::Headers => "listeners.limits.headers",
            Self::HeaderCount => "listeners.limits.header-count",
            Self::Body => "listeners.limits.body",
            Self::Streams => "listeners.limits.streams",
            Self::HandshakeTime => "listeners.timeouts.handshake",
            Self::HeaderTime => "listeners.timeouts.header",
            Self::BodyTime => "listeners.timeouts.body",
            Self::WriteTime => "listeners.timeouts.write",
            Self::BodyRate => "listeners.min-rates.body",
            Self::WriteRate => "listeners.min-rates.write",
            Self::ControlFrames => "control-frames",
            Self::FileDescriptors => "file-descriptors",
        }
    }
}

/// The versions of TLS, as [`ListenerCounts::shook_hands`] is told of them.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// What a handshake can be.
const KINDS: [&str; 2] = ["full", "resumed"];

/// Why a TLS handshake led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedHandshake {
    /// The client left before it said anything.
    Silent,
    /// It speaks HTTP in clear.
    Clear,
    /// It came to no end in time.
    Late,
    /// The two did not agree, or one broke off.
    Broken,
}

impl FailedHandshake {
    pub const ALL: [Self; 4] = [Self::Silent, Self::Clear, Self::Late, Self::Broken];

    const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Clear => "clear",
            Self::Late => "late",
            Self::Broken => "broken",
        }
    }
}

/// Why a connection that should begin with a PROXY header was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedHeader {
    /// Whoever connects is not trusted to say who its clients are.
    Untrusted,
    /// The connection ended before anything came.
    Silent,
    /// What came is no header.
    Absent,
    Malformed,
    TooLong,
    /// It came to no end in time.
    Late,
}

impl RefusedHeader {
    pub const ALL: [Self; 6] =
        [Self::Untrusted, Self::Silent, Self::Absent, Self::Malformed, Self::TooLong, Self::Late];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Silent => "silent",
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::Late => "late",
        }
    }
}

/// The errors of HTTP/2 by their codes (RFC 9113, section 7).
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

impl Default for ListenerCounts {
    fn default() -> Self {
        Self {
            accepted: Tally::new(),
            refused: Tally::new(),
            reached: [const { Tally::new() }; Limit::ALL.len()],
            handshakes: [const { [const { Tally::new() }; KINDS.len()] }; VERSIONS.len()],
            failed_handshakes: [const { Tally::new() }; FailedHandshake::ALL.len()],
            refused_headers: [const { Tally::new() }; RefusedHeader::ALL.len()],
            requests: Tally::new(),
            refusals: [const { Tally::new() }; 200],
            goaways: [const { Tally::new() }; CODES.len()],
            resets: [const { Tally::new() }; CODES.len()],
        }
    }
}

impl ListenerCounts {
    const FIRST: u16 = 400;

    /// Notes an answer of the proxy's own, to what it refused or could not have answered.
    pub fn refused_with(&self, status: StatusCode) {
        if let Some(tally) = self.refusals.get(usize::from(status.as_u16().saturating_sub(Self::FIRST))) {
            tally.add(1);
        }
    }

    /// Notes that a client has come up against a limit.
    pub fn reached(&self, limit: Limit) {
        self.reached[limit as usize].add(1);
    }

    /// Notes a TLS handshake that has ended well. `version` is `1.2` or `1.3`.
    pub fn shook_hands(&self, version: &str, is_resumed: bool) {
        if let Some(index) = VERSIONS.iter().position(|known| *known == version) {
            self.handshakes[index][usize::from(is_resumed)].add(1);
        }
    }

    /// Notes a TLS handshake that has not.
    pub fn did_not_shake_hands(&self, why: FailedHandshake) {
        self.failed_handshakes[why as usize].add(1);
    }

    /// Notes a connection that was closed for want of a PROXY header that counts.
    pub fn refused_header(&self, why: RefusedHeader) {
        self.refused_headers[why as usize].add(1);
    }

    /// Notes a connection of HTTP/2 that is ended with this error. That it is over is none.
    pub fn ended_with(&self, code: u32) {
        if let Some(tally) = self.goaways.get(code as usize).filter(|_| code > 0) {
            tally.add(1);
        }
    }

    /// Notes a stream of HTTP/2 that is reset with this error.
    pub fn reset_with(&self, code: u32) {
        if let Some(tally) = self.resets.get(code as usize) {
            tally.add(1);
        }
    }

    /// What all workers have refused, by status.
    pub fn refusals(counts: &PerWorker<Self>) -> impl Iterator<Item = (u16, u64)> {
        (0..200_u16)
            .map(|index| (Self::FIRST + index, counts.sum(|part| &part.refusals[usize::from(index)])))
            .filter(|(_, count)| *count > 0)
    }
}

/// A route by its name, empty for requests that no route wanted.
pub type Counted<'a, T> = (&'a str, &'a PerWorker<T>);

/// Writes the families of routes.
pub fn write_routes(page: &mut Page, routes: &[Counted<'_, RouteCounts>]) {
    /// From 64 µs to 134 s.
    const OCTAVES: std::ops::Range<usize> = 9..31;
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    page.counter("tollgate_requests_total", "Requests that were answered.", |family| {
        for (route, counts) in routes {
            for (index, class) in CLASSES.iter().enumerate() {
                let count = counts.sum(|part| &part.responses[index]);
                family.row(&[("route", route), ("status", class)], count);
            }
        }
    });
    let mut each = |name, help, count: fn(&RouteCounts) -> &Tally| {
        page.counter(name, help, |family| {
            for (route, counts) in routes {
                family.row(&[("route", route)], counts.sum(count));
            }
        });
    };
    each("tollgate_responses_cut_total", "Responses that broke off before their end.", |part| &part.cut);
    each("tollgate_request_body_bytes_total", "Bytes of bodies that went to upstreams.", |part| {
        &part.request_bytes
    });
    each("tollgate_response_body_bytes_total", "Bytes of bodies that went to clients.", |part| {
        &part.response_bytes
    });
    each("tollgate_tunnels_total", "Tunnels that were opened, for WebSocket and the like.", |part| {
        &part.tunnels.opened
    });
    page.gauge("tollgate_tunnels_open", "Tunnels that are open.", |family| {
        for (route, counts) in routes {
            family.row(&[("route", route)], TunnelCounts::open(counts));
        }
    });
    page.counter("tollgate_tunnel_bytes_total", "Bytes that went through tunnels.", |family| {
        for (route, counts) in routes {
            family.row(&[("route", route), ("from", "client")], counts.sum(|part| &part.tunnels.up));
            family.row(&[("route", route), ("from", "upstream")], counts.sum(|part| &part.tunnels.down));
        }
    });
    let help = "From the head of a request to the last byte of its response.";
    page.histogram("tollgate_request_duration_seconds", help, |family| {
        for (route, counts) in routes {
            let durations = Distribution::of(counts.parts().map(|part| &part.durations));
            family.distribution(&[("route", route)], &durations, OCTAVES);
        }
    });
}

/// A listener by its address, with its open connections.
#[derive(Debug, Clone)]
pub struct ListenerTraffic {
    pub address: String,
    pub open: usize,
    pub counts: Arc<PerWorker<ListenerCounts>>,
}

/// Writes the families of listeners.
pub fn write_listeners(page: &mut Page, listeners: &[ListenerTraffic]) {
    page.gauge("tollgate_connections_open", "Connections of clients.", |family| {
        for listener in listeners {
            family.row(&[("listener", &listener.address)], listener.open);
        }
    });
    let mut each = |name, help, count: fn(&ListenerCounts) -> &Tally| {
        page.counter(name, help, |family| {
            for listener in listeners {
                family.row(&[("listener", &listener.address)], listener.counts.sum(count));
            }
        });
    };
    each("tollgate_connections_accepted_total", "Connections that were accepted.", |part| &part.accepted);
    each("tollgate_connections_refused_total", "Connections turned away, as there were too many.", |part| {
        &part.refused
    });
    each("tollgate_listener_requests_total", "Requests that were answered, by listener.", |part| {
        &part.requests
    });
    let help = "Answers of the proxy's own, to what it refused or could not have answered.";
    page.counter("tollgate_refusals_total", help, |family| {
        for listener in listeners {
            for (status, count) in ListenerCounts::refusals(&listener.counts) {
                family.row(&[("listener", &listener.address), ("status", &status.to_string())], count);
            }
        }
    });
    let help = "Times that a client came up against a limit, by the key that sets it.";
    page.counter("tollgate_limits_reached_total", help, |family| {
        for listener in listeners {
            for limit in Limit::ALL {
                let count = listener.counts.sum(|part| &part.reached[limit as usize]);
                if count > 0 {
                    family.row(&[("listener", &listener.address), ("limit", limit.name())], count);
                }
            }
        }
    });
    page.counter("tollgate_tls_handshakes_total", "TLS handshakes that ended well.", |family| {
        for listener in listeners {
            for (version, name) in VERSIONS.iter().enumerate() {
                for (kind, word) in KINDS.iter().enumerate() {
                    let count = listener.counts.sum(|part| &part.handshakes[version][kind]);
                    if count > 0 {
                        let labels = [("listener", &*listener.address), ("version", name), ("kind", word)];
                        family.row(&labels, count);
                    }
                }
            }
        }
    });
    let help = "TLS handshakes that led to nothing, by the reason.";
    page.counter("tollgate_tls_handshakes_failed_total", help, |family| {
        for listener in listeners {
            for why in FailedHandshake::ALL {
                let count = listener.counts.sum(|part| &part.failed_handshakes[why as usize]);
                if count > 0 {
                    family.row(&[("listener", &listener.address), ("reason", why.name())], count);
                }
            }
        }
    });
    let help = "Connections that were closed for want of a PROXY header that counts, by the reason.";
    page.counter("tollgate_proxy_headers_refused_total", help, |family| {
        for listener in listeners {
            for why in RefusedHeader::ALL {
                let count = listener.counts.sum(|part| &part.refused_headers[why as usize]);
                if count > 0 {
                    family.row(&[("listener", &listener.address), ("reason", why.name())], count);
                }
            }
        }
    });
    let mut each = |name, help, count: fn(&ListenerCounts) -> &[Tally; CODES.len()]| {
        page.counter(name, help, |family| {
            for listener in listeners {
                for (index, code) in CODES.iter().enumerate() {
                    let count = listener.counts.sum(|part| &count(part)[index]);
                    if count > 0 {
                        family.row(&[("listener", &listener.address), ("code", code)], count);
                    }
                }
            }
        });
    };
    let help = "Connections of HTTP/2 that were ended for an error, by its code.";
    each("tollgate_http2_goaways_total", help, |part| &part.goaways);
    each("tollgate_http2_resets_total", "Streams of HTTP/2 that the proxy reset, by the code.", |part| {
        &part.resets
    });
}

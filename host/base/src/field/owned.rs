//! Which header fields does the proxy write, and no plugin?
//!
//! The SDK of plugins compiles this file as well, so that a plugin refuses in `configure` what the host would refuse it
//! at each request.

/// Fields that belong to one connection, or say where a message ends (RFC 9110, section 7.6.1; RFC 9112, section 6).
pub const OF_A_CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of a request that the proxy alone writes: those of its connection, and who the client is.
pub const OF_THE_PROXY: [&str; 18] = [
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

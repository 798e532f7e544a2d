//! Has the request come by the right door?
//!
//! By TLS where that is asked for, and by a connection that was opened for its host.

use bytes::Bytes;
use http::{HeaderValue, Response, header, request};

use super::{connection::Connection, headers::Prepared, malformed::BadRequest};
use crate::authority;

/// The way to TLS, for a request that has come in clear to a listener that wants it otherwise. `request` is
/// prepared.
///
/// It is an error if there is no host (in HTTP/1.0, or an empty one): without, the path would be taken for it, and to be
/// served in clear is not what the listener is for.
pub(super) fn redirect(
    connection: &Connection,
    request: &request::Parts,
    prepared: &Prepared,
) -> Result<Option<Response<Bytes>>, BadRequest> {
    let wanted = connection.listener.redirect_to_https.as_ref().filter(|_| !prepared.came.by_tls());
    let Some(redirect) = wanted.map(toml::Spanned::get_ref) else { return Ok(None) };
    let host = prepared.came.host.as_ref().or_else(|| request.headers.get(header::HOST));
    let host = host.map(authority::host_name).filter(|host| !host.is_empty()).ok_or(BadRequest::Host)?;
    let port = match redirect.port.get() {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target == "*" { "/" } else { target };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = redirect.status;
    let location = HeaderValue::try_from(format!("https://{host}{port}{target}"));
    response.headers_mut().insert(header::LOCATION, location.map_err(|_| BadRequest::Target)?);
    Ok(Some(response))
}

/// Whether the request is for a host that its connection is good for (RFC 9110, section 15.5.20). A trusted proxy
/// brings requests for all hosts over whatever connection it has.
pub(super) fn is_authority_served(connection: &Connection, request: &request::Parts) -> bool {
    let Some(session) = connection.tls.as_ref().filter(|_| !connection.peer.is_trusted()) else {
        return true;
    };
    let host = request.headers.get(header::HOST).map(authority::host_name);
    host.is_none_or(|host| host.is_empty() || session.is_for(&host))
}

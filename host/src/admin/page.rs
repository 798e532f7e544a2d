//! `/`: what does it look like to a person?

use std::sync::Arc;

use axum::{
    extract::State,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::server::Server;

/// The page. Whatever it shows, it asks the API for.
const PAGE: &str = include_str!("page.html");

/// Stands in the page for a number that is used once.
const NONCE: &str = "{nonce}";

/// Stands in the page for whether the API wants a token.
const TOKEN: &str = "{token}";

pub(super) async fn show(State(server): State<Arc<Server>>) -> Response {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no random numbers").into_response();
    }
    let nonce: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let needs_token = server.admin().is_some_and(|admin| admin.config.token.is_some());
    let page = PAGE.replace(NONCE, &nonce).replace(TOKEN, if needs_token { "needed" } else { "none" });
    let mut response = Html(page).into_response();
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value).expect("these values are visible ASCII");
        headers.insert(name, value);
    };
    set(header::CONTENT_SECURITY_POLICY, &policy);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::CACHE_CONTROL, "no-store");
    response
}

//! The guests, which do as they are told.

static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.wasm"));

static GRANTED_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/granted-guest.wasm"));

static WAITING_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/waiting-guest.wasm"));

static TOLD_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/told-guest.wasm"));

static BLOCK_AGENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/example-block-agents.wasm"));

/// The plugin of the example `block-agents`.
pub fn block_agents() -> Vec<u8> {
    BLOCK_AGENTS.to_vec()
}

static PRIVACY_ROUTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/example-privacy-router.wasm"));

/// The plugin of the example `privacy-routing`.
pub fn privacy_router() -> Vec<u8> {
    PRIVACY_ROUTER.to_vec()
}

static PRIVACY_BODY_ROUTER: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/example-privacy-body-router.wasm"));

/// The one that reads bodies.
pub fn privacy_body_router() -> Vec<u8> {
    PRIVACY_BODY_ROUTER.to_vec()
}

/// The component.
pub fn guest() -> Vec<u8> {
    GUEST.to_vec()
}

/// Another, which uses the store and secrets.
pub fn granted_guest() -> Vec<u8> {
    GRANTED_GUEST.to_vec()
}

/// One that sends requests and reads bodies.
pub fn waiting_guest() -> Vec<u8> {
    WAITING_GUEST.to_vec()
}

/// One that is told of requests that have ended.
pub fn told_guest() -> Vec<u8> {
    TOLD_GUEST.to_vec()
}

/// The first with another version in its bytes: another component, which says `guest-version-<number>`.
pub fn guest_version(number: u32) -> Vec<u8> {
    assert!(number < 10_000, "versions have four digits");
    let mut component = guest();
    let marker = b"guest-version-0000";
    let places: Vec<usize> =
        (0..component.len() - marker.len()).filter(|place| component[*place..].starts_with(marker)).collect();
    assert!(!places.is_empty(), "the marker is in the component");
    for place in places {
        component[place..place + marker.len()]
            .copy_from_slice(format!("guest-version-{number:04}").as_bytes());
    }
    component
}

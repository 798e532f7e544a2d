//! A client stays with the endpoint that it had first, as long as that is there.

use tollgate_tests::{Config, Origin, Proxy, Response};

/// One route to these and the client's cookie kept.
fn config(origins: &[&Origin]) -> String {
    let config = Config::to(origins).upstream("balance = ['sticky', 'round-robin']");
    config.plugin("sticky", "grants.secrets.sticky.file = 'key'").toml()
}

async fn start(origins: &[&Origin]) -> Proxy {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("key"), "not-so-secret\n").expect("a file can be written");
    Proxy::try_start_in(folder, &config(origins), &[]).await.expect("the proxy starts")
}

async fn ask(proxy: &Proxy, cookie: &str) -> Response {
    proxy.get("/", &[&format!("cookie: {cookie}")]).await
}

/// The cookie that a response sets, as a client sends it back.
fn cookie(response: &Response) -> Option<String> {
    let set = response.header("set-cookie")?;
    assert!(set.contains("; HttpOnly; SameSite=Lax"), "{set}");
    set.split(';').next().map(str::to_owned)
}

#[tokio::test]
async fn a_client_with_a_cookie_stays_and_others_take_turns() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let all: Vec<&Origin> = origins.iter().collect();
    let proxy = start(&all).await;
    let first = proxy.get("/", &[]).await;
    let own = cookie(&first).expect("the first response sets a cookie");
    assert!(!own.contains(first.text()), "it does not tell the address");
    for _ in 0..10 {
        let again = ask(&proxy, &format!("a=b; {own}")).await;
        assert_eq!((again.text(), cookie(&again)), (first.text(), None));
    }
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(proxy.get("/", &[]).await.text().to_owned());
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 3, "who has no cookie gets one endpoint after the other");
    let forged = ask(&proxy, "tollgate-endpoint=AAAAAAAAAAAAAAAAAAAAAA").await;
    assert!(cookie(&forged).is_some(), "what was made up is no cookie");
}

#[tokio::test]
async fn a_client_whose_endpoint_has_gone_is_pinned_anew() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let proxy = start(&[&one, &other]).await;
    let first = proxy.get("/", &[]).await;
    let own = cookie(&first).expect("the first response sets a cookie");
    let (gone, left) = if first.text() == one.port() { (one, other) } else { (other, one) };
    let address = gone.address;
    drop(gone);
    let second = ask(&proxy, &own).await;
    assert_eq!((second.status, second.text()), (200, &*left.port()), "a request is sent again to the other");
    let next = cookie(&second).expect("which pins the client");
    assert_ne!(next, own);

    // The cookie is the same for the same endpoints, whoever signs.
    let again = start(&[&left]).await;
    let third = ask(&again, &next).await;
    assert_eq!((third.text(), cookie(&third)), (&*left.port(), None));
    assert!(!next.contains(&address.to_string()));
}

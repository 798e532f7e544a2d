//! What plugins can do, and what is out of their reach.

use tollgate_tests::{Origin, Proxy, endpoints, guest, logged};

/// The upstream `app`, and a route to it through these plugins.
fn app(origins: &[&Origin], plugins: &[&str]) -> String {
    let endpoints = endpoints(origins);
    format!(
        "[upstreams.app]\nendpoints = {endpoints}\n[[routes]]\nupstream = \"app\"\nplugins = {plugins:?}\n"
    )
}

#[tokio::test]
async fn a_plugin_that_reaches_for_a_socket_fails() {
    let origin = Origin::start().await;
    let config = app(&[&origin], &["caller"])
        + "[plugins.caller]\nfile = \"guest\"\nconfig = { request = \"obey\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    assert_eq!(proxy.get("/", &["x-do: socket"]).await.status, 503);
    assert_eq!(logged(&["the plugin `caller` trapped", "wasi:sockets/", "is not for plugins"]).len(), 1);
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

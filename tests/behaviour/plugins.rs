//! What plugins can do, and what is out of their reach.

use serde_json::{Value, json};
use tollgate_tests::{Origin, Proxy, endpoints, guest, logged};

/// The upstream `app`, and a route to it through these plugins.
fn app(origins: &[&Origin], plugins: &[&str]) -> String {
    let endpoints = endpoints(origins);
    format!(
        "[upstreams.app]\nendpoints = {endpoints}\n[[routes]]\nupstream = \"app\"\nplugins = {plugins:?}\n"
    )
}

/// A proxy in front of this origin, whose plugin `guest` has this table.
async fn with_guest(origin: &Origin, table: &str) -> Proxy {
    let config = format!("{}[plugins.guest]\n{table}\n", app(&[origin], &["guest"]));
    Proxy::start_with(&config, &[("guest", guest())]).await
}

#[tokio::test]
async fn a_line_of_a_plugin_names_the_plugin_and_the_request() {
    let origin = Origin::start().await;
    let config = app(&[&origin], &["talker"])
        + "[plugins.talker]\nfile = \"guest\"\nconfig = { request = \"obey\", says = \"a talker\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    proxy.get("/", &["x-do: log"]).await;
    let id = origin.last().header("x-request-id").expect("requests have an id").to_owned();
    let line = logged(&["a talker was here"]).pop().expect("the line is there");
    let line: Value = serde_json::from_str(&line).expect("lines are JSON");
    assert_eq!((&line["plugin"], &line["request"]), (&json!("talker"), &json!(id)));
    assert_eq!((&line["level"], &line["message"]), (&json!("WARN"), &json!("a talker was here")));

    proxy.get("/", &["x-do: print"]).await;
    assert_eq!(logged(&["\"a talker printed\"", "\"plugin\":\"talker\""]).len(), 1);
    assert_eq!(logged(&["\"a talker complained\"", "\"plugin\":\"talker\""]).len(), 1);
}

#[tokio::test]
async fn a_plugin_cannot_fill_the_log() {
    let origin = Origin::start().await;
    let proxy = with_guest(&origin, "limits = { time = \"10s\" }\nconfig = { request = \"obey\" }").await;
    for flood in ["log-flood", "print-flood"] {
        let says = format!("of {flood}");
        let response = proxy.get("/", &[&format!("x-do: {flood}"), &format!("x-says: {says}")]).await;
        assert_eq!(response.status, 200, "{flood}");
        assert_eq!(logged(&["flood ", &says]).len(), 64, "{flood}");
    }
    assert!(!logged(&["the plugin logs too much"]).is_empty());
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

//! A request reaches an upstream, and its response the client.

use tollgate_tests::{Answer, Origin, Proxy};

/// One route to these origins, and no plugin.
fn to(origins: &[&Origin]) -> String {
    let endpoints: Vec<_> = origins.iter().map(|origin| format!("{:?}", origin.url())).collect();
    format!("[upstreams.app]\nendpoints = [{}]\n[[routes]]\nupstream = \"app\"\n", endpoints.join(", "))
}

#[tokio::test]
async fn a_request_is_forwarded_and_its_response_returned() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-Origin: yes\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nhello")
    })
    .await;
    let proxy = Proxy::start(&to(&[&origin])).await;
    let response = proxy.get("/a/b?c=d", &["X-Client: yes", "Connection: x-private", "X-Private: 1"]).await;

    assert_eq!((response.status, response.text()), (201, "hello"));
    assert_eq!(response.header("x-origin"), Some("yes"));
    assert_eq!(response.header("x-hop"), None);
    assert_eq!(response.header("x-backend-server"), Some(origin.address.to_string().as_str()));
    let received = origin.last();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("GET", "/a/b?c=d"));
    assert_eq!(received.header("x-client"), Some("yes"));
    assert_eq!(received.header("x-private"), None);
    assert_eq!(received.header("host"), Some("test"));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some("test"));
    assert_eq!(received.header("via"), Some("1.1 tollgate"));
    assert_eq!(received.header("x-request-id").map(str::len), Some(32));
}

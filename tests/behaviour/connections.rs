//! Connections end at any time, on either side, and requests do not suffer from it more than they must.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tollgate_tests::{Answer, Authority, BareOrigin, Client, Origin, Proxy, Secure, Then, route_to, soon};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";

/// Has no request sent again, but for a connection that turns out to be closed; and no body kept for it.
const ONCE: &str = "[upstreams.app.retry]\nattempts = 0\n";

/// Says nothing, and closes the connection.
fn nothing() -> Answer {
    Answer { pieces: Vec::new(), then: Then::Close }
}

/// With these time-outs towards the upstream.
fn route_with(timeouts: &str, endpoint: &str) -> String {
    format!("{}[upstreams.app.timeouts]\n{timeouts}\n", route_to(&[endpoint]))
}

/// An address where nobody listens.
async fn nobody() -> String {
    let origin = Origin::start().await;
    origin.url()
}

#[tokio::test]
async fn a_connection_that_ended_while_it_was_idle_costs_no_request() {
    let origin = Origin::answering(|_| Answer::ok("fine").close()).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for request in [GET, POST, GET, POST] {
        client.send(request).await;
        assert_eq!(client.response().await.text(), "fine");
        origin.has_open(0).await;
    }
    assert_eq!((origin.connections(), origin.received().len()), (4, 4));
}

#[tokio::test]
async fn an_upload_that_meets_the_end_of_an_idle_connection_is_sent_again() {
    let origin = BareOrigin::start().await;
    let config = format!("workers = 1\n{}", route_to(&[&origin.url()]));
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    const HEAD: &str = "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n";
    // The upstream closes when it has got this of a request that ends with that.
    for (got, rest) in [("first", "later"), ("firstlater", ""), ("", "firstlater")] {
        client.send(GET).await;
        let mut idle = origin.accept().await;
        idle.read_until("\r\n\r\n").await;
        idle.send(&Answer::ok("fine").pieces[0]).await;
        assert_eq!(client.response().await.text(), "fine");
        client.send(format!("{HEAD}{got}")).await;
        idle.read_until(&format!("\r\n\r\n{got}")).await;
        drop(idle);
        let mut fresh = origin.accept().await;
        client.send(rest).await;
        fresh.read_until("\r\n\r\nfirstlater").await;
        fresh.send("HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.response().await.status, 201, "{got:?}");
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_the_upstream_says_so() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine").hang()
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for count in 1..=3 {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "fine");
        assert_eq!(origin.connections(), count);
    }
}

/// Answers the first request, and is silent on the second one of a connection.
async fn silent_on_the_second() -> Origin {
    Origin::answering(|received| match received.number {
        1 => nothing(),
        _ => Answer::ok("fine"),
    })
    .await
}

#[tokio::test]
async fn a_request_that_does_no_harm_twice_is_sent_again_when_its_connection_ends() {
    for request in [GET, "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"] {
        let origin = silent_on_the_second().await;
        let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
        let mut client = proxy.connect().await;
        for _ in 0..2 {
            client.send(request).await;
            assert_eq!(client.response().await.text(), "fine", "{request:?}");
        }
        let connections: Vec<_> = origin.received().iter().map(|received| received.connection).collect();
        assert_eq!(connections, [0, 0, 1], "{request:?}");
        assert_eq!(origin.received()[1].headers, origin.received()[2].headers, "it is the same request");
    }
}

#[tokio::test]
async fn a_request_that_may_do_harm_twice_is_not_sent_again() {
    for request in [
        POST,
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: test\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let origin = silent_on_the_second().await;
        let proxy = Proxy::start(&(route_to(&[&origin.url()]) + ONCE)).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "fine");
        client.send(request).await;
        assert_eq!(client.response().await.status, 502, "{request:?}");
        assert_eq!(origin.received().len(), 2, "{request:?}");
    }
}

#[tokio::test]
async fn a_request_that_was_read_is_not_sent_again_where_no_further_attempts_are_wanted() {
    let origin = Origin::answering(|received| match received.number {
        0 => Answer::ok("fine"),
        _ => nothing(),
    })
    .await;
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + ONCE)).await;
    let mut client = proxy.connect().await;
    client.send([GET, GET].concat()).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 502);
    assert_eq!(origin.received().len(), 2);
    client.send(GET).await;
    assert_eq!(client.response().await.status, 502, "the client's connection goes on");
}

#[tokio::test]
async fn an_upstream_that_hangs_up_at_once_is_a_bad_gateway() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + ONCE)).await;
    for request in [GET, POST] {
        let (response, ()) = tokio::join!(proxy.request(request), async { drop(origin.accept().await) });
        assert_eq!(response.status, 502);
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_up_is_passed_over_where_that_can_do_no_harm() {
    let origin = Origin::start().await;
    let closing = Origin::answering(|_| nothing()).await;
    let config = route_to(&[&closing.url(), &origin.url()]);
    let proxy = Proxy::start(&format!("{config}[upstreams.app.outlier]\nconsecutive-failures = 0\n")).await;
    for count in 0.. {
        assert_eq!(proxy.request(GET).await.text(), origin.port());
        if count > 10 && closing.received().len() > 2 {
            break;
        }
    }
    let of = |origin: &Origin| origin.received()[0].headers.len();
    assert_eq!(of(&closing), of(&origin), "it is the same request");
    let before = closing.received().len();
    while closing.received().len() == before {
        let status = proxy.request(POST).await.status;
        assert_eq!(status == 502, closing.received().len() > before, "{status}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&nobody().await, &origin.url()])).await;
    for _ in 0..10 {
        for request in [GET, POST] {
            assert_eq!(proxy.request(request).await.text(), origin.port());
        }
    }
    assert_eq!(origin.received().len(), 20);
}

#[tokio::test]
async fn when_all_endpoints_refuse_it_is_a_bad_gateway() {
    let proxy = Proxy::start(&route_to(&[&nobody().await, &nobody().await])).await;
    let mut client = proxy.connect().await;
    for request in [GET, POST, GET] {
        client.send(request).await;
        let response = client.response().await;
        assert_eq!(response.status, 502);
        assert_eq!(response.json()["status"], 502);
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_given_up() {
    let origin = Origin::answering(|_| nothing().hang()).await;
    let proxy = Proxy::start(&route_with("response = \"200ms\"", &origin.url())).await;
    for request in [GET, POST] {
        assert_eq!(proxy.request(request).await.status, 504);
        origin.has_open(0).await;
    }
    assert_eq!(origin.received().len(), 2, "it is not sent again");
}

#[tokio::test]
async fn the_time_to_answer_begins_when_the_request_has_been_sent() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_with("response = \"300ms\"", &origin.url())).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n").await;
    // Longer in all than the time-out, never longer in between.
    client.send_slowly(b"12345678", Duration::from_millis(60)).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_response_that_comes_to_a_standstill_is_cut_off() {
    for head in ["Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Content-Length: 10\r\n\r\nabc"] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}");
        let origin = Origin::answering(move |_| Answer::raw(&*head).hang()).await;
        let proxy = Proxy::start(&route_with("body = \"200ms\"", &origin.url())).await;
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.status, response.text(), response.is_complete), (200, "abc", false));
        origin.has_open(0).await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_never_looks_finished() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for (rest, version) in [
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "1.1"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "1.1"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "1.1"),
        ("Content-Length: 5\r\n\r\nabc", "1.1"),
        ("Content-Length: 5\r\n\r\nabc", "1.0"),
    ] {
        let mut client = proxy.connect().await;
        client.send(format!("GET / HTTP/{version}\r\nHost: test\r\n\r\n")).await;
        let mut upstream = origin.accept().await;
        upstream.read_until("\r\n\r\n").await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{rest}")).await;
        client.read_until("\r\n\r\n").await;
        let mut body = client.read_until("abc").await;
        drop(upstream);
        body += &String::from_utf8(client.read_to_end().await).unwrap();
        assert!(!body.ends_with("0\r\n\r\n"), "{rest:?}: {body:?}");
    }
}

#[tokio::test]
async fn a_chunked_response_with_a_length_leaves_no_room_for_a_second_opinion() {
    let origin = Origin::answering(|_| {
        let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        Answer::raw(format!("HTTP/1.1 200 OK\r\n{both}"))
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for count in 1..=3 {
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!((response.text(), response.header("content-length")), ("hello", None));
        assert_eq!(origin.connections(), count, "whoever sends this is not listened to any further");
    }
}

#[tokio::test]
async fn a_response_with_a_length_that_is_not_one_number_is_a_bad_gateway() {
    for lengths in ["5\r\nContent-Length: 5", "5, 5", "5, 6", "5\r\nContent-Length: 6", "+5", "0x5", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n");
        let origin = Origin::answering(move |received| match received.method.as_str() {
            "HEAD" => Answer::raw(&*answer),
            _ => Answer::raw(format!("{answer}hello")),
        })
        .await;
        let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        assert_eq!(client.response().await.status, 502, "{lengths:?}");
        client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.any_response(true).await.unwrap().status, 502, "{lengths:?}");
    }
}

#[tokio::test]
async fn a_response_that_is_none_is_a_bad_gateway() {
    let answer = Arc::new(Mutex::new(""));
    let said = answer.clone();
    let origin = Origin::answering(move |_| Answer::raw(*said.lock().unwrap()).close()).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for bad in [
        "hello\r\n\r\n",
        "\0\0\0\x0c\x04\0\0\0\0\0\0\0\0\0\0",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X-A: folded into nothing\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        *answer.lock().unwrap() = bad;
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!((response.status, response.json()["status"].as_u64()), (502, Some(502)), "{bad:?}");
        assert_eq!(response.header("x-a"), None, "{bad:?}");
    }
    assert_eq!(origin.connections(), origin.received().len(), "none of the connections is used again");
}

#[tokio::test]
async fn what_an_upstream_says_unasked_answers_no_request() {
    let number = AtomicUsize::new(0);
    let origin = Origin::answering(move |received| {
        let more = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        let head = match number.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            1 => "HTTP/1.1 204 No Content\r\n\r\n",
            _ => "HTTP/1.1 304 Not Modified\r\n\r\n",
        };
        Answer::raw(format!("HTTP/1.1 103 Early Hints\r\nX-For: {}\r\n\r\n{head}{more}", received.target))
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for number in 0..30 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let hint = client.any_response(false).await.unwrap();
        assert_eq!(hint.header("x-for"), Some(&*format!("/{number}")));
        assert_eq!(client.any_response(false).await.unwrap().body, b"");
    }
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nhello").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("hello").await;
    upstream.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (413, "no"));
}

#[tokio::test]
async fn a_client_that_is_still_sending_is_not_cut_off_by_a_reset() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 150000\r\n\r\nhello").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("hello").await;
    upstream.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(client.response().await.status, 413);
    drop(upstream);
    assert!(client.is_closed().await);
    for _ in 0..10 {
        assert!(client.send([b'x'; 10_000]).await, "a reset may destroy an answer that is on its way");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_connection_with_it() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;

    let mut waiting = proxy.connect().await;
    waiting.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    drop(waiting);
    // It could be waiting for the answer: that it is not shows when there is one to be written.
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    sends_until_it_is_closed(&mut upstream).await;

    let mut reading = proxy.connect().await;
    reading.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    reading.read_until("hello").await;
    drop(reading);
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    sends_until_it_is_closed(&mut upstream).await;

    let mut sending = proxy.connect().await;
    sending.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("hello\r\n").await;
    drop(sending);
    assert_eq!(upstream.read_to_end().await, b"", "amid the request, which never looks finished");
}

/// Sends pieces of a body until the other end has closed the connection.
async fn sends_until_it_is_closed(upstream: &mut Client) {
    soon("the end of the upstream connection", async {
        while upstream.send("1\r\nx\r\n").await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_sent_all_it_has_to_say_is_answered() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let identity = authority.vouch(&["site.test"]);
    identity.write(folder.path(), "site");
    let origin = BareOrigin::start().await;
    let config = format!(
        "workers = 1\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{{ certificate = \"site.pem\", key = \"site.key\" }}] }}\n{}",
        route_to(&[&origin.url()])
    );
    let proxy = Proxy::try_start_in(folder, &config, &[]).await.unwrap();
    for is_secure in [false, true] {
        for (request, rest) in [
            ("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n", ""),
            ("GET / HTTP/1.0\r\nHost: site.test\r\n\r\n", ""),
            ("POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 3\r\n\r\nabc", "abc"),
            (
                "POST / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "0\r\n\r\n",
            ),
            // Two at once.
            ("GET / HTTP/1.1\r\nHost: site.test\r\n\r\nGET / HTTP/1.1\r\nHost: site.test\r\n\r\n", ""),
        ] {
            let mut client = match is_secure {
                false => proxy.connect().await,
                true => {
                    Secure::believing(&authority).connect(proxy.server().addresses()[1], "site.test").await
                }
            };
            client.send(request).await;
            client.finish().await;
            for _ in 0..request.matches("HTTP/1.").count() {
                let mut upstream = origin.accept().await;
                upstream.read_until("\r\n\r\n").await;
                if !rest.is_empty() {
                    upstream.read_until(rest).await;
                }
                upstream
                    .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello")
                    .await;
                client.read_until("hello").await;
                upstream.send("there").await;
                client.read_until("there").await;
            }
            assert!(client.is_closed().await, "there is nothing more to come: {request:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_its_client_has_not_sent_whole_is_not_answered_behind_its_end() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhello").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("hello").await;
    client.finish().await;
    assert_eq!(upstream.read_to_end().await, b"", "it never looks finished");
}

#[tokio::test]
async fn an_upstream_connection_that_nobody_uses_is_closed_in_time() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_with("idle = \"200ms\"", &origin.url())).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    origin.has_open(1).await;
    origin.has_open(0).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

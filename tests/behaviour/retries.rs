//! A request that was not answered is sent again where that does no harm, and not too often.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tollgate_tests::{Answer, BareOrigin, Config, Origin, Proxy, Then, endpoints, logged, route_to};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
const PUT: &str =
    "PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";

/// One route to an upstream with these settings, which takes no endpoint out.
fn config(endpoints: &str, retry: &str, route: &str) -> Config {
    let upstream =
        format!("balance = 'round-robin'\nretry = {{ {retry} }}\noutlier.consecutive-failures = 0");
    Config::to_list(endpoints).upstream(&upstream).route(route)
}

async fn answering(status: u16) -> Origin {
    Origin::answering(move |_| Answer::raw(format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\nno")))
        .await
}

async fn closing() -> Origin {
    Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Close }).await
}

#[tokio::test]
async fn an_answer_that_is_to_be_sent_again_is_not_passed_on_while_there_is_another() {
    let (failing, fine) = (answering(503).await, Origin::start().await);
    for (route, request, expected) in [
        ("", GET, 200),
        ("", PUT, 200),
        ("", POST, 503),
        ("repeatable = true", POST, 200),
        ("plugins = []", GET, 200),
    ] {
        let config = config(&endpoints(&[&failing, &fine]), "on = [503]", route);
        let proxy = Proxy::start(&config).await;
        let before = failing.received().len();
        let mut client = proxy.connect().await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            client.send(request).await;
            statuses.push(client.response().await.status);
        }
        assert!(failing.received().len() > before + 1, "both were asked");
        assert!(statuses.contains(&expected), "{request:?}: {statuses:?}");
        assert_eq!(statuses.contains(&503), expected == 503, "{request:?}: {statuses:?}");
        let (one, other) = (failing.last(), fine.last());
        assert_eq!((&one.body, &one.raw_body), (&other.body, &other.raw_body), "{request:?}");
        assert_eq!(one.headers.len(), other.headers.len());
    }
    assert!(failing.connections() <= 5 * 4, "{}", failing.connections());
}

#[tokio::test]
async fn an_answer_with_another_status_is_passed_on() {
    let (failing, fine) = (answering(502).await, Origin::start().await);
    let proxy = Proxy::start(&config(&endpoints(&[&failing, &fine]), "on = [503]", "")).await;
    let statuses = [proxy.request(GET).await.status, proxy.request(GET).await.status];
    assert!(statuses.contains(&502) && statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn no_endpoint_is_asked_twice_while_another_is_left() {
    let all = [answering(503).await, answering(503).await, answering(503).await];
    let list = endpoints(&[&all[0], &all[1], &all[2]]);
    let proxy = Proxy::start(&config(&list, "on = [503], attempts = 2", "")).await;
    assert_eq!(proxy.request(GET).await.status, 503, "the last answer is passed on");
    assert_eq!(all.each_ref().map(|origin| origin.received().len()), [1, 1, 1]);
    let proxy = Proxy::start(&config(&list, "on = [503], attempts = 5, backoff = '1ms'", "")).await;
    assert_eq!(proxy.request(GET).await.status, 503);
    assert_eq!(all.each_ref().map(|origin| origin.received().len()), [3, 3, 3]);
}

#[tokio::test]
async fn a_body_is_sent_again_only_if_it_was_kept() {
    let (failing, fine) = (closing().await, Origin::start().await);
    let list = endpoints(&[&failing, &fine]);
    let put = |size: usize| {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        format!("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")
    };
    for (size, expected) in [(500, 200), (600, 502)] {
        let proxy = Proxy::start(&config(&list, "body = '1000B'", "")).await;
        let mut statuses = [0; 2];
        for status in &mut statuses {
            *status = proxy.request(&put(size)).await.status;
        }
        assert!(statuses.contains(&expected) && statuses.contains(&200), "{size}: {statuses:?}");
        assert_eq!(fine.last().body.len(), 2 * size);
    }
}

#[tokio::test]
async fn a_body_that_may_be_sent_again_is_not_held_up() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&config(&format!("[{:?}]", origin.url()), "", "")).await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("first").await;
    drop(upstream);
    let mut upstream = origin.accept().await;
    upstream.read_until("first").await;
    client.send("again").await;
    upstream.read_until("again").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await;
    assert_eq!(client.response().await.text(), "fine");
    client.send(GET).await;
    upstream.read_until("GET / ").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore").await;
    assert_eq!(client.response().await.text(), "more", "the connection is used again");
}

#[tokio::test]
async fn a_hanging_endpoint_is_given_up_for_another_where_that_is_wanted() {
    let hanging = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let fine = Origin::start().await;
    let list = endpoints(&[&hanging, &fine]);
    for (retry, expected) in [("on = [504]", [200, 200]), ("on = [503]", [200, 504])] {
        let config = config(&list, retry, "[upstreams.app.timeouts]\nresponse = '100ms'");
        let proxy = Proxy::start(&config).await;
        let mut statuses = [proxy.request(GET).await.status, proxy.request(GET).await.status];
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{retry}");
    }
}

#[tokio::test]
async fn all_attempts_together_take_no_longer_than_they_may() {
    let hanging = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let proxy = Proxy::start(&config(&endpoints(&[&hanging]), "on = [504], timeout = '100ms'", "")).await;
    assert_eq!(proxy.request(GET).await.status, 504);
    assert_eq!(hanging.received().len(), 1);
    hanging.has_open(0).await;
}

#[tokio::test]
async fn an_endpoint_that_names_a_time_is_asked_again_after_it_or_not_at_all() {
    let busy = Origin::answering(|received| match received.number {
        0 | 2 => Answer::raw("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("fine"),
    })
    .await;
    let list = endpoints(&[&busy]);
    let proxy = Proxy::start(&config(&list, "on = [503], timeout = '30s'", "")).await;
    let asked = std::time::Instant::now();
    assert_eq!(proxy.request(GET).await.text(), "fine");
    assert!(asked.elapsed().as_secs() >= 1, "not before");
    let proxy = Proxy::start(&config(&list, "on = [503], timeout = '500ms'", "")).await;
    let response = proxy.request(GET).await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn a_failing_upstream_gets_a_fifth_more_than_clients_send() {
    const REQUESTS: usize = 400;
    for failing in [answering(503).await, closing().await] {
        let retry = "on = [503], attempts = 10, backoff = '1ms', backoff-max = '1ms'";
        let proxy = Proxy::start(&config(&endpoints(&[&failing]), retry, "")).await;
        let left = Arc::new(AtomicUsize::new(REQUESTS));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (left, mut client) = (left.clone(), proxy.connect().await);
            clients.spawn(async move {
                let take =
                    || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                while take().is_ok() {
                    client.send(GET).await;
                    assert!([502, 503].contains(&client.response().await.status));
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        let received = failing.received().len();
        // Ten are there from the start.
        assert!((REQUESTS + 20..=REQUESTS * 12 / 10 + 10).contains(&received), "{received} of {REQUESTS}");
    }
}

#[tokio::test]
async fn without_a_budget_nothing_is_sent_again() {
    let failing = answering(503).await;
    let proxy = Proxy::start(&config(&endpoints(&[&failing]), "on = [503], budget = 0", "")).await;
    assert_eq!(proxy.request(GET).await.status, 503);
    assert_eq!(failing.received().len(), 1);
}

#[tokio::test]
async fn the_access_log_names_the_endpoint_and_the_attempts_also_of_what_failed() {
    let failing = closing().await;
    let proxy = Proxy::start(&config(&endpoints(&[&failing]), "attempts = 1", "")).await;
    assert_eq!(proxy.request("GET /in-vain HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 502);
    let address = failing.address.to_string();
    tollgate_tests::until("the line", || !logged(&["/in-vain", "\"attempts\":2", &address]).is_empty()).await;
    let fine = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&fine.url()])).await;
    proxy.request("GET /at-once HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let address = fine.address.to_string();
    tollgate_tests::until("the line", || !logged(&["/at-once", "\"attempts\":1", &address]).is_empty()).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_and_never_sent_again() {
    let half =
        Origin::answering(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf").close()).await;
    let other = Origin::start().await;
    let config = config(&endpoints(&[&half, &other]), "on = [502, 504]", "repeatable = true");
    let proxy = Proxy::start(&config).await;
    let mut halves = 0;
    for _ in 0..20 {
        let response = proxy.get("/", &[]).await;
        assert_eq!(response.status, 200);
        if !response.is_complete {
            assert_eq!(response.text(), "half");
            halves += 1;
        }
    }
    assert_eq!((half.received().len(), other.received().len()), (halves, 20 - halves), "each was sent once");
    assert!(halves > 0);
}

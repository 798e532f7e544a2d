//! A response of an HTTP/2 upstream is finished when its stream has said so (RFC 9113, section 8.1). Whatever else ends
//! it, the client sees that it broke off, and it is not stored.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio_rustls::TlsAcceptor;
use tollgate_tests::{
    Answer, Authority, BareOrigin, Config, Origin, Proxy, Stream, Then,
    http2::{self, *},
    route_to,
};

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    Whole,
    /// The head, and not all of the body.
    Cut,
    Refusal,
    /// Not even a head.
    Nothing,
}

use Gets::{Cut, Nothing, Refusal, Whole};

/// What an upstream sends on the stream of a request, and what comes of it.
struct Row {
    name: String,
    frames: Vec<RawFrame>,
    /// Whether it closes the connection then.
    closes: bool,
    gets: Gets,
}

fn head(flags: u8, length: Option<&str>) -> RawFrame {
    let mut fields = vec![(":status", "200"), ("cache-control", "max-age=60")];
    fields.extend(length.map(|length| ("content-length", length)));
    RawFrame::headers(flags, 1, &fields)
}

fn data(flags: u8) -> RawFrame {
    RawFrame::new(DATA, flags, 1, *b"hello")
}

fn trailers() -> RawFrame {
    RawFrame::headers(END_STREAM, 1, &[("x-sum", "1")])
}

fn reset(code: u32) -> RawFrame {
    RawFrame::new(RST_STREAM, 0, 1, code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> RawFrame {
    RawFrame::new(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn rows() -> Vec<Row> {
    let row = |name: &str, gets, closes, frames: &[RawFrame]| Row {
        name: name.into(),
        frames: frames.into(),
        closes,
        gets,
    };
    let mut rows = vec![
        row("END_STREAM", Whole, false, &[head(0, None), data(END_STREAM)]),
        row("END_STREAM with a length", Whole, false, &[head(0, Some("5")), data(END_STREAM)]),
        row("trailers", Whole, false, &[head(0, None), data(0), trailers()]),
        // A server that does not want the rest of the request.
        row("END_STREAM and NO_ERROR", Whole, false, &[head(0, None), data(END_STREAM), reset(0)]),
        row("trailers and NO_ERROR", Whole, false, &[head(0, None), data(0), trailers(), reset(0)]),
        row("END_STREAM and the end", Whole, true, &[head(0, None), data(END_STREAM)]),
        row("no head, and NO_ERROR", Refusal, false, &[reset(0)]),
        row("no head, and the end", Refusal, true, &[]),
        row(
            "an interim head, and NO_ERROR",
            Refusal,
            false,
            &[RawFrame::headers(0, 1, &[(":status", "103")]), reset(0)],
        ),
        row("a head, and NO_ERROR", Cut, false, &[head(0, None), reset(0)]),
        row("less than the length, and NO_ERROR", Cut, false, &[head(0, Some("10")), data(0), reset(0)]),
        row("less than the length, and END_STREAM", Cut, false, &[head(0, Some("10")), data(END_STREAM)]),
        row("more than the length", Cut, false, &[head(0, Some("8")), data(0), data(END_STREAM)]),
        row("the end of the connection", Cut, true, &[head(0, None), data(0)]),
        row("GOAWAY without the stream", Cut, true, &[head(0, None), data(0), go_away(0, 0)]),
        row("GOAWAY with the stream", Cut, true, &[head(0, None), data(0), go_away(1, 0)]),
        row("GOAWAY with an error", Cut, true, &[head(0, None), data(0), go_away(1, 2)]),
        row("GOAWAY, and what follows", Whole, true, &[head(0, None), go_away(1, 0), data(END_STREAM)]),
    ];
    // Section 7, and one that nobody knows.
    for code in 0..=14 {
        rows.push(row(&format!("code {code}"), Cut, false, &[head(0, None), data(0), reset(code)]));
    }
    rows
}

/// Answers each request with the same frames. How many there were.
fn serve(
    origin: BareOrigin,
    tls: Option<TlsAcceptor>,
    frames: Vec<RawFrame>,
    closes: bool,
) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let Ok(stream) = origin.accept_in_any_time().await else { return };
            let (tls, frames, count) = (tls.clone(), frames.clone(), counted.clone());
            tokio::spawn(async move {
                let stream: Box<dyn Stream> = match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                    None => Box::new(stream),
                };
                let mut server = FrameClient::serve(stream, &[]).await;
                while let Some(frame) = server.next_in_any_time().await {
                    if frame.kind != HEADERS {
                        continue;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let of_stream = |answer: &RawFrame| {
                        let mut answer = answer.clone();
                        match answer.kind {
                            GOAWAY if answer.payload[3] == 1 => {
                                answer.payload[..4].copy_from_slice(&frame.stream.to_be_bytes());
                            }
                            GOAWAY => {}
                            _ => answer.stream = frame.stream,
                        }
                        answer.bytes()
                    };
                    // At once, so that what ends a response may be seen together with it.
                    let all: Vec<u8> = frames.iter().flat_map(of_stream).collect();
                    server.send_bytes(&all).await;
                    if closes {
                        return;
                    }
                }
            });
        }
    });
    count
}

async fn ask(proxy: &Proxy) -> Gets {
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    match client.any_response(false).await {
        Some(response) if response.status == 502 => Refusal,
        Some(response) if response.is_complete => {
            assert_eq!((response.status, response.text()), (200, "hello"));
            Whole
        }
        Some(_) => Cut,
        None => Nothing,
    }
}

async fn ask_by_http2(proxy: &Proxy) -> Gets {
    let mut client = Http2Client::connect(proxy.address()).await;
    match client.send(http2::request("GET", "/", &[]), b"").await {
        Err(_) => Nothing,
        Ok(response) if response.error.is_some() => Cut,
        Ok(response) if response.status == 502 => Refusal,
        Ok(response) => {
            assert_eq!((response.status, response.text()), (200, "hello"));
            Whole
        }
    }
}

#[tokio::test]
async fn nothing_that_breaks_off_looks_finished_or_is_stored() {
    let authority = Authority::new();
    let mut complaints = Vec::new();
    for (number, Row { name, frames, closes, gets }) in rows().into_iter().enumerate() {
        for (is_cached, is_http2) in [(false, false), (false, true), (true, false)] {
            // One in three by TLS, which is the same from there on.
            let tls = (number % 3 == 0).then(|| {
                let mut config = authority.vouch(&["127.0.0.1"]).server(None);
                config.alpn_protocols = vec![b"h2".to_vec()];
                TlsAcceptor::from(Arc::new(config))
            });
            let origin = BareOrigin::start().await;
            let scheme = if tls.is_some() { "https" } else { "http" };
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
            let config = Config::to(&format!("{scheme}://{}", origin.address)).top("workers = 1");
            let config = config.upstream("tls.ca = \"ca.pem\"\nprotocol = \"h2\"\nretry.attempts = 0");
            let config = config.route(&format!("cache = {is_cached}")).toml();
            let count = serve(origin, tls, frames.clone(), closes);
            let proxy = Proxy::try_start_in(folder, &config, &[]).await.unwrap();
            for round in 1..=2 {
                let got = if is_http2 { ask_by_http2(&proxy).await } else { ask(&proxy).await };
                let asked = count.load(Ordering::SeqCst);
                let is_stored = is_cached && gets == Whole;
                if got != gets || (!is_stored && asked < round) || (is_stored && asked != 1) {
                    complaints.push(format!(
                        "{name}, cached: {is_cached}, HTTP/2: {is_http2}, round {round}: {got:?}, asked {asked} times"
                    ));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// In HTTP/1 as well, and with the end in the same segment as the head.
#[tokio::test]
async fn a_body_that_breaks_off_before_it_begins_has_a_head() {
    let mut complaints = Vec::new();
    for length in ["Content-Length: 20", "Transfer-Encoding: chunked"] {
        for body in ["", "5\r\nhello\r\n"] {
            let answer = move |_: &_| Answer {
                pieces: vec![format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{body}").into()],
                then: Then::Close,
            };
            let origin = Origin::answering(answer).await;
            let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
            for got in [ask(&proxy).await, ask_by_http2(&proxy).await] {
                if got != Cut {
                    complaints.push(format!("{length}, {body:?}: {got:?}"));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

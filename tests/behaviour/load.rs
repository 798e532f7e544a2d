//! Clients that were not written for these tests get along with the proxy.

use std::process::{Output, Stdio};

use tokio::process::Command;
use tollgate_tests::{Answer, Origin, Proxy, route_to, soon};

/// Runs curl with a time limit; none if it is not installed.
pub async fn curl(arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]).args(arguments);
    match soon("curl ends", command.stdin(Stdio::null()).output()).await {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "curl {arguments:?}: {errors}");
            Some(output)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: curl is not installed");
            None
        }
        Err(error) => panic!("curl does not run: {error}"),
    }
}

#[tokio::test]
async fn curl_gets_its_answers() {
    let origin = Origin::answering(|received| {
        let body = format!("{} {} {}", received.method, received.target, received.body.len());
        match received.method.as_str() {
            "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
            _ => Answer::ok(&body),
        }
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let url = proxy.url("/a?b");
    let file = proxy.folder().join("upload");
    std::fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    let data = format!("@{}", file.display());
    let upload = file.to_str().unwrap();

    for (arguments, expected) in [
        (&["--include"][..], "\r\n\r\nGET /a?b 0"),
        (&["--http1.0"], "GET /a?b 0"),
        (&["--data", "hello"], "POST /a?b 5"),
        (&["--data-binary", &data], "POST /a?b 3145728"),
        (&["--data-binary", &data, "--header", "Expect: 100-continue"], "POST /a?b 3145728"),
        (&["--upload-file", upload], "PUT /a?b 3145728"),
        (&["--upload-file", upload, "--header", "Transfer-Encoding: chunked"], "PUT /a?b 3145728"),
        (&["--request", "DELETE"], "DELETE /a?b 0"),
        (&["--head"], "content-length: 7\r\n"),
        (&["--next", &url], "GET /a?b 0GET /a?b 0"),
    ] {
        let Some(output) = curl(&[&[url.as_str()], arguments].concat()).await else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[tokio::test]
async fn curl_is_told_that_its_upload_is_too_large() {
    let origin = Origin::start().await;
    let limited = tollgate_tests::listener("limits.body = \"1MiB\"");
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &limited)).await;
    let file = proxy.folder().join("upload");
    std::fs::write(&file, vec![b'x'; 4 << 20]).unwrap();
    let upload = file.to_str().unwrap();
    let url = proxy.url("/");
    for expect in ["Expect:", "Expect: 100-continue"] {
        let arguments = [&url, "--upload-file", upload, "--header", expect, "--write-out", "%{http_code}"];
        let Some(output) = curl(&arguments).await else { return };
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("413"), "{output:?}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn many_clients_at_once_get_their_own_answers() {
    let origin = Origin::answering(|received| Answer::ok(&received.target)).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..50 {
        let mut client = proxy.connect().await;
        clients.spawn(async move {
            for turn in 0..20 {
                let path = format!("/{number}/{turn}");
                client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
                assert_eq!(client.response().await.text(), path);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(origin.connections() <= 50, "{} upstream connections", origin.connections());
}

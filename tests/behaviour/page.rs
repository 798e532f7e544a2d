//! What a person sees in a browser: every page there is, opened in Chromium while requests flow.

use tollgate_tests::{Answer, Browser, Client, Config, Origin, Proxy, guest};

/// Tables, by their ids, and a column of each that counts what flows.
const RATES: [(&str, &str); 3] =
    [("listeners", "requests/s"), ("upstreams", "requests/s"), ("plugins", "calls/s")];

fn config(admin: &str, origin: &Origin) -> Config {
    Config::to(origin).admin().top(admin).plugin("guest", "limits.time = \"10s\"")
}

/// Requests on one connection, one after the other, until this is dropped.
async fn traffic(mut client: Client) {
    loop {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let Some(response) = client.any_response(false).await else { return };
        assert_eq!(response.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// What a column of the first row says.
fn cell<'a>(table: &'a [Vec<String>], column: &str) -> &'a str {
    let place = table.first().and_then(|head| head.iter().position(|name| name == column));
    let place = place.unwrap_or_else(|| panic!("there is a column {column} in {table:?}"));
    table.get(1).map_or("", |row| row[place].as_str())
}

/// Waits until every table shows a rate above zero.
async fn sees_traffic(browser: &Browser) {
    for (table, column) in RATES {
        let script = format!(
            "const [head, row] = document.getElementById({table:?}).rows;
             if (!row) return null;
             const place = [...head.cells].findIndex(cell => cell.textContent === {column:?});
             return Number(row.cells[place].textContent) > 0;"
        );
        browser.until(&format!("the table {table} shows {column}"), &script).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_traffic_in_a_real_browser_without_an_error_on_its_console() {
    let test = "every_page_shows_traffic_in_a_real_browser_without_an_error_on_its_console";
    let Some(browser) = Browser::start(test).await else { return };
    let origin = Origin::answering(|_| Answer::ok("four")).await;

    // Without a token.
    let proxy = Proxy::start_with(&config("", &origin), &[("guest", guest())]).await;
    let flowing = tokio::spawn(traffic(proxy.connect().await));
    browser.open(&format!("http://{}/", proxy.admin_address())).await;
    sees_traffic(&browser).await;
    let status = browser.run("return document.getElementById('status').textContent").await;
    assert_eq!(
        status.as_str().map(|status| status.contains("generation 1, 2 workers")),
        Some(true),
        "{status}"
    );
    let listeners = browser.table("listeners").await;
    assert_eq!(cell(&listeners, "address"), proxy.address().to_string());
    assert_eq!(cell(&listeners, "open"), "1", "{listeners:?}");
    let upstreams = browser.table("upstreams").await;
    assert_eq!(cell(&upstreams, "upstream"), "app");
    assert_eq!(cell(&upstreams, "endpoint"), origin.address.to_string());
    assert_eq!((cell(&upstreams, "state"), cell(&upstreams, "share %")), ("healthy", "100"));
    assert!(cell(&upstreams, "p99 ms").parse::<f64>().is_ok_and(|time| time > 0.0), "{upstreams:?}");
    let plugins = browser.table("plugins").await;
    assert_eq!((cell(&plugins, "plugin"), cell(&plugins, "breaker")), ("guest", "closed"));
    assert!(cell(&plugins, "KiB").parse::<u64>().is_ok_and(|size| size > 0), "{plugins:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());

    // A refused reload is said, and so is the next that is not.
    proxy.reload("nonsense").await.unwrap_err();
    let says =
        |outcome: &str| format!("return document.getElementById('reload').textContent.includes({outcome:?})");
    browser.until("the page tells that the reload was refused", &says("refused")).await;
    proxy.reload(&config("", &origin)).await.expect("it is a good configuration");
    browser.until("the page tells that the reload is in force", &says("in-force")).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    flowing.abort();

    // With a token nothing is asked before there is one, and a wrong one can be put right.
    let proxy = Proxy::start_with(&config("admin.token = \"s3cret\"", &origin), &[("guest", guest())]).await;
    let flowing = tokio::spawn(traffic(proxy.connect().await));
    browser.open(&format!("http://{}/", proxy.admin_address())).await;
    browser.until("the page asks for the token", "return !document.getElementById('ask').hidden").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.enter("token", "wrong").await;
    let is_wrong = "return document.getElementById('status').textContent.includes('the token is wrong')";
    browser.until("the page says that the token is wrong", is_wrong).await;
    // Chromium itself tells of the 401, once for each of the three that were asked.
    assert!(browser.console().await.iter().all(|line| line.contains("401")));
    browser.run("document.getElementById('token').value = ''").await;
    browser.enter("token", "s3cret").await;
    sees_traffic(&browser).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    flowing.abort();
}

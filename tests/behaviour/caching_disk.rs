//! What is stored on disk outlives the process, and never does harm.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::process::Signal;
use tempfile::TempDir;
use tollgate_tests::{Answer, Client, Config, Executable, Origin, Proxy, Received, soon, until};

use crate::TOLLGATE;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn config(origin: &Origin, disk: &Path, more: &str) -> String {
    let config = Config::to(origin).admin().route("cache = true");
    config.table("cache", &format!("disk = {{ path = {disk:?}, size = \"64MiB\" }}\n{more}")).toml()
}

/// An origin whose answers say to which request they are, and are as long as their path says.
async fn origin() -> Origin {
    Origin::answering(|received: &Received| {
        let length = received.target.trim_start_matches('/').split('/').next().and_then(|text| text.parse().ok());
        let body = format!("answer {} {}", received.number, "x".repeat(length.unwrap_or(0)));
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=600\r\nCache-Tag: news\r\n\r\n{body}",
            body.len()
        ))
    })
    .await
}

/// The files in a folder of stored responses.
fn files(disk: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(disk).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files.map(|entry| entry.path()).collect()
}

async fn written(proxy: &Proxy, count: usize) {
    soon("responses are written", async {
        while proxy.metrics().await.sum("tollgate_cache_disk_writes_total", &[("outcome", "written")])
            < count as f64
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_on_disk_is_a_hit_at_once_after_a_restart() {
    let (origin, disk) = (origin().await, folder());
    let config = config(&origin, disk.path(), "");
    let first = Proxy::start(&config).await;
    let paths = ["/70000", "/1", "/0/c"];
    let mut before = Vec::new();
    for path in paths {
        before.push(first.get(path, &[]).await.body);
    }
    written(&first, paths.len()).await;
    first.stop().await;
    let second = Proxy::start(&config).await;
    // The folder is this proxy's as soon as the other has let go of it.
    soon("the first hit", async {
        while second.get(paths[0], &[]).await.header("x-cache") != Some("HIT") {}
    })
    .await;
    for (path, body) in paths.into_iter().zip(before).skip(1) {
        let response = second.get(path, &[]).await;
        assert_eq!((response.header("x-cache"), response.body == body), (Some("HIT"), true), "{path}");
        assert_eq!(response.values("cache-tag"), ["news"]);
        assert!(response.header("age").is_some());
    }
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_read_from_disk() {
    let (origin, disk) = (origin().await, folder());
    let more = "memory = \"1MiB\"\nmax-object = \"256KiB\"";
    let proxy = Proxy::start(&config(&origin, disk.path(), more)).await;
    let paths: Vec<String> = (0..40).map(|number| format!("/65536/{number}")).collect();
    for (number, path) in paths.iter().enumerate() {
        proxy.get(path, &[]).await;
        written(&proxy, number + 1).await;
    }
    for path in &paths {
        assert_eq!(proxy.get(path, &[]).await.header("x-cache"), Some("HIT"), "{path}");
    }
    assert_eq!(origin.received().len(), paths.len());
    assert!(proxy.metrics().await.sum("tollgate_cache_disk_reads_total", &[("outcome", "read")]) > 20.0);
}

#[tokio::test]
async fn what_is_damaged_or_foreign_is_no_answer() {
    let (origin, disk) = (origin().await, folder());
    let config = config(&origin, disk.path(), "");
    let paths = ["/1000/a", "/1000/b", "/1000/c"];
    let first = Proxy::start(&config).await;
    for (number, path) in paths.iter().enumerate() {
        first.get(path, &[]).await;
        written(&first, number + 1).await;
    }
    first.stop().await;
    let found = files(disk.path());
    assert_eq!(found.len(), 3, "{found:?}");
    // One byte of a body, and the end of another file.
    let mut bytes = fs::read(&found[0]).expect("it can be read");
    let place = bytes.len() - 100;
    bytes[place] ^= 1;
    fs::write(&found[0], bytes).expect("it can be written");
    let bytes = fs::read(&found[1]).expect("it can be read");
    fs::write(&found[1], &bytes[..bytes.len() / 2]).expect("it can be written");
    // What has the name of a response and is none, and what another process left.
    let name = |number: u8| disk.path().join(format!("ab/ab{:030x}-{number:016x}", 7));
    let of_ab = disk.path().join("ab");
    fs::create_dir_all(&of_ab).expect("a folder can be made");
    let outside = disk.path().join("outside");
    fs::write(&outside, "secret").expect("a file can be written");
    symlink(&outside, name(1)).expect("a link can be made");
    fs::create_dir(name(2)).expect("a folder can be made");
    fs::write(name(3), [0xff; 5000]).expect("a file can be written");
    fs::write(of_ab.join("notes.txt"), "mine").expect("a file can be written");
    let left = name(4).with_extension("17-beef");
    fs::write(&left, "half").expect("a file can be written");
    let made =
        std::process::Command::new("mkfifo").arg(name(5)).status().is_ok_and(|status| status.success());
    assert!(made, "mkfifo is a program of every system");

    let second = Proxy::start(&config).await;
    until("what was left half written is gone", || !left.exists() && !name(3).exists()).await;
    let mut hits = 0;
    for path in paths {
        let response = second.get(path, &[]).await;
        assert_eq!((response.status, response.body.len()), (200, "answer 0 ".len() + 1000), "{path}");
        hits += usize::from(response.header("x-cache") == Some("HIT"));
    }
    assert_eq!(hits, 1, "one of three is whole");
    assert!(second.metrics().await.sum("tollgate_cache_disk_reads_total", &[("outcome", "damaged")]) >= 2.0);
    for foreign in [name(1), name(2), name(5), of_ab.join("notes.txt")] {
        assert!(foreign.symlink_metadata().is_ok(), "{foreign:?} is not ours");
    }
    assert_eq!(fs::read(&outside).expect("it can be read"), b"secret");
}

#[tokio::test]
async fn a_purge_reaches_what_is_on_disk_only() {
    for meant in ["key=http://test/1/a", "prefix=http://test/1/", "tag=news&soft=true", "all"] {
        let (origin, disk) = (origin().await, folder());
        let config = config(&origin, disk.path(), "");
        let first = Proxy::start(&config).await;
        first.get("/1/a", &[]).await;
        written(&first, 1).await;
        first.stop().await;
        let second = Proxy::start(&config).await;
        soon("the entry is known", async {
            while second.metrics().await.sum("tollgate_cache_disk_entries", &[]) < 1.0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let purged = second.admin("DELETE", &format!("/api/cache?{meant}"), &[]).await;
        assert_eq!((purged.status, purged.text()), (200, "{\"purged\":1}"), "{meant}");
        until("the file is gone", || files(disk.path()).is_empty()).await;
        assert_eq!(second.get("/1/a", &[]).await.header("x-cache"), Some("MISS"), "{meant}");
    }
}

#[tokio::test]
async fn a_changed_resource_is_gone_from_disk_too() {
    let (origin, disk) = (origin().await, folder());
    let config = config(&origin, disk.path(), "");
    let proxy = Proxy::start(&config).await;
    proxy.get("/1/a", &[]).await;
    written(&proxy, 1).await;
    proxy.request("POST /1/a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx").await;
    until("the file is gone", || files(disk.path()).is_empty()).await;
    assert_eq!(proxy.get("/1/a", &[]).await.header("x-cache"), Some("MISS"));
}

#[tokio::test]
async fn the_disk_takes_no_more_than_it_may() {
    let (origin, disk) = (origin().await, folder());
    let text = config(&origin, disk.path(), "max-object = \"128KiB\"").replace("64MiB", "1MiB");
    let proxy = Proxy::start(&text).await;
    for number in 0..50 {
        proxy.get(&format!("/65536/{number}"), &[]).await;
        written(&proxy, number + 1).await;
    }
    let size = || -> u64 {
        files(disk.path()).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    };
    until("what is too much is removed", || size() <= 1 << 20).await;
    assert!(size() > 1 << 19, "{} bytes are kept", size());
}

#[tokio::test]
async fn a_disk_that_cannot_be_used_fails_no_request() {
    let (origin, other) = (origin().await, folder());
    let taken = other.path().join("file");
    fs::write(&taken, "no folder").expect("a file can be written");
    let proxy = Proxy::start(&config(&origin, &taken.join("cache"), "")).await;
    for expected in ["MISS", "HIT"] {
        assert_eq!(proxy.get("/1", &[]).await.header("x-cache"), Some(expected));
    }
    // Nor one that goes while it is used.
    let disk = other.path().join("disk");
    let proxy = Proxy::start(&config(&origin, &disk, "memory = \"1MiB\"\nmax-object = \"256KiB\"")).await;
    proxy.get("/65536/0", &[]).await;
    written(&proxy, 1).await;
    fs::remove_dir_all(&disk).expect("it can be removed");
    fs::write(&disk, "no folder").expect("a file can be written");
    for number in 0..40 {
        assert_eq!(proxy.get(&format!("/65536/{number}"), &[]).await.status, 200);
    }
    assert_eq!(proxy.get("/65536/0", &[]).await.status, 200);
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_whole_responses() {
    const ALL: usize = 400;
    let (origin, place) = (origin().await, folder());
    fs::create_dir(place.path().join("plugins")).expect("a folder can be made");
    let disk = place.path().join("stored");
    let text = config(&origin, Path::new("stored"), "") + "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    fs::write(place.path().join("config.toml"), text).expect("a file can be written");
    let mut first = Executable::start(TOLLGATE, place.path(), &["run"]);
    let address = first.address().await;
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let next = next.clone();
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            while let number = next.fetch_add(1, Ordering::SeqCst)
                && number < ALL
                && client.send(format!("GET /100000/{number} HTTP/1.1\r\nHost: test\r\n\r\n")).await
                && client.any_response(false).await.is_some_and(|response| response.is_complete)
            {}
        });
    }
    until("some are on disk", || files(&disk).len() > 30).await;
    first.signal(Signal::KILL);
    first.end().await;
    clients.shutdown().await;

    let second = Executable::start(TOLLGATE, place.path(), &["run"]);
    let mut client = Client::connect(second.address().await).await;
    second.line(&["stored responses were found on disk"]).await;
    let whole = files(&disk);
    assert!(whole.iter().all(|file| file.extension().is_none()), "{whole:?}");
    let mut hits = 0;
    for number in 0..ALL {
        client.send(format!("GET /100000/{number} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let response = client.response().await;
        assert!(response.is_complete && response.body.len() > 100_000, "{number}");
        hits += usize::from(response.header("x-cache") == Some("HIT"));
    }
    assert_eq!(hits, whole.len(), "each file is a hit");
}

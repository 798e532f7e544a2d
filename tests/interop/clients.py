"""Clients that nobody here wrote, over every way through the proxy: HTTP/1 and HTTP/2, in clear and by TLS, to servers of
HTTP/1 and of HTTP/2 that nobody here wrote either.

    tests/interop/run [PATH OF TOLLGATE]

makes what this needs and runs it. Each check says what it saw; the exit code is the number of those that failed.
"""

import asyncio
import hashlib
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import httpx
import hypercorn.asyncio
import hypercorn.config
import requests
import trustme

HERE = pathlib.Path(__file__).parent
NODE_MODULES = HERE.parent.parent / "target/interop/node/node_modules"
BODY = os.urandom(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
PIECES = [b"%d\n" % number * 1000 for number in range(20)]
STREAM = b"".join(PIECES)

failed = []


def check(name, holds, seen):
    print(f"{'ok    ' if holds else 'FAILED'} {name}: {seen}", flush=True)
    if not holds:
        failed.append(name)


def skipped(name, why):
    print(f"skipped {name}: {why}", flush=True)


# -- what is behind the proxy -----------------------------------------------------------------------------------

PAGE = b"""<!doctype html><title>waiting</title><body><script>
(async () => {
  const hello = await Promise.all(Array.from({length: 20}, (_, n) => fetch(`hello?${n}`).then(r => r.text())));
  const body = new Uint8Array(300000).map((_, n) => n * 7);
  const digest = await fetch("echo", {method: "POST", body}).then(r => r.text());
  const wanted = Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", body)));
  const same = digest === wanted.map(byte => byte.toString(16).padStart(2, "0")).join("");
  const stream = await fetch("stream").then(r => r.arrayBuffer());
  const protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  document.body.textContent = JSON.stringify(
    {hello: hello.filter(text => text === "hello").length, same, stream: stream.byteLength, protocol});
})().catch(error => { document.body.textContent = "" + error; });
</script>"""


async def application(scope, receive, send):
    """The same over both versions. The first segment of the path says which of them it came by."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    what = scope["path"].rsplit("/", 1)[1]
    status, kind, pieces = 200, b"text/plain", [b"hello"]
    if what == "echo":
        pieces = [hashlib.sha256(body).hexdigest().encode()]
    elif what == "stream":
        pieces = PIECES
    elif what == "version":
        pieces = [scope["http_version"].encode()]
    elif what == "page":
        kind, pieces = b"text/html", [PAGE]
    elif what == "none":
        status, pieces = 204, []
    elif what != "hello":
        status, pieces = 404, [b"nothing"]
    headers = [(b"content-type", kind)]
    if len(pieces) == 1:
        headers.append((b"content-length", b"%d" % len(pieces[0])))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve(port, **settings):
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    for name, value in settings.items():
        setattr(config, name, value)
    running = hypercorn.asyncio.serve(application, config, shutdown_trigger=lambda: asyncio.Future())
    threading.Thread(target=lambda: asyncio.run(running), daemon=True).start()


# -- clients ----------------------------------------------------------------------------------------------------


def with_curl(ways):
    if not shutil.which("curl"):
        return skipped("curl", "not installed")

    def run(*arguments):
        command = ["curl", "-sS", "--max-time", "30", "--cacert", AUTHORITY, *arguments]
        return subprocess.run(command, capture_output=True, timeout=60)

    for way, base, version in ways:
        option = {"1.1": "--http1.1", "2": "--http2" if base.startswith("https") else "--http2-prior-knowledge"}[version]
        seen = run(option, "-w", " %{http_version} %{response_code}", f"{base}/hello").stdout
        check(f"curl, {way}", seen == f"hello {version} 200".encode(), seen)
        seen = run(option, "--data-binary", f"@{BODY_FILE}", f"{base}/echo").stdout
        check(f"curl, {way}, upload", seen == DIGEST.encode(), seen)
        seen = run(option, f"{base}/stream").stdout
        check(f"curl, {way}, download", seen == STREAM, f"{len(seen)} bytes")
        seen = run(option, "-I", f"{base}/hello").stdout.lower()
        check(f"curl, {way}, HEAD", b"content-length: 5" in seen and seen.endswith(b"\r\n\r\n"), seen.split(b"\r\n")[0])
        seen = run(option, "-w", "%{response_code}", f"{base}/none").stdout
        check(f"curl, {way}, no content", seen == b"204", seen)


def with_h2load(ways):
    if not shutil.which("h2load"):
        return skipped("h2load", "not installed")
    for way, base, version in ways:
        options = ["--h1"] if version == "1.1" else ["-m", "20"]
        command = ["h2load", "-n", "1000", "-c", "10", *options, f"{base}/hello"]
        seen = subprocess.run(command, capture_output=True, text=True, timeout=120)
        line = next((line for line in seen.stdout.splitlines() if line.startswith("requests:")), seen.stdout)
        check(f"h2load, {way}", "1000 succeeded, 0 failed, 0 errored" in line, line)


def with_requests(ways):
    for way, base, version in ways:
        if version != "1.1":
            continue
        with requests.Session() as session:
            # Not what the environment says of authorities and proxies.
            session.trust_env, session.verify = False, AUTHORITY
            seen = [session.get(f"{base}/hello", timeout=30).text for _ in range(20)]
            check(f"requests, {way}", seen == ["hello"] * 20, f"{len(seen)} answers on one connection")
            seen = session.post(f"{base}/echo", data=BODY, timeout=30).text
            check(f"requests, {way}, upload", seen == DIGEST, seen)
            chunks = (BODY[at : at + 10_000] for at in range(0, len(BODY), 10_000))
            seen = session.post(f"{base}/echo", data=chunks, timeout=30).text
            check(f"requests, {way}, upload in chunks", seen == DIGEST, seen)
            seen = session.get(f"{base}/stream", timeout=30).content
            check(f"requests, {way}, download", seen == STREAM, f"{len(seen)} bytes")


def with_httpx(ways):
    for way, base, version in ways:
        is_http2 = version == "2"
        context = ssl.create_default_context(cafile=AUTHORITY)
        with httpx.Client(http1=not is_http2, http2=is_http2, verify=context, trust_env=False, timeout=30) as client:
            response = client.get(f"{base}/hello")
            seen = (response.http_version, response.text)
            check(f"httpx, {way}", seen == (f"HTTP/{version}", "hello"), seen)
            seen = client.post(f"{base}/echo", content=BODY).text
            check(f"httpx, {way}, upload", seen == DIGEST, seen)
            chunks = (BODY[at : at + 10_000] for at in range(0, len(BODY), 10_000))
            seen = client.post(f"{base}/echo", content=chunks).text
            check(f"httpx, {way}, upload in chunks", seen == DIGEST, seen)
            seen = client.get(f"{base}/stream").content
            check(f"httpx, {way}, download", seen == STREAM, f"{len(seen)} bytes")

    async def at_once(base):
        context = ssl.create_default_context(cafile=AUTHORITY)
        async with httpx.AsyncClient(http1=False, http2=True, verify=context, trust_env=False, timeout=30) as client:
            answers = await asyncio.gather(*(client.get(f"{base}/hello") for _ in range(200)))
            return {(answer.http_version, answer.text) for answer in answers}

    for way, base, version in ways:
        if version == "2":
            seen = asyncio.run(at_once(base))
            check(f"httpx, {way}, 200 at once", seen == {("HTTP/2", "hello")}, seen)


def with_undici(ways):
    if not shutil.which("node"):
        return skipped("undici", "there is no Node")
    if not (NODE_MODULES / "undici").is_dir():
        return skipped("undici", "not installed")
    for way, base, version in ways:
        if version == "2" and not base.startswith("https"):
            continue
        command = ["node", str(HERE / "undici.mjs"), str(NODE_MODULES), base, AUTHORITY, BODY_FILE, version]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        try:
            seen = json.loads(ran.stdout)
        except ValueError:
            seen = ran.stdout + ran.stderr
        wanted = {"hello": 50, "echo": DIGEST, "stream": len(STREAM)}
        check(f"undici, {way}", seen == wanted, seen)


def with_chromium(ways):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        return skipped("Chromium", "not installed (the package chromium)")
    for way, base, version in ways:
        # In clear a browser speaks HTTP/1 alone.
        if (version == "2") != base.startswith("https"):
            continue
        with tempfile.TemporaryDirectory() as profile:
            command = [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--ignore-certificate-errors", f"--user-data-dir={profile}"),
                *("--virtual-time-budget=20000", "--dump-dom", f"{base}/page"),
            ]
            try:
                ran = subprocess.run(command, capture_output=True, text=True, timeout=90)
                seen = ran.stdout.partition("<body>")[2].partition("</body>")[0] or ran.stderr[-500:]
            except subprocess.TimeoutExpired:
                seen = "nothing after 90 s"
        wanted = {"hello": 20, "same": True, "stream": len(STREAM), "protocol": "h2" if version == "2" else "http/1.1"}
        try:
            holds = json.loads(seen) == wanted
        except ValueError:
            holds = False
        check(f"Chromium, {way}", holds, seen)


# -- the proxy between ------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    for _ in range(400):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def main(tollgate):
    global AUTHORITY, BODY_FILE
    clear, private, upstream, either, old = (free_port() for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        AUTHORITY, BODY_FILE = f"{folder}/authority.pem", f"{folder}/body"
        pathlib.Path(BODY_FILE).write_bytes(BODY)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(AUTHORITY)
        site = authority.issue_cert("localhost")
        site.private_key_pem.write_to_path(f"{folder}/site.key")
        for part in site.cert_chain_pems:
            part.write_to_path(f"{folder}/site.pem", append=True)
        with open(f"{folder}/config.toml", "w") as file:
            file.write(f"""
log = {{ access = false }}
listeners = [
  {{ address = "127.0.0.1:{clear}" }},
  {{ address = "127.0.0.1:{private}", tls = {{ certificates = [{{ certificate = "site.pem", key = "site.key" }}] }} }},
]
routes = [
  {{ upstream = "h1", match = {{ path = "/h1" }} }},
  {{ upstream = "h2", match = {{ path = "/h2" }} }},
  {{ upstream = "either", match = {{ path = "/either" }} }},
  {{ upstream = "old", match = {{ path = "/old" }} }},
]
[upstreams]
h1 = {{ endpoints = ["http://127.0.0.1:{upstream}"] }}
h2 = {{ endpoints = ["http://127.0.0.1:{upstream}"], protocol = "h2" }}
either = {{ endpoints = ["https://127.0.0.1:{either}"], tls = {{ ca = "authority.pem", server-name = "localhost" }} }}
old = {{ endpoints = ["https://127.0.0.1:{old}"], tls = {{ ca = "authority.pem", server-name = "localhost" }} }}
""")
        serve(upstream)
        files = {"certfile": f"{folder}/site.pem", "keyfile": f"{folder}/site.key"}
        serve(either, **files)
        serve(old, **files, alpn_protocols=["http/1.1"])
        for port in (upstream, either, old):
            wait_for(port)
        proxy = subprocess.Popen([tollgate, "run", "--config", f"{folder}/config.toml"])
        try:
            wait_for(clear)
            wait_for(private)
            ways = [
                (f"{name} {version} to {behind}", f"{scheme}://localhost:{port}/{behind}", version)
                for name, scheme, port in (("clear", "http", clear), ("TLS", "https", private))
                for version in ("1.1", "2")
                for behind in ("h1", "h2")
            ]
            # By TLS an upstream chooses.
            for behind, version in (("h1", "1.1"), ("h2", "2"), ("either", "2"), ("old", "1.1")):
                base = f"http://localhost:{clear}/{behind}"
                seen = requests.get(f"{base}/version", timeout=30).text
                check(f"the upstream {behind}", seen == version, seen)
                seen = requests.post(f"{base}/echo", data=BODY, timeout=30).text
                check(f"the upstream {behind}, upload", seen == DIGEST, seen)
                seen = requests.get(f"{base}/stream", timeout=30).content
                check(f"the upstream {behind}, download", seen == STREAM, f"{len(seen)} bytes")
            for run in (with_curl, with_h2load, with_requests, with_httpx, with_undici, with_chromium):
                run(ways)
        finally:
            proxy.terminate()
            proxy.wait(40)
    print(f"{len(failed)} failed" if failed else "all is well")
    sys.exit(min(len(failed), 100))


if __name__ == "__main__":
    main(sys.argv[1])

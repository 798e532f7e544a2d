"""WebSocket through the proxy, with a client and a server that nobody here wrote.

    tests/interop/websocket [PATH OF TOLLGATE]

makes what this needs and runs it. Each check says what it saw; the exit code is the number of those that failed.
"""

import asyncio
import os
import signal
import socket
import ssl
import sys
import tempfile

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

failed = []


def check(name, holds, seen):
    print(f"{'ok    ' if holds else 'FAILED'} {name}: {seen}")
    if not holds:
        failed.append(name)


async def echo(connection):
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as asked")
            return
        await connection.send(message)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def listens(port):
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


async def converse(name, url, **settings):
    async with connect(url, max_size=None, subprotocols=["chat"], **settings) as client:
        check(f"{name}: subprotocol", client.subprotocol == "chat", client.subprotocol)
        await client.send("hällo")
        check(f"{name}: text", (seen := await client.recv()) == "hällo", seen)
        large = os.urandom(5 << 20)
        await client.send(large)
        check(f"{name}: 5 MiB", await client.recv() == large, "as sent")
        for number in range(1000):
            await client.send(str(number))
        seen = [await client.recv() for _ in range(1000)]
        check(f"{name}: 1000 messages", seen == [str(number) for number in range(1000)], f"{len(seen)} in order")
        waiting = await client.ping()
        check(f"{name}: ping", (seen := await asyncio.wait_for(waiting, 10)) >= 0, f"{seen:.4f} s")
        await client.send("close")
        try:
            await client.recv()
            seen = None
        except ConnectionClosed as closed:
            seen = (closed.rcvd.code, closed.rcvd.reason)
        check(f"{name}: closed by the server", seen == (4001, "as asked"), seen)

    async def one(number):
        async with connect(url, subprotocols=["chat"], **settings) as client:
            await client.send(str(number))
            return await client.recv()

    seen = await asyncio.gather(*(one(number) for number in range(100)))
    check(f"{name}: 100 at once", seen == [str(number) for number in range(100)], f"{len(set(seen))} answers")


async def refused(name, url, status, **settings):
    try:
        async with connect(url, **settings):
            seen = "open"
    except InvalidStatus as error:
        seen = error.response.status_code
    check(name, seen == status, seen)


async def main(tollgate):
    clear, secure, origin = free_port(), free_port(), free_port()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.toml", "w") as file:
            file.write(f"""
listeners = [
  {{ address = "127.0.0.1:{clear}" }},
  {{ address = "127.0.0.1:{secure}", tls = {{ self-signed = ["localhost"] }} }},
]
log = {{ access = false }}
routes = [
  {{ upstream = "origin" }},
  {{ upstream = "origin", match = {{ path = "/keyed" }}, plugins = ["api-key"] }},
  {{ upstream = "origin", match = {{ path = "/none" }}, upgrades = [] }},
]
[upstreams.origin]
endpoints = ["http://127.0.0.1:{origin}"]
[plugins.api-key]
config = {{ keys = {{ demo = "k1" }} }}
""")
        async with serve(echo, "127.0.0.1", origin, max_size=None, subprotocols=["chat"]):
            proxy = await asyncio.create_subprocess_exec(
                tollgate, "run", "--config", f"{folder}/config.toml", env={**os.environ, "XDG_CACHE_HOME": folder}
            )
            try:
                await listens(clear)
                await listens(secure)
                await converse("HTTP/1.1", f"ws://127.0.0.1:{clear}/")
                await converse("HTTP/1.1 by TLS", f"wss://localhost:{secure}/", ssl=trusting)
                await converse("with a key", f"ws://127.0.0.1:{clear}/keyed", additional_headers={"x-api-key": "k1"})
                await refused("without a key", f"ws://127.0.0.1:{clear}/keyed", 401)
                await refused("not allowed", f"ws://127.0.0.1:{clear}/none", 426)
            finally:
                proxy.send_signal(signal.SIGTERM)
                await proxy.wait()
    print(f"{len(failed)} failed" if failed else "all is well")
    sys.exit(len(failed))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""Asks at a steady rate, whatever the answers take: `steady.py PORT PATH RATE SECONDS`. Prints how long they took, as JSON.

A time counts from the moment at which the request was to be sent, so that what waits behind a slow one is late as well.
"""

import collections
import contextlib
import gc
import json
import os
import selectors
import socket
import sys
import time

CONNECTIONS = 32


def main() -> None:
    # As if it were on a machine of its own: that it waits for a processor says nothing of who answers.
    with contextlib.suppress(PermissionError):
        os.nice(-20)
    gc.disable()
    port, path, rate, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    request = f"GET {path} HTTP/1.1\r\nHost: app.example.com\r\n\r\n".encode()
    # epoll would sleep for whole milliseconds.
    selector = selectors.SelectSelector()
    idle, busy = collections.deque(), {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        idle.append(connection)
    began = time.monotonic()
    due, waiting, taken, bad = began, collections.deque(), [], 0
    while due < began + seconds or waiting or busy:
        now = time.monotonic()
        while due <= now and due < began + seconds:
            waiting.append(due)
            due += 1 / rate
        while waiting and idle:
            connection = idle.popleft()
            busy[connection] = (waiting.popleft(), b"")
            connection.send(request)
        until = min(due - time.monotonic(), 0.01) if due < began + seconds else 0.01
        for key, _ in selector.select(max(until, 0)):
            connection = key.fileobj
            intended, got = busy[connection]
            got += connection.recv(65536)
            if whole(got):
                taken.append(time.monotonic() - intended)
                bad += not got.startswith(b"HTTP/1.1 200 ")
                del busy[connection]
                idle.append(connection)
            else:
                busy[connection] = (intended, got)
        if now > began + seconds + 20:
            break
    print(json.dumps({"taken": sorted(taken), "bad": bad + len(waiting) + len(busy)}))


def whole(response: bytes) -> bool:
    head, found, body = response.partition(b"\r\n\r\n")
    if not found:
        return False
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0])


if __name__ == "__main__":
    main()

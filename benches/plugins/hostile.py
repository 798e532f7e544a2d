"""Plugins that do harm, and the harmless ones in their place."""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """What a plugin does at each call on the route `/bad`, by words of the guests in tests/guests."""

    name: str
    file: str = "guest"
    config: dict[str, str] = field(default_factory=dict)
    # What its table says beside `config`.
    table: str = ""
    # Of the requests that it is called for.
    headers: dict[str, str] = field(default_factory=dict)
    # What is done to the proxy meanwhile, of ATTACKS.
    attack: str = "calls"
    # The file that is harmless in its place, where that is another.
    harmless_file: str | None = None
    # Bytes that a documented limit lets it have beside what a harmless one takes: more than that is a fault.
    may_have: int = 0

    def hostile(self, silent: int) -> tuple[str, str]:
        """Routes and plugins."""
        table = self.table.replace("@silent@", f"http://127.0.0.1:{silent}")
        return ROUTES, f'[plugins.subject]\nfile = "{self.file}"\nconfig = {_table(self.config)}\n{SHARE}\n{table}\n'

    def harmless(self, silent: int) -> tuple[str, str]:
        """The same file, which lets everything pass."""
        table = "\n".join(line for line in self.table.replace("@silent@", f"http://127.0.0.1:{silent}").splitlines() if "tick" not in line)
        return ROUTES, f'[plugins.subject]\nfile = "{self.harmless_file or self.file}"\nconfig = {{ request = "nothing" }}\n{SHARE}\n{table}\n'


# What an operator gives a plugin that nobody vouches for: a thousandth of each worker's time.
SHARE = "breaker = { cpu-share = 0.001 }"

ROUTES = """\
[[routes]]
match = { path = "/bad" }
upstream = "app"
plugins = ["subject"]

[[routes]]
upstream = "app"
"""


def _table(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


def _requests(*names: str) -> list[Kind]:
    return [Kind(name, config={"request": name, "says": "x"}) for name in names]


KIB, MIB = 1 << 10, 1 << 20

STORE = 'grants = { store = { memory = "1MiB", entries = 1_000 }, secrets = { unused = { env = "PATH" } } }'
HTTP = 'grants = { http = [{ url = "@silent@", private = true }], body = true }\nlimits = { wait = "50ms" }'

KINDS = [
    *_requests(
        "loop", "loop-calling", "trap", "exit", "grow", "grow-slowly", "recurse", "recurse-without-memory", "sleep", "socket",
        "invalid-text", "huge-strings", "log-flood", "print-flood", "print-endless", "metrics", "sequences", "many-headers",
        "long-header", "reply-bad-header", "reply-many-headers", "reply-million-headers", "reply-huge", "forward-huge",
    ),
    Kind("loop-in-response", config={"response": "loop"}),
    Kind("trap-in-response", config={"response": "trap"}),
    Kind("store-flood", "granted", table=STORE, headers={"x-do": "flood 10"}),
    Kind("slow-http-client", "waiting", {"tick": ""}, HTTP, {"x-do": "send GET @silent@/"}),
    Kind("ssrf", "waiting", {"tick": ""}, HTTP, {"x-do": "send GET http://169.254.169.254/; send GET http://localhost:22/"}),
    Kind("loop-in-complete", "told", {"told": "loop"}),
    Kind("trap-in-complete", "told", {"told": "trap"}),
    Kind("loop-in-tick", "waiting", {"tick": "loop"}, HTTP + '\ntick = "20ms"'),
    # `limits.memory` of the few instances that a worker has.
    Kind("memories", "has-many-memories", harmless_file="harmless", may_have=4 * 32 * MIB),
    # `limits.plugin-compile-memory` of the child that compiles, which counts here.
    Kind("compilation", config={"request": "nothing"}, attack="compilation", may_have=2048 * MIB),
    # `limits.unsent`.
    Kind("unread-replies", config={"request": "reply-huge"}, attack="unread-replies", may_have=64 * MIB),
    # A configuration and its components, read once more by each reload that the files cause.
    Kind("fifo", config={"request": "nothing"}, attack="fifo", may_have=8 * MIB),
    # The connections that the admin API has for one client, with the buffers of each.
    Kind("admin-heads", config={"request": "nothing"}, attack="admin-heads", may_have=64 * 64 * KIB),
]

# Components that no compiler makes, by their names in tests/harness/handmade.rs.
HANDMADE = ["has-many-memories", "harmless", "costs-to-compile"]


@contextlib.contextmanager
def silent_origin() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        held = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listening.accept())

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]


@dataclass(frozen=True)
class Victim:
    """A proxy that is attacked, so many times a second."""

    port: int
    admin: int
    folder: Path
    rate: float
    headers: dict[str, str]

    def turns(self, rate: float | None = None) -> Iterator[int]:
        """Ends with the process."""
        due, number = time.monotonic(), 0
        while True:
            due = max(due + 1 / (rate or self.rate), time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))
            yield number
            number += 1


def calls(victim: Victim) -> None:
    """Calls the plugin, whatever comes of it."""
    connection = http.client.HTTPConnection("127.0.0.1", victim.port, timeout=10)
    for _ in victim.turns():
        try:
            connection.request("GET", "/bad", headers=victim.headers)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()


def leave_open(victim: Victim, port: int, beginning: bytes, most: int) -> None:
    """Connections on which something is sent and nothing read; the oldest makes room for another."""
    held: list[socket.socket] = []
    for _ in victim.turns():
        if len(held) == most:
            held.pop(0).close()
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=1))
            held[-1].sendall(beginning)


def unread_replies(victim: Victim) -> None:
    leave_open(victim, victim.port, b"GET /bad HTTP/1.1\r\nHost: test\r\n\r\n", 60)


def admin_heads(victim: Victim) -> None:
    leave_open(victim, victim.admin, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1", 256)


def compilation(victim: Victim) -> None:
    """Drops a component that costs much to compile, another each time."""
    costly = (victim.folder / "costs-to-compile.wasm").read_bytes()
    for number in victim.turns(1):
        name = b"number %08d" % number
        # A custom section, which means nothing and makes it another file.
        section = bytes([0, len(name) + 2, 1]) + b"n" + name
        unfinished = victim.folder / "unfinished"
        unfinished.write_bytes(costly + section)
        unfinished.rename(victim.folder / "plugins/dropped.wasm")


def fifo(victim: Victim) -> None:
    """Has the drop folder read again, in which a file never has a beginning."""
    os.mkfifo(victim.folder / "plugins/subject.test.toml")
    os.mkfifo(victim.folder / "plugins/guest.toml")
    for number in victim.turns(4):
        (victim.folder / "plugins/nothing.toml").write_text(f"# {number}\n")


ATTACKS: dict[str, Callable[[Victim], None]] = {
    "calls": calls,
    "compilation": compilation,
    "unread-replies": unread_replies,
    "fifo": fifo,
    "admin-heads": admin_heads,
}


if __name__ == "__main__":
    name, port, admin, folder, rate, headers = sys.argv[1:]
    ATTACKS[name](Victim(int(port), int(admin), Path(folder), float(rate), json.loads(headers)))

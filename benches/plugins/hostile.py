"""Plugins that do harm, and the harmless ones in their place."""

import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


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

    def hostile(self, silent: int) -> tuple[str, str]:
        """Routes and plugins."""
        table = self.table.replace("@silent@", f"http://127.0.0.1:{silent}")
        return ROUTES, f'[plugins.subject]\nfile = "{self.file}"\nconfig = {_table(self.config)}\n{SHARE}\n{table}\n'

    def harmless(self, silent: int) -> tuple[str, str]:
        """The same file, which lets everything pass."""
        table = "\n".join(line for line in self.table.replace("@silent@", f"http://127.0.0.1:{silent}").splitlines() if "tick" not in line)
        return ROUTES, f'[plugins.subject]\nfile = "{self.file}"\nconfig = {{ request = "nothing" }}\n{SHARE}\n{table}\n'


# What an operator gives a plugin that nobody vouches for: a thousandth of each worker's time.
SHARE = "breaker = { share = 0.001 }"

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
]


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


def call(port: int, rate: float, headers: dict[str, str]) -> None:
    """Calls the plugin so many times a second, until it is ended; whatever comes of it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    due = time.monotonic()
    while True:
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))
        try:
            connection.request("GET", "/bad", headers=headers)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()


if __name__ == "__main__":
    call(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]))

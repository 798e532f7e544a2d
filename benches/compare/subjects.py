"""The subjects: what each of them is, and how it is configured and started."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from provision import HERE

BODY_SIZE = 1024

# What is stored or encoded: path and size.
STORED = {"1k": 1 << 10, "64k": 64 << 10}
PAGE_SIZE = 64 << 10
LEVEL = 5

KEY_HEADER = "x-api-key"
KEYS = {f"tenant-{n}": f"key-{n:04}-abcdef0123456789" for n in range(32)}
# Not the first of the table, in case somebody searches it from the front.
TENANT = "tenant-21"

# With `Host`, fifteen headers: what a browser sends, and the key.
REQUEST_HEADERS = {
    "Host": "app.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.8,de;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://app.example.com/orders?page=2",
    "Cookie": "session=5f2d7c1e9ab34e0d8c6b7a1f; theme=dark; consent=1",
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    KEY_HEADER: KEYS[TENANT],
}


@dataclass(frozen=True)
class Setting:
    """What a subject is told about the run."""

    workers: int
    port: int
    origins: list[int]
    # A folder of its own, where it may write.
    folder: Path
    tools: dict[str, Path]

    def write(self, template: str, **more: object) -> Path:
        """Copies a file of `configs/` into the folder with its `@names@` filled in."""
        values = {
            "workers": self.workers,
            "port": self.port,
            "folder": self.folder,
            "origin_1": self.origins[0],
            "origin_2": self.origins[1],
            "origin_3": self.origins[2],
            "lua_keys": "\n".join(f'    ["{key}"] = "{tenant}",' for tenant, key in KEYS.items()),
        } | more
        text = (HERE / "configs" / template).read_text()
        path = self.folder / template
        path.write_text(re.sub(r"@(\w+)@", lambda name: str(values[name[1]]), text))
        return path


@dataclass(frozen=True)
class Subject:
    name: str
    # Writes the configuration and returns the command.
    command: Callable[[Setting], list]
    tools: set[str]
    # Answers 401 without a key, and tells the origin whose key it was.
    checks_key: bool = False
    # Leaves the key in the request.
    forwards_key: bool = False
    # Spreads requests over all three endpoints; the others use the first.
    balances: bool = False
    # The same proxy without anything scripted, for the difference between the two.
    plain: str | None = None
    # Subjects of one kind are compared with each other.
    kind: str = "proxying"
    path: str = "/"
    body_size: int = BODY_SIZE
    # Answers from what it has stored.
    caches: bool = False
    # What it encodes with on its way.
    encodes: str | None = None


def all_subjects(chains: list[int]) -> list[Subject]:
    gate = {"checks_key": True, "balances": True}
    return [
        Subject("nginx", nginx, {"nginx"}),
        Subject("haproxy", haproxy, {"haproxy"}),
        Subject("envoy", envoy, {"envoy"}),
        Subject("nginx+lua", nginx_lua, {"nginx", "nginx-lua"}, plain="nginx", **gate),
        Subject("haproxy+lua", haproxy_lua, {"haproxy"}, plain="haproxy", **gate),
        Subject("envoy+wasm", envoy_wasm, {"envoy", "envoy-filter"}, plain="envoy", **gate),
        Subject("tollgate", tollgate, {"tollgate"}),
        Subject("tollgate+2", tollgate_gate, {"tollgate"}, plain="tollgate", **gate),
        *(
            Subject(
                f"tollgate+{length}",
                lambda setting, length=length: tollgate_chain(setting, length),
                {"tollgate"},
                plain="tollgate",
                checks_key=True,
                forwards_key=True,
            )
            for length in chains
        ),
        *(subject for name in STORED for subject in _caching(name)),
        *(_encoding(name, command, tools, encoding) for name, command, tools, encoding in ENCODING),
    ]


def _caching(name: str) -> list[Subject]:
    common = {
        "kind": f"cache hits of {name}",
        "path": f"/stored/{name}",
        "body_size": STORED[name],
        "caches": True,
    }
    plain = f"tollgate-cache-{name}"
    return [
        Subject(f"nginx-cache-{name}", nginx_cache, {"nginx"}, **common),
        Subject(f"varnish-cache-{name}", varnish_cache, {"varnish"}, **common),
        Subject(plain, tollgate_cache, {"tollgate"}, **common),
        Subject(f"{plain}+1", tollgate_gate_cache, {"tollgate"}, plain=plain, checks_key=True, **common),
    ]


def _encoding(name: str, command: Callable[[Setting], list], tools: set[str], encoding: str) -> Subject:
    return Subject(
        name, command, tools, kind="encoding of 64k", path="/page", body_size=PAGE_SIZE, encodes=encoding
    )


# nginx

def origin(setting: Setting) -> list:
    setting.write("temp-paths.conf")
    stored = setting.folder / "stored"
    stored.mkdir()
    for name, size in STORED.items():
        (stored / name).write_text("x" * size)
    # What a browser would be sent: words that repeat, and numbers that do not.
    lines = (f"<li><a href='/orders/{n * 7919 % 100_003}'>Order {n * 104_729 % 99_991}</a></li>\n" for n in range(9999))
    (setting.folder / "page").write_text("".join(lines)[:PAGE_SIZE])
    return _nginx(setting, "origin.conf", body="x" * BODY_SIZE)


def nginx(setting: Setting) -> list:
    setting.write("temp-paths.conf")
    return _nginx(setting, "nginx.conf")


def nginx_lua(setting: Setting) -> list:
    setting.write("temp-paths.conf")
    setting.write("nginx-gate.lua")
    return _nginx(setting, "nginx-lua.conf", modules=setting.tools["nginx-lua"].parent)


def nginx_cache(setting: Setting) -> list:
    setting.write("temp-paths.conf")
    return _nginx(setting, "nginx-cache.conf")


def nginx_gzip(setting: Setting) -> list:
    return _nginx_encoding(setting, "", "gzip", "gzip_proxied any;")


def nginx_brotli(setting: Setting) -> list:
    return _nginx_encoding(setting, f"load_module {setting.tools['nginx-brotli']};", "brotli")


def _nginx_encoding(setting: Setting, module: str, encoding: str, more: str = "") -> list:
    setting.write("temp-paths.conf")
    return _nginx(setting, "nginx-encoding.conf", module=module, encoding=encoding, level=LEVEL, more=more)


def _nginx(setting: Setting, template: str, **values: object) -> list:
    (setting.folder / "temp").mkdir(exist_ok=True)
    config = setting.write(template, **values)
    # -e: else it opens the packaged log before it has read the configuration.
    return [setting.tools["nginx"], "-e", "stderr", "-p", setting.folder, "-c", config]


# Varnish

def varnish_cache(setting: Setting) -> list:
    """Its threads are as many as there are connections; `workers` is the number of pools that they are in."""
    vcl = setting.write("varnish.vcl")
    listen = ["-a", f"127.0.0.1:{setting.port}"]
    parameters = ["-p", f"thread_pools={setting.workers}", "-p", "thread_pool_min=100"]
    return [setting.tools["varnish"], "-F", "-n", setting.folder, "-f", vcl, "-s", "malloc,256m", *listen, *parameters]


# HAProxy

def haproxy(setting: Setting) -> list:
    return [setting.tools["haproxy"], "-db", "-f", setting.write("haproxy.cfg")]


def haproxy_lua(setting: Setting) -> list:
    setting.write("haproxy-gate.lua")
    return [setting.tools["haproxy"], "-db", "-f", setting.write("haproxy-lua.cfg")]


# Envoy

def envoy(setting: Setting) -> list:
    return _envoy(setting, setting.origins[:1], filters="")


def envoy_wasm(setting: Setting) -> list:
    # `\n` is written as an escape, for a YAML string in double quotes.
    keys = r"\n".join(f"{key} {tenant}" for tenant, key in KEYS.items())
    part = setting.write("envoy-wasm-filter.yaml", filter=setting.tools["envoy-filter"], filter_keys=keys)
    return _envoy(setting, setting.origins, filters=part.read_text().rstrip())


def _envoy(setting: Setting, origins: list[int], filters: str) -> list:
    indent = " " * 14
    address = "endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}"
    endpoints = "\n".join(f"{indent}- {address.format(port)}" for port in origins)
    config = setting.write("envoy.yaml", filters=filters, endpoints=endpoints)
    # Hot restart would let the Envoys of one run find each other through shared memory.
    options = ["--concurrency", str(setting.workers), "--disable-hot-restart", "--log-level", "warn"]
    return [setting.tools["envoy"], "-c", config, *options]


# Tollgate

def tollgate(setting: Setting) -> list:
    return _tollgate(setting, setting.origins[:1])


def tollgate_gate(setting: Setting) -> list:
    plugins = {"api-key": api_key(), "round-robin": ""}
    return _tollgate(setting, setting.origins, plugins, route=["api-key"], balance="round-robin")


def tollgate_chain(setting: Setting, length: int) -> list:
    """So many tables on one plugin file, each of which does the whole check and leaves the key in place."""
    names = [f"check-{n}" for n in range(1, length + 1)]
    plugins = {name: 'file = "api-key"\n' + api_key(forward=True) for name in names}
    return _tollgate(setting, setting.origins[:1], plugins, route=names)


def tollgate_cache(setting: Setting) -> list:
    # The load says `no-cache`, as browsers do when they reload; nginx never heeds it.
    return _tollgate(setting, setting.origins[:1], settings='cache = { request-directives = "ignore" }')


def tollgate_gate_cache(setting: Setting) -> list:
    settings = 'cache = { request-directives = "ignore" }'
    plugins = {"api-key": api_key(forward=True)}
    return _tollgate(setting, setting.origins[:1], plugins, route=["api-key"], settings=settings)


def tollgate_encoding(setting: Setting, encoding: str) -> list:
    settings = f'compress = {{ encodings = ["{encoding}"], levels = {{ gzip = {LEVEL}, br = {LEVEL} }} }}'
    return _tollgate(setting, setting.origins[:1], settings=settings)


def api_key(forward: bool = False) -> str:
    keys = ", ".join(f'{tenant} = "{key}"' for tenant, key in KEYS.items())
    forward_key = "forward = true, " if forward else ""
    return f'config = {{ header = "{KEY_HEADER}", {forward_key}keys = {{ {keys} }} }}\n'


def _tollgate(
    setting: Setting,
    origins: list[int],
    plugins: dict[str, str] | None = None,
    route: list[str] | None = None,
    balance: str | None = None,
    settings: str = "",
) -> list:
    """Every configuration of Tollgate is written here.

    `plugins` are the bodies of the plugin tables, `route` names those that requests pass, and `balance`
    the one that picks the endpoint; `settings` are more lines of the route. All plugin files are the ones shipped with Tollgate.
    """
    # An array of strings is written the same in JSON and in TOML.
    endpoints = json.dumps([f"http://127.0.0.1:{port}" for port in origins])
    text = f"""\
workers = {setting.workers}
# Nothing of the user's is read or written.
plugin-dir = "plugins"
artifact-dir = "artifacts"

[log]
access = false

[[listeners]]
address = "127.0.0.1:{setting.port}"

[upstreams.app]
endpoints = {endpoints}
{f'balance = "{balance}"' if balance else ""}

[[routes]]
upstream = "app"
{f"plugins = {json.dumps(route)}" if route else ""}
{settings}
"""
    for name, body in (plugins or {}).items():
        text += f"\n[plugins.{name}]\n{body}"
    (setting.folder / "plugins").mkdir(exist_ok=True)
    config = setting.folder / "config.toml"
    config.write_text(text)
    return [setting.tools["tollgate"], "run", "--config", config]


# Name, command, tools, and what it is encoded with.
ENCODING = [
    ("nginx-gzip", nginx_gzip, {"nginx"}, "gzip"),
    ("nginx-br", nginx_brotli, {"nginx", "nginx-brotli"}, "br"),
    ("tollgate-gzip", lambda setting: tollgate_encoding(setting, "gzip"), {"tollgate"}, "gzip"),
    ("tollgate-br", lambda setting: tollgate_encoding(setting, "br"), {"tollgate"}, "br"),
]

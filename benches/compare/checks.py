"""Does a subject do what it is measured for? A fast proxy that forgets the key check is no rival."""

import http.client
from collections.abc import Mapping
from types import MappingProxyType

from processes import Failed
from subjects import KEY_HEADER, KEYS, REQUEST_HEADERS, TENANT, Subject

# Enough that with two workers, each counting for itself, one of them has gone round.
ROUNDS_OF_THREE = 4

# What a check sends other than wrk does; None leaves a header out.
Headers = Mapping[str, str | None]
NOTHING_ELSE: Headers = MappingProxyType({})


def check(subject: Subject, port: int, origins: list[int]) -> None:
    status, headers, body = _ask(port, subject.path)
    _expect(status == 200, f"a request with the key gives {status}, not 200")
    if subject.encodes:
        encoding = headers["Content-Encoding"]
        _expect(encoding == subject.encodes, f"the body is encoded with {encoding}, not {subject.encodes}")
        _expect(len(body) < subject.body_size // 2, f"the body still has {len(body)} bytes")
    else:
        size = subject.body_size
        _expect(len(body) == size, f"the body has {len(body)} bytes, not {size}")
    if subject.caches:
        _check_cache(subject, port, headers["X-Answer"])
        return

    seen = [_seen(port) for _ in range(3 * ROUNDS_OF_THREE)]
    reached = sorted({int(request["port"]) for request in seen})
    expected = origins if subject.balances else origins[:1]
    _expect(reached == expected, f"reaches the endpoints {reached}, not {expected}")

    if subject.checks_key:
        _check_key(subject, port)


def _check_cache(subject: Subject, port: int, first: str) -> None:
    # With several workers, each may be asked.
    for _ in range(8):
        status, headers, _ = _ask(port, subject.path)
        again = headers["X-Answer"]
        _expect((status, again) == (200, first), f"the answer {again!r} is another than the stored {first!r}")
    if subject.checks_key:
        status, _ = _get(port, subject.path, {KEY_HEADER: None})
        _expect(status == 401, f"a stored answer is given without a key: {status}, not 401")


def _check_key(subject: Subject, port: int) -> None:
    for problem, key in {"without a key": None, "with an unknown key": "key-0000"}.items():
        status, _ = _get(port, "/", {KEY_HEADER: key})
        _expect(status == 401, f"a request {problem} gives {status}, not 401")

    for tenant in (TENANT, "tenant-0"):
        # Whoever the client says it is, the origin must hear it from the proxy.
        seen = _seen(port, {KEY_HEADER: KEYS[tenant], "X-Consumer": "forged"})
        _expect(seen["consumer"] == tenant, f"the origin gets X-Consumer: {seen['consumer']!r}, not {tenant!r}")
        key = KEYS[tenant] if subject.forwards_key else ""
        _expect(seen["key"] == key, f"the origin gets {KEY_HEADER}: {seen['key']!r}, not {key!r}")


def _seen(port: int, headers: Headers = NOTHING_ELSE) -> dict[str, str]:
    """What the origin was sent."""
    status, body = _get(port, "/seen", headers)
    _expect(status == 200, f"a request with the key gives {status}, not 200")
    return dict(line.split("=", 1) for line in body.decode("latin-1").splitlines())


def _get(port: int, path: str, headers: Headers = NOTHING_ELSE) -> tuple[int, bytes]:
    status, _, body = _ask(port, path, headers)
    return status, body


def _ask(
    port: int, path: str, headers: Headers = NOTHING_ELSE
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request on a connection of its own."""
    sent = {name: value for name, value in {**REQUEST_HEADERS, **headers}.items() if value is not None}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=sent)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"a request fails: {error!r}") from None
    finally:
        connection.close()


def _expect(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise Failed(f"check: {otherwise}")

"""Does a subject do what it is measured for? A fast proxy that forgets the key check is no rival."""

import http.client
from collections.abc import Mapping
from types import MappingProxyType

from processes import Failed
from subjects import BODY_SIZE, KEY_HEADER, KEYS, REQUEST_HEADERS, TENANT, Subject

# Enough that with two workers, each counting for itself, one of them has gone round.
ROUNDS_OF_THREE = 4

# What a check sends other than wrk does; None leaves a header out.
Headers = Mapping[str, str | None]
NOTHING_ELSE: Headers = MappingProxyType({})


def check(subject: Subject, port: int, origins: list[int]) -> None:
    status, body = _get(port, "/")
    _expect(status == 200, f"a request with the key gives {status}, not 200")
    _expect(len(body) == BODY_SIZE, f"the body has {len(body)} bytes, not {BODY_SIZE}")

    seen = [_seen(port) for _ in range(3 * ROUNDS_OF_THREE)]
    reached = sorted({int(request["port"]) for request in seen})
    expected = origins if subject.balances else origins[:1]
    _expect(reached == expected, f"reaches the endpoints {reached}, not {expected}")

    if subject.checks_key:
        _check_key(subject, port)


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
    """A request on a connection of its own."""
    sent = {name: value for name, value in {**REQUEST_HEADERS, **headers}.items() if value is not None}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=sent)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"a request fails: {error!r}") from None
    finally:
        connection.close()


def _expect(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise Failed(f"check: {otherwise}")

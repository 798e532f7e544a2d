"""One round: load from wrk, and what the subject used meanwhile."""

import os
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from processes import Failed, Service, busy_machine, used_between
from subjects import REQUEST_HEADERS


@dataclass(frozen=True)
class Load:
    wrk: Path
    connections: int
    threads: int
    headers: Mapping[str, str] = field(default_factory=lambda: REQUEST_HEADERS)


@dataclass(frozen=True)
class Round:
    requests: int
    # CPU time of the subject's processes for one request, in microseconds.
    cpu_us: float
    user_us: float
    system_us: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    # How much of the whole machine was busy with none of subject, origin and wrk, from 0 to 1.
    others: float


def measure(
    load: Load, service: Service, origin: Service, port: int, path: str, seconds: int
) -> Round:
    services = (service, origin)
    started, busy, wrk = time.monotonic(), busy_machine(), _finished_children()
    before = [each.cpu() for each in services]
    output = run_wrk(load, port, path, seconds)
    after = [each.cpu() for each in services]
    elapsed, busy, wrk = time.monotonic() - started, busy_machine() - busy, _finished_children() - wrk

    used, used_by_origin = map(used_between, before, after)
    requests = int(_find(r"(\d+) requests in", output))
    if requests == 0:
        raise Failed("no request was answered")
    return Round(
        requests=requests,
        cpu_us=used.total / requests * 1e6,
        user_us=used.user / requests * 1e6,
        system_us=used.system / requests * 1e6,
        requests_per_second=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        p50_ms=_milliseconds(_find(r"(?m)^\s+50%\s+(\S+)", output)),
        p99_ms=_milliseconds(_find(r"(?m)^\s+99%\s+(\S+)", output)),
        # Clocks are read one after the other, so that a little below zero is possible.
        others=max(0.0, (busy - used.total - used_by_origin.total - wrk) / (elapsed * (os.cpu_count() or 1))),
    )


def run_wrk(load: Load, port: int, path: str, seconds: int) -> str:
    headers = [f"--header={name}: {value}" for name, value in load.headers.items()]
    options = [f"-c{load.connections}", f"-t{load.threads}", f"-d{seconds}s", "--latency", *headers]
    try:
        # It ends by itself; the limit is for the day it does not.
        done = subprocess.run(
            [load.wrk, *options, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, timeout=seconds + 15
        )
    except subprocess.TimeoutExpired:
        raise Failed("wrk did not end in time") from None
    if done.returncode != 0:
        raise Failed(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    for trouble in ("Non-2xx or 3xx responses", "Socket errors"):
        if trouble in done.stdout:
            raise Failed(f"under load: {trouble}: {_find(trouble + ': (.*)', done.stdout)}")
    return done.stdout


def _finished_children() -> float:
    """CPU time of all child processes waited for, in seconds: between two calls, that of wrk."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _find(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    if not found:
        raise Failed(f"the output of wrk has no {pattern!r}")
    return found[1]


def _milliseconds(text: str) -> float:
    number = _find(r"^([\d.]+)", text)
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}[text.removeprefix(number)]

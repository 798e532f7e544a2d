"""Starting, watching and ending the processes of a benchmark."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Why a subject cannot be measured, in one line."""


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU time."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.system - other.system)


class Service:
    """A program with all processes it forks: they are known by the session that it leads."""

    def __init__(self, command: list, folder: Path):
        self.output = folder / "output.log"
        with self.output.open("wb") as output:
            self._leader = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Also keeps Ctrl-C from it: it is ended by `stop`, in order.
                start_new_session=True,
            )

    def wait_until_listening(self, port: int, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._leader.poll() is not None:
                raise Failed(f"ended at start: {self._last_line()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise Failed(f"does not listen after {timeout:.0f} s: {self._last_line()}")

    def cpu(self) -> dict[int, Cpu]:
        """What each of its processes has used so far, by process id."""
        return {pid: cpu for pid, session, cpu in _all_processes() if session == self._leader.pid}

    def signal(self, number: int) -> bool:
        """Whether there was still a process to signal."""
        pids = self.cpu().keys()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def reap(self) -> None:
        self._leader.poll()

    def _last_line(self) -> str:
        lines = self.output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def stop(services: list[Service], patience: float = 3) -> None:
    """Ends all of them at once; those that take too long are killed."""
    # A second Ctrl-C waits until it is done, and does not leave half of them behind.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        left = list(services)
        for service in left:
            service.signal(signal.SIGTERM)
        deadline = time.monotonic() + patience
        while left:
            for service in left:
                service.reap()
            overdue = time.monotonic() > deadline
            # Signal 0 only asks whether somebody is there.
            left = [service for service in left if service.signal(signal.SIGKILL if overdue else 0)]
            time.sleep(0.05)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def used_between(before: dict[int, Cpu], after: dict[int, Cpu]) -> Cpu:
    """What a service used, if it was the same processes all the time."""
    if not before or before.keys() != after.keys():
        raise Failed("a process of it ended or was replaced during the round")
    used = [after[pid] - before[pid] for pid in before]
    return Cpu(sum(cpu.user for cpu in used), sum(cpu.system for cpu in used))


def busy_machine() -> float:
    """Seconds of CPU time that all processors together have been busy, or taken away by a hypervisor."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses, below those the kernel gives to outgoing connections.

    The thousands of connections the proxies open would otherwise now and then sit on such a port just
    when a subject wants to listen there.
    """
    found: list[int] = []
    for port in range(19_000, 32_000):
        if len(found) == count:
            return found
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    raise SystemExit("compare: no free ports between 19000 and 32000")


def _all_processes():
    """(process id, session, CPU time) of every process."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat") as stat:
                text = stat.read()
        except OSError:
            continue  # it has ended meanwhile
        # The name in parentheses may contain anything, so count from its end (see proc(5)).
        fields = text.rpartition(")")[2].split()
        state, session, user, system = fields[0], int(fields[3]), int(fields[11]), int(fields[12])
        if state != "Z":
            yield int(entry.name), session, Cpu(user / TICKS_PER_SECOND, system / TICKS_PER_SECOND)

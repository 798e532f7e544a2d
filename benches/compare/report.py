"""From rounds to a table."""

import statistics
from dataclasses import asdict, dataclass, field

from load import Round
from subjects import Subject

# What the others are compared with.
REFERENCES = ["nginx", "nginx+lua", "haproxy+lua", "nginx-cache-1k", "nginx-cache-64k", "nginx-gzip", "nginx-br"]


@dataclass
class Result:
    """What became of one subject with one number of workers."""

    subject: Subject
    workers: int
    # Why it was not, or not to the end, measured.
    trouble: str | None = None
    # It was there and did not do what it should; otherwise what it needs was missing.
    failed: bool = False
    rounds: list[Round] = field(default_factory=list)

    @property
    def measured(self) -> bool:
        return self.trouble is None and bool(self.rounds)

    def median(self, what: str) -> float:
        return statistics.median(getattr(each, what) for each in self.rounds)

    def ratio(self, other: "Result") -> float:
        """Of CPU time, round by round: what slows the whole machine for a while slows both."""
        return statistics.median(a.cpu_us / b.cpu_us for a, b in zip(self.rounds, other.rounds, strict=True))

    def difference(self, other: "Result") -> float:
        """Of CPU time, round by round, in microseconds."""
        return statistics.median(a.cpu_us - b.cpu_us for a, b in zip(self.rounds, other.rounds, strict=True))


def table(results: list[Result]) -> str:
    """A Markdown table of what was measured with one number of workers."""
    by_name = {result.subject.name: result for result in results if result.measured}
    references = [by_name[name] for name in REFERENCES if name in by_name]
    heads = ["subject", "CPU us/request", "from - to", "user", "system", "over plain", "requests/s", "p50 ms", "p99 ms"]
    heads += [f"/ {reference.subject.name}" for reference in references]
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for result in by_name.values():
        cpu = [each.cpu_us for each in result.rounds]
        plain = by_name.get(result.subject.plain or "")
        rows.append([
            result.subject.name,
            f"{result.median('cpu_us'):.1f}",
            f"{min(cpu):.1f} - {max(cpu):.1f}",
            f"{result.median('user_us'):.1f}",
            f"{result.median('system_us'):.1f}",
            f"{result.difference(plain):+.1f}" if plain else "",
            f"{result.median('requests_per_second'):.0f}",
            f"{result.median('p50_ms'):.2f}",
            f"{result.median('p99_ms'):.2f}",
            *(f"{result.ratio(reference):.2f}" for reference in references),
        ])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows)


def plugin_costs(results: list[Result], lengths: dict[str, int]) -> list[str]:
    """What one more plugin costs, from chains of different lengths (`lengths`, by subject)."""
    measured = sorted((lengths[r.subject.name], r) for r in results if r.measured and r.subject.name in lengths)
    return [
        f"one plugin, from {shorter} to {longer} of them: {b.difference(a) / (longer - shorter):.2f} us"
        for (shorter, a), (longer, b) in zip(measured, measured[1:])
    ]


def troubles(results: list[Result]) -> list[str]:
    """Which subjects are not in the table, and why; a line for each reason."""
    names: dict[str, list[str]] = {}
    for result in results:
        if result.trouble:
            reason = f"{'failed' if result.failed else 'skipped'}: {result.trouble}"
            names.setdefault(reason, []).append(result.subject.name)
    return [f"{', '.join(listed)} {reason}" for reason, listed in names.items()]


def noise(results: list[Result]) -> str | None:
    others = [each.others for result in results for each in result.rounds]
    if not others:
        return None
    median, worst = statistics.median(others), max(others)
    line = f"others used {median:.0%} of the machine (median of the rounds; {worst:.0%} in the worst)"
    return line + (": not a quiet machine, take the figures with care" if median > 0.05 or worst > 0.15 else "")


def as_json(results: list[Result]) -> list[dict]:
    listed = []
    for result in results:
        group = [r for r in results if r.workers == result.workers and r.subject.kind == result.subject.kind]
        references = [r for r in group if r.measured and r.subject.name in REFERENCES]
        entry = {"subject": result.subject.name, "workers": result.workers}
        entry |= {"failed": result.failed, "trouble": result.trouble}
        if result.measured:
            entry["median"] = {name: result.median(name) for name in asdict(result.rounds[0])}
            entry["cpu_ratio"] = {r.subject.name: result.ratio(r) for r in references}
        entry["rounds"] = [asdict(each) for each in result.rounds]
        listed.append(entry)
    return listed

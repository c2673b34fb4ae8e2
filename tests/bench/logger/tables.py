"""The figures as Markdown for the README, ✗ where a bar was missed. Medians over rounds, ranges in brackets."""

import statistics
from collections.abc import Iterable, Sequence

import gauge
from outage import Outage
from rig import DIRECT, LOGGED, NGINX, OFF, REDACTED, Slice
from sustained import Held

BARS = {"off rate": 0.9, "off p99": 1.2, "burst rate": 0.5, "outage p99": 1.1, "outage MiB": 150.0}
SUSTAINED_AIM = 6000
LOGGING = ("tap", "recorder", "shipper")


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(slices: Sequence[Slice], name: str, what: str, paced: bool) -> list[float]:
    """A contestant's figure over nginx's of the same round, round by round."""
    chosen = [one for one in slices if bool(one.offered) == paced]
    peer = {one.round: getattr(one, what) for one in chosen if one.contestant == NGINX}
    return [getattr(one, what) / peer[one.round] for one in chosen if one.contestant == name]


def burst_ratio(slices: Sequence[Slice], burst: Slice) -> float:
    """A burst's rate over nginx's in the rounds beside it."""
    near = [one.rate for one in slices if one.contestant == NGINX and not one.offered
            and one.round in (burst.round, burst.round + 1)]  # fmt: skip
    return burst.rate / statistics.mean(near)


def cells(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices of each cell."""
    keys = list(dict.fromkeys((one.body, one.connections) for one in slices))
    return [[one for one in slices if (one.body, one.connections) == key] for key in keys]


def row_one(slices: Sequence[Slice]) -> str:
    """Logging off beside nginx."""
    headings = ["body × connections", "direct/s", "nginx/s", "tap/s", "rate ÷ nginx", "p99 ÷ nginx, same offered load",
                "p99 ÷ nginx, saturated", "p99 ms tap; nginx (offered/s)", "CPU µs tap; nginx"]  # fmt: skip
    return markdown(headings, (_off(cell) for cell in cells(slices)))


def _off(cell: list[Slice]) -> list[str]:
    closed = {
        name: [one for one in cell if one.contestant == name and not one.offered] for name in (DIRECT, NGINX, OFF)
    }
    paced = {name: [one for one in cell if one.contestant == name and one.offered] for name in (NGINX, OFF)}
    return [
        _cell_name(cell[0]), *(f"{_median(closed[name], 'rate'):,.0f}" for name in (DIRECT, NGINX, OFF)),
        _verdict(ratios(cell, OFF, "rate", False), BARS["off rate"], least=True),
        _verdict(ratios(cell, OFF, "p99", True), BARS["off p99"], least=False),
        _verdict(ratios(cell, OFF, "p99", False), BARS["off p99"], least=False),
        "; ".join(f"{_median(paced[name], 'p99'):.2f}" for name in (OFF, NGINX))
        + f" ({_median(paced[NGINX], 'offered'):,.0f})",
        f"{_cpu(closed[OFF], 'tap'):.1f}; {_cpu(closed[NGINX], 'nginx'):.1f}",
    ]  # fmt: skip


def row_two(slices: Sequence[Slice]) -> str:
    """Bursts beside nginx."""
    headings = ["body × connections", "logged", "exchanges/s", "rate ÷ nginx", "worst second", "p99 ms",
                "CPU µs tap + recorder + shipper", "kept in the spool or shipped", "PSS MiB"]  # fmt: skip
    rows = [
        _burst(cell, one) for cell in cells(slices) for one in cell if one.contestant in (LOGGED, REDACTED)
    ]  # fmt: skip
    return markdown(headings, rows)


def _burst(cell: list[Slice], one: Slice) -> list[str]:
    account, whole = one.account, one.each_second[:-1] or one.each_second
    lost = sum(account["reasons"].values())
    return [
        _cell_name(one), "redacted" if one.contestant == REDACTED else "as it came", f"{one.rate:,.0f}",
        _verdict([burst_ratio(cell, one)], BARS["burst rate"], least=True),
        f"{min(whole):,}", f"{one.p99:.1f}", " + ".join(f"{one.cpu[name]:.0f}" for name in LOGGING),
        f"{1 - lost / max(1, account['offered']):.0%}" + ("" if account["adds_up"] else " **does not add up**"),
        f"{gauge.together(one.memory)[0]:.0f}",
    ]  # fmt: skip


def sustained(held: Held) -> str:
    """The long run."""
    one = held.slice
    parts = ", ".join(f"{name} {cost:.0f}" for name, cost in one.cpu.items())
    peak = max((pss for _, pss, _ in held.memory), default=float("nan"))
    per_core = 1e6 / held.cpu
    rows = [
        ("offered; done", f"{one.offered:,.0f}/s; {one.rate:,.0f}/s for {one.seconds:.0f} s"),
        ("backlog", f"grew by {held.growth:+.1f}/s, {held.waiting[-1][1]:,} at the end, {held.lost} lost: "
         + ("held" if held.kept_up else "**not held**")),
        ("exchanges per CPU-second of all logger processes", f"{per_core:,.0f} (aim {SUSTAINED_AIM:,})"),
        ("CPU µs an exchange", f"{held.cpu:.0f}: {parts}"),
        ("memory, all processes", f"at most {peak:.0f} MiB PSS"),
        ("p50; p99 of an inference", f"{one.p50:.2f}; {one.p99:.2f} ms"),
    ]  # fmt: skip
    return markdown(["sustained, " + _cell_name(one), one.contestant], rows)


def outage(told: Outage) -> str:
    """Kafka up, away and back."""
    plan, phases = told.plan, ("up", "down", "back")
    name = f"{told.broker} {plan.away} {plan.down:.0f} s, {plan.rate:,.0f}/s of {plan.body}"
    headings = [name, *phases]
    rows = [
        ["p50 ms", *(f"{told.p50[phase]:.2f}" for phase in phases)],
        ["p99 ms", *(f"{told.p99[phase]:.2f}" for phase in phases)],
        ["p99 ÷ up", "", *(_most(told.p99[phase] / told.p99["up"], "outage p99") for phase in phases[1:])],
        ["PSS MiB, all processes, at most", *(_most(told.peak(phase)[0], "outage MiB") for phase in phases)],
        ["RSS MiB, summed, at most", *(f"{told.peak(phase)[1]:.0f}" for phase in phases)],
        ["CPU seconds, all processes", *(f"{sum(told.cpu[phase].values()):.1f}" for phase in phases)],
        ["spool MiB at most", *(f"{told.most('spool_bytes', phase) / gauge.MIB:,.0f}" for phase in phases)],
        ["waiting at most", *(f"{told.most('waiting', phase):,}" for phase in phases)],
    ]  # fmt: skip
    account = told.account
    records, exchanges = told.rows or (0, 0)
    end = (
        f"Then empty {told.drain_seconds:.0f} s after the load ended: offered {account['offered']:,} = shipped "
        f"{account['shipped']:,} + waiting {account['waiting']:,} + lost {sum(account['reasons'].values()):,} "
        f"({'adds up' if account['adds_up'] else '**does not add up**'}); {exchanges:,} distinct ones in the topic "
        f"({'all of them' if told.arrived else '**not all**'}), {records - exchanges:,} of them twice; "
        f"client errors {told.errors}."
    )
    return markdown(headings, rows) + "\n\n" + end


def _cell_name(one: Slice) -> str:
    return f"{one.body} × {one.connections}"


def _median(slices: list[Slice], what: str) -> float:
    return statistics.median([getattr(one, what) for one in slices]) if slices else float("nan")


def _cpu(slices: list[Slice], process: str) -> float:
    return statistics.median([one.cpu[process] for one in slices]) if slices else float("nan")


def _most(value: float, bar: str) -> str:
    return _verdict([value], BARS[bar], least=False)


def _verdict(values: list[float], bar: float, *, least: bool) -> str:
    """The median, the range, and a mark where the bar is missed."""
    if not values:
        return "–"
    middle = statistics.median(values)
    digits = 0 if bar >= 10 else 2
    spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    met = middle >= bar if least else middle <= bar
    return f"{middle:.{digits}f}{spread}" + ("" if met else " ✗")

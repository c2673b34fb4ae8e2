"""The memory of one model: the last windows, and where each column stands between quiet and drift.

A pure state machine: no clock and no I/O, so replaying recorded windows gives the same bits. Called by the evaluator,
which stores `to_mapping` beside the cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final

from detectors.pane import Pane, total
from detectors.profile import Profile
from detectors.statistics import ColumnTest, Settings, examine, names
from servelens.contract.errors import StateError

OK, SUSPECT, DRIFT, RECOVERING, INSUFFICIENT, AUTOCORRELATED = range(6)  # as servelens_drift_state counts them
_CALMER: Final = {DRIFT: RECOVERING, RECOVERING: OK, SUSPECT: OK, OK: OK}
STATES: Final = ("ok", "suspect", "drift", "recovering", "insufficient", "autocorrelated")


@dataclass(frozen=True, slots=True)
class ColumnState:
    """`hits`: windows in a row that fired at scale 1; `quiet`: windows in a row without any hit.

    `since`: the number of the last window of the last drift. Merged windows reaching back to it are not looked at, else
    a drift that is over would be found a second time.
    """

    state: int = OK
    hits: int = 0
    quiet: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class ColumnResult:
    """One column, or the requests, after a window: its test (None: nothing was tested), at `scale` windows."""

    column: str
    previous: int
    state: int
    scale: int
    test: ColumnTest | None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What one window changed. `tested`: the scales tested in it; empty for too few rows."""

    window: Pane
    tested: tuple[int, ...]
    columns: tuple[ColumnResult, ...]

    @property
    def transitions(self) -> tuple[ColumnResult, ...]:
        """The columns whose state this window changed."""
        return tuple(column for column in self.columns if column.state != column.previous)


@dataclass(frozen=True, slots=True)
class MonitorState:
    """`windows`: how many were seen; `ring`: the newest of them, oldest first; `columns`: as `statistics.names` orders.

    `last`: the newest tests of each scale above 1, which stand until that scale's next turn.
    """

    windows: int
    columns: tuple[ColumnState, ...]
    ring: tuple[Pane, ...] = ()
    last: Mapping[int, tuple[ColumnTest, ...]] = field(default_factory=dict)

    @classmethod
    def start(cls, profile: Profile) -> "MonitorState":
        """Before the first window."""
        return cls(0, (ColumnState(),) * len(names(profile)))

    def to_mapping(self, profile: Profile) -> dict[str, Any]:
        """JSON form."""
        return {
            "profile": profile.digest,
            "windows": self.windows,
            "columns": {name: list(astuple(one)) for name, one in zip(names(profile), self.columns, strict=True)},
            "ring": [pane.to_mapping() for pane in self.ring],
            "last": {str(scale): [test.to_mapping() for test in tests] for scale, tests in self.last.items()},
        }

    @classmethod
    def from_mapping(cls, profile: Profile, mapping: Mapping[str, Any]) -> "MonitorState":
        """The inverse of `to_mapping`; StateError where it is of another profile or not a monitor's state."""
        if mapping.get("profile") != profile.digest:
            raise StateError("monitor: stored state is of another profile; start a new one for the new profile")
        try:
            return cls(
                mapping["windows"],
                tuple(ColumnState(*mapping["columns"][name]) for name in names(profile)),
                tuple(Pane.from_mapping(profile, pane).packed() for pane in mapping["ring"]),
                {int(at): tuple(map(ColumnTest.from_mapping, tests)) for at, tests in mapping["last"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"monitor: stored state is incomplete ({error!r}); replay the recorded cuts") from error


def step(state: MonitorState, window: Pane, profile: Profile, settings: Settings) -> tuple[MonitorState, WindowResult]:
    """One closed window (the sum of its panes) later.

    A window below `n_min` rows joins the ring untested; where nothing could be tested no column changes.
    """
    ring, now = (*state.ring, window.packed())[-max(settings.scales) :], state.windows + 1
    due = [k for k in settings.scales if len(ring) >= k and _turn(now, k) == now]
    tests = {k: _examine(ring[-k:], profile, settings) for k in due}
    tested = tuple(k for k in due if tests[k])
    standing = {k: v for k, v in sorted({**state.last, **tests}.items()) if v}
    columns, results = [], []
    for at, (name, before) in enumerate(zip(names(profile), state.columns, strict=True)):
        mine = {scale: found[at] for scale, found in standing.items() if _turn(now, scale) - scale >= before.since}
        after = advance(before, mine, now, settings) if tested else before
        columns.append(after)
        scale = _telling_scale(mine)
        results.append(ColumnResult(name, before.state, after.state, scale, mine.get(scale)))
    last = {scale: found for scale, found in standing.items() if scale > 1}
    return MonitorState(now, tuple(columns), ring, last), WindowResult(window, tested, tuple(results))


def _turn(now: int, scale: int) -> int:
    """The number of the newest window at which the scale was due."""
    return now - now % max(scale // 2, 1)


def _examine(panes: Sequence[Pane], profile: Profile, settings: Settings) -> tuple[ColumnTest, ...]:
    merged = total(panes)
    return examine(profile, merged, settings) if merged.size >= settings.n_min else ()


def _telling_scale(tests: Mapping[int, ColumnTest]) -> int:
    """The smallest scale that fired, else the smallest tested; 0 for none."""
    return min((scale for scale, test in tests.items() if test.fired), default=min(tests, default=0))


def advance(before: ColumnState, tests: Mapping[int, ColumnTest], now: int, settings: Settings) -> ColumnState:
    """A column's next state: drift once confirmed at scale 1, or at once by a larger scale; calmer when quiet."""
    hits = before.hits
    if 1 in tests:
        hits = hits + 1 if tests[1].fired else 0
    if hits >= settings.confirm or any(test.fired for scale, test in tests.items() if scale > 1):
        return replace(before, state=DRIFT, hits=hits, quiet=0)
    lingering = before.state in (DRIFT, RECOVERING)
    if hits:
        return replace(before, state=before.state if lingering else SUSPECT, hits=hits, quiet=0)
    quiet = before.quiet + 1
    if lingering and quiet < settings.clear:
        return replace(before, hits=0, quiet=quiet)
    since = now - quiet if before.state == DRIFT else before.since
    return ColumnState(_CALMER[before.state], since=since)

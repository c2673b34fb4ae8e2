"""What is remembered of one profile between cuts: open windows, a monitor a revision, comparisons, and what was said.

A pure function of the cuts applied so far, with `to_mapping` for snapshots. Apart from `evaluation`, which has many of
these and the logs. Judging a window is this module's: one verdict a revision, and one a pair of them.
"""

import base64
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from detectors.comparison import Comparison, compare
from detectors.monitor import ColumnState, MonitorState, step
from detectors.pane import Pane
from detectors.profile import Profile
from detectors.statistics import Settings
from detectors.verdict import COMPARISON, Circumstances, verdict
from detectors.windows import OpenWindows, Taken
from servelens.contract.identity import ModelIdentity

REMEMBERED: Final = 240  # windows a model's timeline shows
_FORGOTTEN: Final = 30 * 86_400  # seconds after which a revision without a window is forgotten
MAX_INFLATED: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class Seen:
    """One window of a model's timeline; `states`: one digit a column, as `monitor.STATES` counts.

    `pointers`: input → partition → [first, end) of the offsets that hold it.
    """

    id: str
    first: int
    last: int
    rows: int
    late: int
    coverage: float | str
    state: str
    states: str
    pointers: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class Model:
    """One revision: its monitor, its timeline, its newest verdict, and the last slot of the last one published."""

    monitor: MonitorState
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    latest: Mapping[str, Any] = field(default_factory=dict)
    told: int = -1


@dataclass(slots=True)
class Pair:
    """Two revisions: their comparison, its newest verdict, and the last slot of the last one published."""

    state: Comparison
    latest: Mapping[str, Any] = field(default_factory=dict)
    told: int = -1


@dataclass(slots=True)
class Watched:
    """Everything of one profile. `packed`: `models` and `pairs` as a snapshot has them, made once a cut."""

    profile: Profile
    windows: OpenWindows
    models: dict[ModelIdentity, Model] = field(default_factory=dict)
    pairs: dict[tuple[ModelIdentity, ModelIdentity], Pair] = field(default_factory=dict)
    packed: str = ""

    @classmethod
    def start(cls, profile: Profile) -> "Watched":
        """Before the first pane."""
        return cls(profile, OpenWindows(profile))

    def latest(self) -> list[Mapping[str, Any]]:
        """The newest verdict of every revision and pair."""
        said = [model.latest for model in self.models.values()] + [pair.latest for pair in self.pairs.values()]
        return [one for one in said if one]

    def judge(
        self, taken: Mapping[ModelIdentity, Taken], about: Circumstances, settings: Settings
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        """The verdicts of one cut, each with whether it is one to be published."""
        self.packed = ""
        for identity, part in taken.items():
            yield self._judge_one(identity, part, about, settings)
        enough = {who: part.window for who, part in taken.items() if part.window.size >= settings.n_min}
        if len(enough) > 1:
            most = max(enough, key=lambda who: (enough[who].size, who))
            for who in (who for who in enough if who != most):
                yield self._judge_pair(enough[who], enough[most], about, settings)
        self._forget(about)

    def _judge_one(
        self, identity: ModelIdentity, part: Taken, about: Circumstances, settings: Settings
    ) -> tuple[dict[str, Any], bool]:
        model = self.models.setdefault(identity, Model(MonitorState.start(self.profile)))
        model.monitor, result = step(model.monitor, part.window, self.profile, settings)
        source = "producer" if part.window.counters.get("producer_time") else "broker"
        about = replace(about, late_rows=part.late_rows, timesource=source, pointers=part.pointers)
        said = verdict(result, about, self.profile, settings)
        states = "".join(str(column.state) for column in result.columns)
        numbers = (about.first, about.last, part.window.rows, part.late_rows, said["coverage"])
        model.seen.append(Seen(said["id"], *numbers, said["state"], states, said["pointers"]))
        telling = self._telling(model, said, about)
        model.latest = said
        return said, telling

    def _judge_pair(
        self, here: Pane, there: Pane, about: Circumstances, settings: Settings
    ) -> tuple[dict[str, Any], bool]:
        pair = self.pairs.setdefault((here.identity, there.identity), Pair(Comparison.start(self.profile)))
        pair.state, result = compare(pair.state, here, there, self.profile, settings)
        about = replace(about, kind=COMPARISON, against=there.identity.revision or "(none)")
        said = verdict(result, about, self.profile, settings)
        telling = self._telling(pair, said, about)
        pair.latest = said
        return said, telling

    @staticmethod
    def _telling(subject: Model | Pair, said: Mapping[str, Any], about: Circumstances) -> bool:
        """Whether something changed, or nothing was said for a heartbeat's time."""
        changed = said["transitions"] or said["state"] != subject.latest.get("state")
        due = subject.told < 0 or about.last - subject.told >= about.heartbeat_slots
        telling = bool(changed or due or about.previous or about.following)
        if telling:
            subject.told = about.last
        return telling

    def _forget(self, about: Circumstances) -> None:
        oldest = about.last - _FORGOTTEN // about.slot_seconds
        for identity in [who for who, model in self.models.items() if model.seen[-1].last < oldest]:
            del self.models[identity]
        self.pairs = {pair: held for pair, held in self.pairs.items() if set(pair) <= set(self.models)}

    # -- snapshots --------------------------------------------------------------------------------------------

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON, without the profile."""
        if not self.packed:
            self.packed = base64.b64encode(zlib.compress(orjson.dumps(self._memory()), 1)).decode()
        return {"windows": self.windows.to_mapping(), "memory": self.packed}

    def _memory(self) -> dict[str, Any]:
        models = [
            {
                "identity": who.labels(),
                "monitor": model.monitor.to_mapping(self.profile),
                "seen": list(model.seen),
                "latest": model.latest,
                "told": model.told,
            }
            for who, model in self.models.items()
        ]
        pairs = [
            {
                "identities": [who.labels() for who in pair],
                "windows": held.state.windows,
                "columns": held.state.columns,
                "latest": held.latest,
                "told": held.told,
            }
            for pair, held in self.pairs.items()
        ]
        return {"models": models, "pairs": pairs}

    @classmethod
    def from_mapping(cls, profile: Profile, state: Mapping[str, Any]) -> "Watched":
        """The inverse; StateError for a monitor of another profile."""
        raw = zlib.decompressobj().decompress(base64.b64decode(state["memory"]), MAX_INFLATED)
        memory = orjson.loads(raw)
        found = cls(profile, OpenWindows.from_mapping(profile, state["windows"]), packed=state["memory"])
        for row in memory["models"]:
            seen = deque((Seen(**one) for one in row["seen"]), REMEMBERED)
            monitor = MonitorState.from_mapping(profile, row["monitor"])
            identity = ModelIdentity.from_mapping(row["identity"])
            found.models[identity] = Model(monitor, seen, row["latest"], row["told"])
        for row in memory["pairs"]:
            here, there = (ModelIdentity.from_mapping(one) for one in row["identities"])
            columns = tuple(ColumnState(**one) for one in row["columns"])
            found.pairs[here, there] = Pair(Comparison(row["windows"], columns), row["latest"], row["told"])
        return found

"""A logger's lanes: each has a tap, a recorder and a shipper of its own, and a spool that nobody else writes.

`--workers N` gives N lanes, which share nothing but the port (SO_REUSEPORT): one Python process forwards on one core.
The first lane's spool is the spool folder itself, the others' lie in it, so that N may change from one start to the
next: what an earlier start with more workers left behind is still shipped, by a lane without a tap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from logger import segment as segments

_PREFIX: Final = "worker-"
ORDER: Final = ("recorder", "tap", "shipper")  # of starting: a tap finds its socket
STOP_ORDER: Final = ("tap", "recorder", "shipper")  # of ending, along the flow: each can hand over


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane. `processes` are the names of those it runs; `spool_bytes` is its share of the bound."""

    index: int
    spool: Path
    socket: Path
    accounts: Path
    processes: tuple[str, ...]
    spool_bytes: int

    def name_of(self, process: str) -> str:
        """What a process is called among those of all lanes."""
        return f"{process}-{self.index}" if self.index else process


def left_behind(spool: Path, workers: int) -> list[int]:
    """Lanes of an earlier start, beyond `workers`, whose spools still hold segments."""
    found = (entry for entry in spool.glob(_PREFIX + "*") if entry.name.removeprefix(_PREFIX).isdigit())
    indices = sorted(int(entry.name.removeprefix(_PREFIX)) for entry in found)
    return [index for index in indices if index >= workers and segments.indices(_spool(spool, index))]


def lanes(
    spool: Path, socket: Path, accounts: Path, processes: Sequence[str], workers: int, spool_bytes: int,
    older: Iterable[int] = (),
) -> list[Lane]:  # fmt: skip
    """The lanes of `workers` workers, and of the `older` ones with what they need to be emptied."""
    older = list(older) if "recorder" in processes else []
    share = spool_bytes // (workers + len(older))

    def lane(index: int, names: Sequence[str]) -> Lane:
        ordered = tuple(name for name in ORDER if name in names)
        return Lane(index, _spool(spool, index), _beside(socket, index), _beside(accounts, index), ordered, share)

    return [lane(index, processes) for index in range(workers)] + [
        lane(index, [name for name in processes if name != "tap"]) for index in older
    ]


def _spool(folder: Path, index: int) -> Path:
    return folder / f"{_PREFIX}{index}" if index else folder


def _beside(path: Path, index: int) -> Path:
    return path.with_name(f"{path.stem}-{index}{path.suffix}") if index else path

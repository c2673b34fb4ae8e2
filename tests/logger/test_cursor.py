import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logger_processes import ROOT

from logger import cursor as cursors
from logger.backlog import Entry
from logger.segment import Row
from logger.shipping import advanced
from logger.state import OPEN, Cursor
from servelens.contract.errors import StateError

SAVER = """
import sys
from pathlib import Path
from logger.cursor import save
from logger.state import Cursor
for n in range(1, 10**9):
    save(Path(sys.argv[1]), Cursor("tap" * 20, n, n, n, n, n))
"""


def entry(segment: int, seq: int, exchanges: int = 1) -> Entry:
    return Entry(segment, f"tap-{segment}", Row(seq, exchanges, b"", b"", b"", 0))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert cursors.load(tmp_path) is None
    cursor = Cursor("t", 3, 99, 80, 70, 5)
    cursors.save(tmp_path, cursor)
    assert cursors.load(tmp_path) == cursor


@pytest.mark.parametrize("damage", [b"", b"\x00" * 60, b"{}}", b'{"segment": 1, "other": 2}', b"[1,2]"])
def test_an_unreadable_cursor_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / cursors.FILE).write_bytes(damage)
    assert cursors.load(tmp_path) is None


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_saving_it_leaves_one_whole_cursor(tmp_path: Path, seed: int) -> None:
    chance, last = random.Random(seed), 0
    for _ in range(3):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], cwd=ROOT)
        while (found := cursors.load(tmp_path)) is None or found.seq == last:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        found = cursors.load(tmp_path)
        assert found is not None
        assert found.segment == found.seq == found.total == found.shipped == found.refused > 0
        last = found.seq


def test_one_at_a_time_moves_the_cursor(tmp_path: Path) -> None:
    with cursors.moving(tmp_path) as first:
        assert first
        started = time.monotonic()
        with cursors.moving(tmp_path, patience=0.1) as second:
            assert not second
        assert 0.1 <= time.monotonic() - started < 1
    with cursors.moving(tmp_path) as again:
        assert again


def test_a_lock_is_waited_for_until_given_up(tmp_path: Path) -> None:
    held = cursors.wait_lock(tmp_path, "l.lock", lambda _: True)
    tries: list[float] = []

    def given_up(seconds: float) -> bool:
        tries.append(seconds)
        return len(tries) == 3

    with pytest.raises(StateError, match=r"l\.lock"):
        cursors.wait_lock(tmp_path, "l.lock", given_up)
    assert len(tries) == 3
    os.close(held)
    os.close(cursors.wait_lock(tmp_path, "l.lock", lambda _: True))


def test_the_cursor_moves_with_its_rows_over_segments() -> None:
    live = {4: (10, 12), 6: (15, OPEN)}
    rows = [(entry(4, 1), False), (entry(4, 2, 0), False), (entry(4, 3), True), (entry(6, 1), False)]
    assert advanced(Cursor("", 3, 9, 10, 8, 0), rows, live) == Cursor("tap-6", 6, 1, 16, 10, 1)


def test_rows_of_a_segment_given_up_meanwhile_are_passed_and_not_counted() -> None:
    live = {6: (15, OPEN)}
    rows = [(entry(4, 1), False), (entry(4, 2), True), (entry(6, 1), False)]
    assert advanced(Cursor("", 4, 0, 10, 8, 0), rows, live) == Cursor("tap-6", 6, 1, 16, 9, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=60), st.data())
def test_however_it_is_cut_into_moves_each_exchange_is_counted_once(flags: list[int], data: st.DataObject) -> None:
    rows = [(entry(1 + number // 20, number + 1, flag), False) for number, flag in enumerate(flags)]
    spans = {index: (sum(flags[: (index - 1) * 20]), OPEN) for index in (1, 2, 3)}
    cursor, done = Cursor(), 0
    while done < len(rows):
        step = data.draw(st.integers(1, 10))
        cursor = advanced(cursor, rows[done : done + step], spans)
        done = min(len(rows), done + step)
        assert cursor.shipped == cursor.total == sum(flags[:done])
        assert cursor.seq == done

"""The spool's files: order, the bound under both policies, repair. Small segments, real SQLite."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from logger import cursor as cursors
from logger import segment as segments
from logger.backlog import Backlog, Entry
from logger.segment import Row
from logger.shipping import advanced
from logger.spool import CORRUPT, Batch, Policy, Spool
from logger.state import Cursor, Reported, rebuilt, waiting
from servelens.contract.errors import ConfigError, StateError

KEY, HEADERS = b"k", b'[["ce_id","x"]]'


def opened(folder: Path, policy: Policy = "drop-new", limit: int = 1 << 20, boot: str = "boot") -> Spool:
    return Spool(folder, limit, policy, segment_bytes=64 << 10, boot=lambda: boot)


def batch(spool: Spool, rows: int, size: int = 100, stream: str = "tap") -> Batch:
    made = Batch()
    for number in range(spool.state.seq + 1, spool.state.seq + rows + 1):
        made.add(Row(number, 1, KEY, HEADERS, b"v" * size, number))
    made.frames[stream] = spool.state.streams.get(stream, 0) + rows
    return made


def read_all(folder: Path, start: tuple[int, int] = (0, 0)) -> list[Entry]:
    backlog, found = Backlog(folder), list[Entry]()
    while entries := backlog.read(start, 1000, 1 << 30):
        found += entries
        start = entries[-1].position
    backlog.close()
    return found


def ship(folder: Path, rows: list[Entry]) -> None:
    """Move the cursor past rows, as the shipper does."""
    newest = segments.newest_state(folder)
    assert newest is not None
    now = cursors.load(folder) or rebuilt(newest[1])
    cursors.save(folder, advanced(now, [(entry, False) for entry in rows], newest[1].segments))


def unshipped(spool: Spool) -> int:
    cursor = cursors.load(spool.folder) or rebuilt(spool.state)
    return waiting(spool.state, cursor, segments.indices(spool.folder))


def damage(folder: Path, index: int) -> None:
    for side in ("-wal", "-shm"):
        segments.path_of(folder, index).with_suffix(".db" + side).unlink(missing_ok=True)
    segments.path_of(folder, index).write_bytes(b"\x00nothing like a database" * 500)


def test_rows_come_back_in_order_over_many_segments_numbered_from_one(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(20):
        assert spool.commit(batch(spool, 25, size=800))
    rows = read_all(tmp_path)
    assert [entry.row.seq for entry in rows] == list(range(1, 501))
    assert {entry.tapid for entry in rows} == {spool.state.tapid}
    assert len(segments.indices(tmp_path)) > 3
    assert [entry.segment for entry in rows] == sorted(entry.segment for entry in rows)


def test_rows_frames_and_account_are_one_commit(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    made = batch(spool, 3)
    made.reasons = Counter(filtered=2)
    made.reported = Reported(5, 7, {"filtered": 1})
    spool.commit(made)
    before = spool.state
    spool.close()
    state = opened(tmp_path).state
    assert state == before
    assert (state.seq, state.spooled, state.streams, state.reasons) == (3, 3, {"tap": 3}, {"filtered": 2})
    assert state.reported == Reported(5, 7, {"filtered": 1})


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 3))
    before, made = spool.state, batch(spool, 3)
    other = sqlite3.connect(segments.path_of(tmp_path, 1), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spool._segment._db.execute("PRAGMA busy_timeout=1")
    with pytest.raises(sqlite3.OperationalError):
        spool.commit(made)
    other.execute("ROLLBACK")
    other.close()
    assert (spool.state, len(read_all(tmp_path))) == (before, 3)
    assert spool.commit(made)
    assert len(read_all(tmp_path)) == 6


def test_rows_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    made = batch(spool, 2)
    spool.commit(made)
    with pytest.raises(StateError, match="does not follow"):
        spool.commit(made)


def test_drop_new_keeps_the_bound_and_counts_what_does_not_fit(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    kept = sum(20 for _ in range(150) if spool.commit(batch(spool, 20, size=800)))
    assert segments.bytes_in(tmp_path) <= 1 << 20
    assert 200 <= kept < 3000
    assert spool.state.reasons == {"spool_full": 3000 - kept}
    assert spool.state.streams == {"tap": 3000}
    assert [entry.row.seq for entry in read_all(tmp_path)] == list(range(1, kept + 1))


def test_room_comes_back_once_the_rows_are_shipped(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    while spool.commit(batch(spool, 20, size=800)):
        pass
    ship(tmp_path, read_all(tmp_path))
    assert spool.commit(batch(spool, 20, size=800))
    assert len(segments.indices(tmp_path)) <= 2
    assert read_all(tmp_path)[-1].row.seq == spool.state.seq


@pytest.mark.parametrize("rows", [1, 40, 150])
def test_a_spool_of_which_all_is_shipped_always_has_room(tmp_path: Path, rows: int) -> None:
    spool, total = Spool(tmp_path, 1 << 20, boot=lambda: "boot"), 0
    backlog, place = Backlog(tmp_path), (0, 0)
    for _ in range(1200 // rows):
        assert spool.commit(batch(spool, rows, size=1000)), spool.bytes()
        assert spool.bytes() <= 1 << 20
        entries = backlog.read(place, 1000, 1 << 30)
        while entries:
            ship(tmp_path, entries)
            total, place = total + len(entries), entries[-1].position
            entries = backlog.read(place, 1000, 1 << 30)
        assert (total, unshipped(spool)) == (spool.state.spooled, 0)
    backlog.close()
    spool.close()
    again = Spool(tmp_path, 1 << 20, boot=lambda: "boot")
    assert (again.state.spooled, again.state.reasons, unshipped(again)) == (total, {}, 0)
    again.close()


def test_drop_old_keeps_the_bound_and_counts_the_unshipped_of_what_it_gives_up(tmp_path: Path) -> None:
    spool = opened(tmp_path, "drop-old")
    for _ in range(5):
        spool.commit(batch(spool, 20, size=800))
    ship(tmp_path, read_all(tmp_path)[:30])
    for _ in range(145):
        assert spool.commit(batch(spool, 20, size=800))
    assert segments.bytes_in(tmp_path) <= 1 << 20
    left = read_all(tmp_path)
    assert left[-1].row.seq == 3000
    assert [entry.row.seq for entry in left] == list(range(3000 - len(left) + 1, 3001))
    assert spool.state.reasons == {"spool_full": 3000 - 30 - len(left)}
    assert unshipped(spool) == len(left)


def test_drop_old_gives_up_at_most_a_quarter_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20, "drop-old", segment_bytes=1 << 30)
    held = 0
    while "spool_full" not in spool.state.reasons:
        held = spool.state.spooled
        spool.commit(batch(spool, 10, size=800))
    assert spool.state.reasons["spool_full"] <= held / 2


def test_what_is_given_up_is_not_counted_as_shipped_by_rows_in_flight(tmp_path: Path) -> None:
    spool = opened(tmp_path, "drop-old")
    spool.commit(batch(spool, 20, size=800))
    in_flight = read_all(tmp_path)
    while "spool_full" not in spool.state.reasons:
        spool.commit(batch(spool, 20, size=800))
    ship(tmp_path, in_flight)
    cursor = cursors.load(tmp_path)
    assert cursor is not None
    assert (cursor.seq, cursor.shipped) == (20, 0)
    assert spool.state.spooled == spool.state.reasons["spool_full"] + unshipped(spool)


def test_a_shipper_that_reads_meets_a_hole_and_goes_on(tmp_path: Path) -> None:
    spool = opened(tmp_path, "drop-old")
    spool.commit(batch(spool, 20, size=800))
    backlog = Backlog(tmp_path)
    first = backlog.read((0, 0), 5, 1 << 20)
    while "spool_full" not in spool.state.reasons:
        spool.commit(batch(spool, 20, size=800))
    after = backlog.read(first[-1].position, 5, 1 << 20)
    assert after[0].segment > first[0].segment
    assert after[0].row.seq == min(entry.row.seq for entry in read_all(tmp_path))
    backlog.close()


def test_a_read_stops_at_its_budget_but_gives_at_least_one_row(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 10, size=1000))
    backlog = Backlog(tmp_path)
    assert len(backlog.read((0, 0), 100, 1)) == 1
    assert len(backlog.read((0, 0), 100, 3000)) == 3
    assert len(backlog.read((0, 0), 4, 1 << 20)) == 4
    assert backlog.read((1, 10), 4, 1 << 20) == []
    backlog.close()


def test_a_damaged_old_segment_is_marked_by_the_reader_and_moved_by_the_writer(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(20):
        spool.commit(batch(spool, 25, size=800))
    rows = read_all(tmp_path)
    second = [entry for entry in rows if entry.segment == 2]
    ship(tmp_path, [entry for entry in rows if entry.segment == 1] + second[:4])
    spool.tidy()
    assert segments.indices(tmp_path)[0] == 2
    damage(tmp_path, 2)
    assert read_all(tmp_path, second[3].position) == []
    assert segments.marked_damaged(tmp_path) == [2]
    spool.tidy()
    assert segments.indices(tmp_path / CORRUPT) == [2]
    assert segments.marked_damaged(tmp_path) == []
    assert spool.state.reasons == {"spool_lost": len(second) - 4}
    assert next(entry.row.seq for entry in read_all(tmp_path, second[3].position)) == second[-1].row.seq + 1
    assert unshipped(spool) == 500 - len([entry for entry in rows if entry.segment <= 2])


def test_a_damaged_newest_segment_costs_its_rows_and_the_tapid(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(20):
        spool.commit(batch(spool, 25, size=800))
    newest = segments.indices(tmp_path)[-1]
    whole = [entry for entry in read_all(tmp_path) if entry.segment < newest]
    old, kept_frames = spool.state, len(whole)
    spool.close()
    damage(tmp_path, newest)
    spool = opened(tmp_path)
    assert spool.state.tapid != old.tapid
    assert spool.state.seq == 0
    assert spool.state.streams == {"tap": kept_frames}, "the tap is asked to send again from there"
    again = batch(spool, 10)
    again.missing = 500 - kept_frames
    spool.commit(again)
    assert spool.state.reasons == {"spool_lost": 500 - kept_frames}
    rows = read_all(tmp_path)
    assert [entry.row.seq for entry in rows] == list(range(1, kept_frames + 1)) + list(range(1, 11))
    assert rows[-1].segment > newest
    assert segments.indices(tmp_path / CORRUPT) == [newest]


def test_a_newest_segment_the_shipper_cannot_read_is_repaired_while_it_runs(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 5))
    old = spool.state
    segments.mark_damaged(tmp_path, 1)
    with pytest.raises(StateError):
        spool.tidy()
    spool.repair({"tap": 5})
    assert spool.state.tapid != old.tapid
    assert spool.state.reasons == {"spool_lost": 5}, "its state can still be read, so nothing has to be sent again"
    assert spool.state.streams == {"tap": 5}
    assert spool.commit(batch(spool, 1))


@pytest.mark.parametrize("also_cursor", [False, True])
def test_a_spool_of_nothing_but_damage_starts_afresh(tmp_path: Path, also_cursor: bool) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 5))
    ship(tmp_path, read_all(tmp_path)[:3])
    spool.close()
    damage(tmp_path, 1)
    if also_cursor:
        (tmp_path / cursors.FILE).write_bytes(b"\x00\x00")
    spool = opened(tmp_path)
    assert spool.state.seq == 0
    assert spool.commit(batch(spool, 2))
    assert [(entry.segment, entry.row.seq) for entry in read_all(tmp_path, (1, 3))] == [(2, 1), (2, 2)]


def test_a_new_boot_takes_a_new_tapid_and_loses_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 5))
    first = spool.state.tapid
    spool.close()
    spool = opened(tmp_path, boot="another")
    assert (spool.state.seq, spool.state.spooled, spool.state.streams) == (0, 5, {"tap": 5})
    spool.commit(batch(spool, 2))
    assert [(entry.tapid == first, entry.row.seq) for entry in read_all(tmp_path)] == [
        *((True, seq) for seq in range(1, 6)),
        (False, 1),
        (False, 2),
    ]


def test_the_same_boot_goes_on_under_the_same_tapid(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 5))
    first = spool.state.tapid
    spool.close()
    spool = opened(tmp_path)
    spool.commit(batch(spool, 2))
    assert {entry.tapid for entry in read_all(tmp_path)} == {first}
    assert [entry.row.seq for entry in read_all(tmp_path)] == list(range(1, 8))


def test_a_state_behind_the_cursor_means_row_numbers_were_given_twice(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 5))
    first = spool.state.tapid
    cursors.save(tmp_path, Cursor(first, 1, 9, 9, 9, 0))
    spool.close()
    spool = opened(tmp_path)
    assert spool.state.tapid != first
    assert unshipped(spool) == 0


def test_segments_left_by_a_death_between_commit_and_deletion_are_deleted(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(10):
        spool.commit(batch(spool, 25, size=800))
    rows = read_all(tmp_path)
    ship(tmp_path, rows)
    first = segments.path_of(tmp_path, 1)
    first.with_name("kept").write_bytes(first.read_bytes())
    spool.tidy()
    spool.close()
    first.with_name("kept").rename(first)
    spool = opened(tmp_path)
    assert 1 not in segments.indices(tmp_path)
    assert unshipped(spool) == 0


def test_one_recorder_at_a_time(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with pytest.raises(StateError, match="another process"):
        opened(tmp_path)
    spool.close()
    opened(tmp_path).close()


def test_settings_that_cannot_work_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--spool-bytes"):
        opened(tmp_path, limit=1000)
    with pytest.raises(ConfigError, match="--spool-policy"):
        opened(tmp_path, "drop-all")  # type: ignore[arg-type]


def test_what_an_earlier_version_left_is_read_and_written_on(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.commit(batch(spool, 3))
    spool.close()
    index = segments.indices(tmp_path)[-1]
    with closing(sqlite3.connect(segments.path_of(tmp_path, index), isolation_level=None)) as old:
        old.executescript("ALTER TABLE rows DROP COLUMN topic; PRAGMA user_version=1;")
    assert [entry.row.topic for entry in read_all(tmp_path)] == ["", "", ""]
    spool = opened(tmp_path)
    made = Batch(offered=1)
    made.add(Row(4, 1, KEY, HEADERS, b"v", 4, "labels"))
    assert spool.commit(made)
    assert [entry.row.topic for entry in read_all(tmp_path)] == ["", "", "", "labels"]
    assert spool.state.offered == 1
    spool.close()

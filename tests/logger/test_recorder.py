"""The recorder as a process: real sockets, real files, killed where it hurts."""

import random
import resource
import signal
import socket
import time
from functools import partial
from pathlib import Path

import orjson
import pytest
from logger_processes import House, close_pipes, end, running, start, wait_for
from tap_end import TapEnd, exchange

from logger import capture
from logger import segment as segments
from logger.segment import unpack_headers
from logger.spool import CORRUPT
from servelens.contract.events import Accounting, Exchange
from servelens.contract.records import decode


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def exchange_ids(house: House) -> list[str]:
    return [entry.row.key.decode() for entry in house.rows() if entry.row.exchanges]


def test_every_frame_is_committed_once_and_acknowledged(house: House) -> None:
    with running(house.recorder()) as recorder:
        tap = TapEnd(house.socket, house.accounts)
        sent = [exchange() for _ in range(700)]
        tap.offer(*sent)
        tap.drain()
        account = house.account()
        assert (account.offered, account.waiting, account.adds_up) == (700, 700, True)
        assert end(recorder).count('"level":"error"') == 0
    assert exchange_ids(house) == [one.exchangeid for one in sent]
    tap.die()


def test_a_lone_frame_does_not_wait_for_others(house: House) -> None:
    with running(house.recorder()):
        tap = TapEnd(house.socket, house.accounts)
        tap.pump(20, until=lambda: tap._greeted)
        started = time.monotonic()
        tap.offer(exchange())
        tap.drain()
        assert time.monotonic() - started < 0.5
        tap.die()


def test_frames_sent_again_after_a_new_connection_are_not_taken_twice(house: House) -> None:
    with running(house.recorder()):
        tap = TapEnd(house.socket, house.accounts)
        sent = [exchange() for _ in range(300)]
        for start_at in range(0, 300, 30):
            tap.offer(*sent[start_at : start_at + 30])
            tap.pump(0.01)
            tap.hang_up()
        tap.drain()
        tap.die()
    assert exchange_ids(house) == [one.exchangeid for one in sent]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_commits_every_frame_exactly_once(house: House, seed: int) -> None:
    chance = random.Random(seed)
    sent: dict[str, list[str]] = {}
    taps = [TapEnd(house.socket, house.accounts) for _ in range(2)]
    recorder = start(house.recorder("--segment-bytes", "100000"))
    for _ in range(5):
        wait_for(lambda: _connects(house.socket))
        until = time.monotonic() + chance.uniform(0.05, 0.6)
        while time.monotonic() < until:
            for tap in taps:
                more = [exchange() for _ in range(chance.randint(0, 20))]
                sent.setdefault(tap.stream, []).extend(one.exchangeid for one in more)
                tap.offer(*more)
                tap.pump(0.01)
        end(recorder, kill=True)
        recorder = start(house.recorder("--segment-bytes", "100000"))
    for tap in taps:
        tap.drain()
    account = house.account()
    total = sum(map(len, sent.values()))
    assert total > 200
    assert (account.offered, account.waiting, account.adds_up) == (total, total, True)
    assert sum(account.reasons.values()) == 0
    for tap in taps:
        tap.die()
    wait_for(lambda: not list(house.accounts.iterdir()))
    end(recorder)
    found = exchange_ids(house)
    assert len(found) == len(set(found)) == total
    for ids in sent.values():
        ours = set(ids)
        assert [key for key in found if key in ours] == ids, "each stream's frames in their order"
    seqs = [entry.row.seq for entry in house.rows()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len({entry.tapid for entry in house.rows()}) == 1


def _told_again(house: House, count: int) -> bool:
    return len([entry for entry in house.rows() if not entry.row.exchanges]) >= count


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_dead_tap_is_settled_and_its_lost_exchanges_are_crash(house: House) -> None:
    with running(house.recorder()) as recorder:
        alive, dead = TapEnd(house.socket, house.accounts), TapEnd(house.socket, house.accounts)
        for tap in (alive, dead):
            tap.offer(*(exchange() for _ in range(10)))
            tap.drain()
        dead.account.add("offered")  # one under way
        dead.account.add("offered")
        dead.account.add("over_budget")
        dead.offer(exchange(), exchange())  # two handed over, not sent
        dead.die()
        wait_for(lambda: house.account().reasons["crash"] > 0)
        account = house.account()
        assert (account.reasons["crash"], account.reasons["over_budget"]) == (3, 1)
        assert (account.offered, account.waiting, account.adds_up) == (24, 20, True)
        wait_for(lambda: [path.name for path in house.accounts.iterdir()] == [alive.account.path.name])
        alive.die()
        end(recorder)
    assert house.account().offered == 24


def test_taps_that_died_while_the_recorder_was_dead_are_settled_when_it_starts(house: House) -> None:
    tap = TapEnd(house.socket, house.accounts)
    with running(house.recorder()) as recorder:
        tap.offer(*(exchange() for _ in range(5)))
        tap.drain()
        end(recorder, kill=True)
    tap.offer(exchange())
    tap.die()
    with running(house.recorder()):
        wait_for(lambda: house.account().reasons["crash"] == 1)
        account = house.account()
        assert (account.offered, account.waiting, account.adds_up) == (6, 5, True)


def test_what_a_dead_tap_left_in_its_socket_is_read_before_it_is_settled(house: House) -> None:
    with running(house.recorder()) as recorder:
        tap = TapEnd(house.socket, house.accounts)
        tap.pump(20, until=lambda: tap._greeted)
        recorder.send_signal(signal.SIGSTOP)
        tap.offer(*(exchange() for _ in range(50)))
        tap.pump(0.3)
        assert tap.unacked == 50
        tap.die()
        recorder.send_signal(signal.SIGCONT)
        wait_for(lambda: not list(house.accounts.iterdir()))
        account = house.account()
        assert (account.reasons["crash"], account.waiting, account.adds_up) == (0, 50, True)


def test_at_the_end_it_reads_commits_settles_and_tells_the_slot(house: House) -> None:
    with running(house.recorder()) as recorder:
        tap = TapEnd(house.socket, house.accounts)
        tap.pump(20, until=lambda: tap._greeted)
        recorder.send_signal(signal.SIGSTOP)
        tap.offer(*(exchange() for _ in range(50)))
        tap.pump(0.3)
        tap.account.add("offered")
        tap.die()
        recorder.terminate()
        recorder.send_signal(signal.SIGCONT)
        recorder.wait(10)
        assert recorder.returncode == 0
    account = house.account()
    assert (account.offered, account.waiting, account.reasons["crash"], account.adds_up) == (51, 50, 1, True)
    assert list(house.accounts.iterdir()) == []
    told = [entry.row for entry in house.rows() if not entry.row.exchanges]
    events = [decode(unpack_headers(row.headers), row.value) for row in told]
    assert all(isinstance(event, Accounting) for event in events)
    assert sum(event.offered for event in events if isinstance(event, Accounting)) == 51
    assert sum(event.reasons.get("crash", 0) for event in events if isinstance(event, Accounting)) == 1


def test_slots_are_told_without_gap_or_overlap_across_a_kill(house: House) -> None:
    tap = TapEnd(house.socket, house.accounts)
    for _ in range(2):
        with running(house.recorder("--accounting-seconds", "0.4")) as recorder:
            tap.offer(*(exchange() for _ in range(7)), exchange("/metrics", method="GET"))
            tap.drain()
            before = len([entry for entry in house.rows() if not entry.row.exchanges])
            wait_for(partial(_told_again, house, before + 2))
            end(recorder, kill=True)
    rows = [entry.row for entry in house.rows() if not entry.row.exchanges]
    events = [decode(unpack_headers(row.headers), row.value) for row in rows]
    told = [event for event in events if isinstance(event, Accounting)]
    assert len(told) == len(rows) >= 4
    assert [event.from_us for event in told[1:]] == [event.to_us for event in told[:-1]]
    assert all(event.to_us % 400_000 == 0 for event in told)
    assert sum(event.offered for event in told) == 16
    assert sum(event.reasons.get("filtered", 0) for event in told) == 2
    assert [row.key.decode() for row in rows] == [event.tapid for event in told]
    assert [row.seq for row in rows] == [event.seq for event in told]
    tap.die()


@pytest.mark.parametrize("policy", ["drop-new", "drop-old"])
def test_a_full_spool_drops_and_counts_and_goes_on_acknowledging(house: House, policy: str) -> None:
    with running(house.recorder("--spool-bytes", str(1 << 20), "--spool-policy", policy)):
        tap = TapEnd(house.socket, house.accounts)
        for _ in range(10):
            tap.offer(*(exchange(body=b"x" * 2000) for _ in range(100)))
            tap.drain()
        account = house.account()
        assert account.adds_up
        assert account.reasons["spool_full"] > 300
        assert account.waiting == 1000 - account.reasons["spool_full"] > 50
        assert segments.bytes_in(house.spool) <= 1 << 20
        tap.die()


def test_a_volume_that_takes_no_more_stops_the_reading_and_nothing_is_lost_when_it_does_again(house: House) -> None:
    with running(house.recorder()) as recorder:
        tap = TapEnd(house.socket, house.accounts)
        tap.offer(exchange())
        tap.drain()
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
        tap.offer(*(exchange(body=b"x" * 2000) for _ in range(400)))
        tap.pump(2.0)
        assert recorder.poll() is None
        assert tap.unacked > 100
        assert house.account().adds_up
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        tap.drain()
        account = house.account()
        assert (account.offered, account.waiting, account.adds_up) == (401, 401, True)
        assert len(exchange_ids(house)) == len(set(exchange_ids(house))) == 401
        tap.die()
        assert "reading stops" in end(recorder)


@pytest.mark.parametrize(("mode", "per_exchange"), [("all", 2), ("request", 1), ("response", 1), ("none", 0)])
def test_split_modes_count_exchanges_and_not_rows(house: House, mode: str, per_exchange: int) -> None:
    with running(house.recorder("--log-mode", mode)):
        tap = TapEnd(house.socket, house.accounts)
        tap.offer(*(exchange() for _ in range(40)))
        tap.drain()
        account = house.account()
        assert (account.offered, account.adds_up) == (40, True)
        assert account.waiting == (40 if per_exchange else 0)
        assert account.reasons["not_logged"] == (0 if per_exchange else 40)
        assert len(house.rows()) == 40 * per_exchange
        tap.die()


def test_a_damaged_newest_segment_does_not_stop_it(house: House) -> None:
    tap = TapEnd(house.socket, house.accounts)
    with running(house.recorder()) as recorder:
        tap.offer(*(exchange() for _ in range(20)))
        tap.drain()
        segments.mark_damaged(house.spool, 1)
        wait_for(lambda: segments.indices(house.spool / CORRUPT) == [1])
        tap.offer(*(exchange() for _ in range(5)))
        tap.drain()
        assert recorder.poll() is None
        account = house.account()
        assert (account.offered, account.waiting, account.reasons["spool_lost"]) == (25, 5, 20)
        assert account.adds_up
        tap.die()


def test_damage_found_at_the_start_asks_the_tap_for_what_it_still_has(house: House) -> None:
    tap = TapEnd(house.socket, house.accounts)
    with running(house.recorder()) as recorder:
        tap.offer(*(exchange() for _ in range(20)))
        tap.drain()
        end(recorder, kill=True)
    tap.offer(*(exchange() for _ in range(5)))
    for path in house.spool.glob("segment-*"):
        path.write_bytes(b"\x00 nothing " * 500)
    with running(house.recorder()):
        tap.drain()
        account = house.account()
        assert (account.offered, account.waiting, account.reasons["spool_lost"]) == (25, 5, 20)
        assert account.adds_up
        tap.die()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        capture.frame(1, b"before the hello"),
        capture.hello("../../etc/passwd"),
        capture.hello("nobody-has-such-a-file"),
        capture.frame(0, b"[]"),
        capture.FRAME_HEAD.pack(1 << 31, 5),
    ],
)
def test_a_connection_that_is_no_tap_s_is_closed_and_harms_nobody(house: House, rubbish: bytes) -> None:
    with running(house.recorder()) as recorder:
        tap = TapEnd(house.socket, house.accounts)
        tap.offer(exchange())
        tap.drain()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(house.socket))
            stranger.sendall(rubbish)
            stranger.settimeout(5)
            if rubbish[:3] != b"GET":
                assert stranger.recv(10) == b""
        tap.offer(exchange())
        tap.drain()
        tap.die()
        assert recorder.poll() is None
        wait_for(lambda: not list(house.accounts.iterdir()))


def test_it_ends_when_its_parent_is_gone(house: House) -> None:
    recorder = start(house.recorder())
    wait_for(house.socket.exists)
    assert recorder.stdin is not None
    recorder.stdin.close()
    assert recorder.wait(10) == 0
    assert recorder.stderr is not None
    lines = [orjson.loads(line) for line in recorder.stderr]
    assert lines[-1]["message"] == "ended"
    close_pipes(recorder)


def test_a_successor_waits_until_its_predecessor_has_let_go(house: House) -> None:
    with running(house.recorder()) as first:
        wait_for(house.socket.exists)
        with running(house.recorder()) as second:
            time.sleep(1.0)
            assert second.poll() is None
            end(first)
            tap = TapEnd(house.socket, house.accounts)
            tap.offer(exchange())
            tap.drain()
            tap.die()


def test_what_goes_into_the_spool_is_the_exchange(house: House) -> None:
    with running(house.recorder("--revision", "iris-00001")):
        tap = TapEnd(house.socket, house.accounts)
        sent = exchange("/v1/models/iris:predict")
        tap.offer(sent)
        tap.drain()
        tap.die()
    (entry,) = [entry for entry in house.rows() if entry.row.exchanges]
    found = decode(unpack_headers(entry.row.headers), entry.row.value)
    assert isinstance(found, Exchange)
    assert (found.exchangeid, found.seq, found.tapid) == (sent.exchangeid, 1, house.state().tapid)
    assert found.identity.labels() == {
        "namespace": "shop",
        "inferenceservice": "iris",
        "component": "predictor",
        "modelname": "iris",
        "revision": "iris-00001",
    }

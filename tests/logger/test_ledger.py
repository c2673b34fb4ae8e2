"""The account under everything that can happen to the files, played through in one process with real ones."""

import asyncio
import random
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tap_end import exchange

from logger import capture, cursor, ledger
from logger import segment as segments
from logger.account import AccountFile
from logger.backlog import Backlog, Entry
from logger.intake import Intake
from logger.ledger import summarise
from logger.recording import Recorder
from logger.shipping import advanced
from logger.spool import Policy, Spool
from logger.state import EMPTY, rebuilt
from servelens.contract.identity import ModelIdentity
from servelens.contract.metrics import Instruments

IDENTITY = ModelIdentity("shop", "iris")


class Tap:
    def __init__(self, accounts: Path, name: str) -> None:
        self.name, self.account, self.acked = name, AccountFile(accounts, name), 0
        self.frames: dict[int, bytes] = {}

    def offer(self, count: int, payload: bytes) -> None:
        for _ in range(count):
            self.account.add("offered")
            self.frames[self.account.add("handed")] = payload


class World:
    """One logger without processes: taps, recorder and shipper are turned by hand, in any order."""

    def __init__(self, root: Path, policy: Policy, seed: int) -> None:
        self.spool, self.accounts, self.policy = root / "spool", root / "taps", policy
        self.accounts.mkdir()
        self.chance = random.Random(seed)
        self.taps: list[Tap] = []
        self.names = 0
        self.boot = "boot-1"
        self.backlog = Backlog(self.spool)
        self.in_flight: list[Entry] = []
        self.delivered = set[bytes]()
        self.open()

    def open(self) -> None:
        spool = Spool(
            self.spool, 1 << 20, self.policy, segment_bytes=64 << 10, boot=lambda: self.boot,
            handed=ledger.handed_over(self.accounts),
        )  # fmt: skip
        intake = Intake(IDENTITY, batch_bytes=16 << 10)
        self.recorder = Recorder(
            spool, intake, self.accounts, IDENTITY, Instruments(CollectorRegistry()), slot_seconds=3600
        )

    # What may happen.

    def new_tap(self) -> None:
        self.names += 1
        self.taps.append(Tap(self.accounts, f"tap-{self.names}"))

    def offer(self) -> None:
        if self.taps:
            tap = self.chance.choice(self.taps)
            for _ in range(self.chance.randint(1, 30)):
                tap.offer(1, capture.encode(exchange(body=b"x" * self.chance.choice((20, 3000)))))
            if self.chance.random() < 0.3:
                tap.account.add("offered")
                tap.account.add("over_budget")

    def record(self) -> None:
        for tap in self.taps:
            for number in sorted(tap.frames):
                self.recorder.take(tap.name, number, tap.frames[number])
        self.recorder.commit()
        committed = self.recorder.spool.state.streams
        for tap in self.taps:
            tap.acked = max(tap.acked, committed.get(tap.name, 0))
            tap.frames = {number: frame for number, frame in tap.frames.items() if number > tap.acked}

    def tick(self) -> None:
        self.recorder.tick()

    def kill_tap(self) -> None:
        if self.taps:
            tap = self.taps.pop(self.chance.randrange(len(self.taps)))
            tap.account.add("offered")  # one is open
            tap.account.close()

    def read(self) -> None:
        state = (segments.newest_state(self.spool) or (0, EMPTY))[1]
        now = cursor.load(self.spool) or rebuilt(state)
        position = self.in_flight[-1].position if self.in_flight else (now.segment, now.seq)
        self.in_flight += self.backlog.read(position, self.chance.randint(1, 60), 1 << 20)

    def land(self) -> None:
        self.delivered |= {entry.row.key for entry in self.in_flight if entry.row.exchanges}
        with cursor.moving(self.spool) as still:
            assert still
            found = segments.newest_state(self.spool)
            if found and self.in_flight:
                now = cursor.load(self.spool) or rebuilt(found[1])
                cursor.save(self.spool, advanced(now, [(entry, False) for entry in self.in_flight], found[1].segments))
        self.in_flight.clear()

    def restart_recorder(self) -> None:
        self.recorder.spool.close()
        self.open()

    def restart_machine(self) -> None:
        self.boot = f"boot-{self.chance.random()}"
        self.restart_recorder()

    def restart_shipper(self) -> None:
        self.in_flight.clear()
        self.backlog.close()

    def lose_cursor(self) -> None:
        self.restart_shipper()
        (self.spool / cursor.FILE).unlink(missing_ok=True)

    def damage_old(self) -> None:
        old = segments.indices(self.spool)[:-1]
        if old:
            self.damage(self.chance.choice(old))

    def damage_newest(self) -> None:
        self.recorder.spool.close()
        self.damage(segments.indices(self.spool)[-1])
        self.open()

    def damage(self, index: int) -> None:
        self.backlog.close()
        for side in ("-wal", "-shm"):
            segments.path_of(self.spool, index).with_suffix(".db" + side).unlink(missing_ok=True)
        segments.path_of(self.spool, index).write_bytes(b"not what it was" * 999)

    def finish(self) -> None:
        for tap in self.taps:
            tap.account.close()
        self.taps.clear()
        for _ in range(200):
            self.tick()
            self.read()
            self.land()
        self.recorder.spool.close()
        self.backlog.close()


USUAL = ("new_tap", "offer", "offer", "offer", "record", "record", "tick", "kill_tap", "read", "read", "land")
FAULTS = (
    "restart_recorder", "restart_machine", "restart_shipper", "damage_old", "damage_newest", "lose_cursor",
)  # fmt: skip


@pytest.mark.parametrize("policy", ["drop-new", "drop-old"])
@pytest.mark.parametrize("seed", range(6))
def test_the_account_adds_up_after_every_step(tmp_path: Path, policy: Policy, seed: int) -> None:
    async def play() -> None:
        world = World(tmp_path, policy, seed)
        weights = [6] * len(USUAL) + [1] * len(FAULTS)
        steps = world.chance.choices(USUAL + FAULTS, weights, k=150)
        for number, step in enumerate(steps):
            getattr(world, step)()
            account = summarise(world.spool, world.accounts)
            assert account.adds_up, f"step {number} {step}: {account} {steps[max(0, number - 6) : number + 1]}"
            assert account.waiting >= 0
            assert all(count >= 0 for count in account.reasons.values()), account
        world.finish()
        account = summarise(world.spool, world.accounts)
        assert account.adds_up, account
        assert account.waiting == 0, account
        assert account.shipped <= len(world.delivered), "something is called shipped that never was"
        assert account.offered - len(world.delivered) <= sum(account.reasons.values())
        assert list(world.accounts.glob("*.account")) == []

    asyncio.run(play())


def test_of_nothing_the_account_is_all_zero(tmp_path: Path) -> None:
    account = summarise(tmp_path / "spool", tmp_path / "taps")
    assert (account.offered, account.shipped, account.waiting, sum(account.reasons.values())) == (0, 0, 0, 0)
    assert account.adds_up


def test_an_account_file_that_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "odd.account").write_bytes(b"x" * 10)
    AccountFile(tmp_path, "tap").add("offered")
    assert summarise(tmp_path / "spool", tmp_path).offered == 1


def test_an_open_exchange_is_waiting_and_a_dropped_one_is_not(tmp_path: Path) -> None:
    account = AccountFile(tmp_path / "taps", "tap")
    for name in ("offered", "offered", "offered", "handed", "over_budget"):
        account.add(name)
    found = summarise(tmp_path / "spool", tmp_path / "taps")
    assert (found.offered, found.waiting, found.reasons["over_budget"]) == (3, 2, 1)
    assert found.adds_up


def test_reading_beside_a_writer_never_raises_and_always_adds_up(tmp_path: Path) -> None:
    world = World(tmp_path, "drop-old", seed=5)
    world.new_tap()
    stop = threading.Event()
    wrong: list[object] = []

    def reading() -> None:
        while not stop.is_set():
            try:
                account = summarise(world.spool, world.accounts)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                wrong.append(error)
                return
            if not account.adds_up:
                wrong.append(account)

    async def write() -> None:
        for _ in range(60):
            for step in (world.offer, world.record, world.read, world.land, world.tick):
                step()

    reader = threading.Thread(target=reading)
    reader.start()
    asyncio.run(write())
    stop.set()
    reader.join()
    assert wrong == []
    assert summarise(world.spool, world.accounts).offered > 100

import asyncio

from logger import later
from logger.later import Later


def run(seconds: float, queue: Later, *pieces: bytes) -> list[tuple[bytes, int]]:
    seen: list[tuple[bytes, int]] = []

    async def main() -> None:
        for piece in pieces:
            queue.add(lambda data: seen.append((data, queue.tick())), piece)
        await asyncio.sleep(seconds)

    asyncio.run(main())
    return seen


def clock() -> Later:
    now = iter(range(1, 10**9))
    return Later(lambda: next(now))


def test_each_is_looked_at_in_order_as_of_when_it_passed() -> None:
    queue = clock()
    assert run(0.1, queue, b"a", b"b", b"c") == [(b"a", 1), (b"b", 2), (b"c", 3)]
    assert queue.tick() == 4


def test_nothing_waits_once_there_is_enough_of_it() -> None:
    assert len(run(0, clock(), *[b"x"] * later.COUNT)) == later.COUNT
    assert len(run(0, clock(), *[b"x"] * (later.COUNT - 1))) == 0
    assert len(run(0, clock(), b"x" * later.BYTES)) == 1

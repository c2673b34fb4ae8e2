"""Coalescing, de-duplication, caching, and one model for one explanation; the predictor is a function here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from explainers.batching import Batcher
from explainers.budget import Budget
from explainers.cache import Cache
from explainers.coding import Array, Coding, Rows
from explainers.session import Session, alike
from servelens.contract.errors import DeadlineExceeded, Overloaded, TooLarge, UpstreamChanged, UpstreamError
from servelens.contract.schema import parse_model
from servelens.contract.table import Table

SCHEMA = parse_model(
    "{schemaversion: 1, identity: {namespace: n, inferenceservice: i}, "
    "features: [{name: x, type: numeric}, {name: y, type: numeric}], outputs: {kind: values}}"
)
CODING = Coding(SCHEMA, Table.of({"x": np.zeros(1), "y": np.zeros(1)}))


class Told:
    """What the batcher reports."""

    def __init__(self) -> None:
        self.rows = {"cached": 0, "duplicate": 0}
        self.changes = 0
        self.waiting: list[int] = []
        self.errors: list[Exception] = []

    def saved(self, reason: str, rows: int) -> None:
        self.rows[reason] += rows

    def pending(self, rows: int) -> None:
        self.waiting.append(rows)

    def changed(self) -> None:
        self.changes += 1

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


class Predictor:
    """x + scale × y, slowly; counts what it was asked."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.scale, self.calls, self.lanes = delay, 10.0, list[int](), list[str]()
        self.open = self.most = 0
        self.then: Callable[[], Any] = lambda: None

    async def __call__(self, rows: Rows, seconds: float, lane: str) -> Array:
        assert seconds > 0
        self.calls.append(len(rows))
        self.lanes.append(lane)
        self.open += 1
        self.most = max(self.most, self.open)
        scale = self.scale
        self.then()
        await asyncio.sleep(self.delay)
        self.open -= 1
        answer: Array = (rows.matrix[:, 0] + scale * rows.matrix[:, 1])[:, None]
        return answer


def rows(*pairs: tuple[float, float]) -> Rows:
    return Rows(np.array(pairs, float))


def batcher(call: Any, told: Told | None = None, **more: Any) -> Batcher:
    return Batcher(call, CODING, rows((0, 1)), told or Told(), Cache(100), **more)


def session(
    of: Batcher, row: tuple[float, float] = (7, 7), seconds: float = 5, limit: int = 10_000, lane: str = ""
) -> Session:
    return of.session(rows(row), Budget.of(seconds, limit), lane)


def run(what: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await what

    return asyncio.run(whole())


def test_sessions_that_ask_at_once_share_one_call() -> None:
    call, told = Predictor(), Told()

    async def ask() -> list[Array]:
        one = batcher(call, told)
        return list(
            await asyncio.gather(*(session(one, (at, 0)).ask(rows((at, 1), (at, 2), (5, 5))) for at in range(4)))
        )

    answers = run(ask())
    assert [answer[:, 0].tolist() for answer in answers] == [[at + 10, at + 20, 55] for at in range(4)]
    # The marker (0, 1), which the first session asks about too; four sentinels, seven more rows of their own, (5, 5).
    assert call.calls == [13]
    assert told.rows["duplicate"] == 4


def test_no_call_is_larger_than_allowed_and_no_more_are_open() -> None:
    call = Predictor(0.01)

    async def ask() -> Array:
        one = batcher(call, batch_rows=50, in_flight=2)
        return await session(one).ask(Rows(np.arange(100.0, 700).reshape(300, 2)))

    answer = run(ask())
    assert np.array_equal(answer[:, 0], np.arange(100, 700, 2) + 10 * np.arange(101, 700, 2))
    assert max(call.calls) <= 50
    assert call.most == 2
    assert sum(call.calls) == 300 + 2 * len(call.calls)


def test_a_small_question_does_not_wait_behind_a_large_one() -> None:
    call = Predictor(0.01)

    async def ask() -> list[str]:
        one, order = batcher(call, batch_rows=20, in_flight=1), list[str]()

        async def named(name: str, asked: Rows) -> None:
            await session(one, (len(name), 0)).ask(asked)
            order.append(name)

        large = asyncio.create_task(named("large", Rows(np.arange(800.0).reshape(400, 2))))
        await asyncio.sleep(0.015)
        await asyncio.gather(large, named("small", rows((1, 1))))
        return order

    assert run(ask()) == ["small", "large"]


def test_kept_rows_are_asked_once() -> None:
    call, told = Predictor(), Told()

    async def ask() -> tuple[Array, Array, Array]:
        one = batcher(call, told)
        first = await session(one).ask(rows((1, 1), (2, 2), (1, 1)), keep=True)
        again = await session(one).ask(rows((2, 2), (1, 1)), keep=True)
        mixed = await session(one).ask(rows((3, 3), (2, 2)), keep=True)
        return first, again, mixed

    first, again, mixed = run(ask())
    assert [first[:, 0].tolist(), again[:, 0].tolist(), mixed[:, 0].tolist()] == [[11, 22, 11], [22, 11], [33, 22]]
    assert call.calls == [4, 3]
    assert told.rows["cached"] == 3


def test_the_cache_forgets_by_age_and_number() -> None:
    now = [0.0]
    cache = Cache(2, 60, lambda: now[0])
    for at in range(3):
        cache.put(at, np.array([float(at)]))
    assert cache.get(0) is None
    assert cache.get(2) is not None
    now[0] = 61
    assert cache.get(2) is None
    assert len(cache) == 1
    long = Cache(2, 10_000, lambda: now[0])
    long.put("a", np.zeros(1))
    now[0] += 61
    assert long.get("a") is None


def test_a_model_that_changes_between_two_parts_ends_the_session() -> None:
    call, told = Predictor(), Told()

    async def ask() -> None:
        one = batcher(call, told)
        mine = session(one)
        await mine.ask(rows((1, 1)))
        call.scale = 20.0
        with pytest.raises(UpstreamChanged, match="two answers to the same row"):
            await mine.ask(rows((2, 2)))
        assert (await session(one).ask(rows((2, 2))))[0, 0] == 42

    run(ask())
    assert told.changes == 1


def test_what_was_cached_of_another_model_is_not_mixed_in() -> None:
    call = Predictor()

    async def ask() -> None:
        one = batcher(call)
        await session(one).ask(rows((1, 1)), keep=True)
        call.scale = 20.0
        mine = session(one)
        assert (await mine.ask(rows((1, 1)), keep=True))[0, 0] == 11  # the old model's, as far as anybody knows
        with pytest.raises(UpstreamChanged):
            await mine.ask(rows((2, 2)))
        assert (await session(one).ask(rows((1, 1)), keep=True))[0, 0] == 21

    run(ask())


def test_rounding_is_no_change() -> None:
    call = Predictor()

    async def ask() -> None:
        mine = session(batcher(call))
        await mine.ask(rows((1, 1)))
        call.scale *= 1 + 1e-8
        await mine.ask(rows((2, 2)))

    run(ask())


def test_lanes_share_neither_calls_nor_answers() -> None:
    call = Predictor()

    async def ask() -> None:
        one = batcher(call)
        await asyncio.gather(*(session(one, lane=lane).ask(rows((1, 1)), keep=True) for lane in ("a", "b", "a")))

    run(ask())
    assert sorted(call.lanes) == ["a", "b"]
    assert call.calls == [3, 3]


def test_an_error_reaches_all_who_were_in_the_call_and_nobody_else() -> None:
    async def broken(rows: Rows, seconds: float, lane: str) -> Array:
        raise UpstreamError("no")

    async def ask() -> list[Any]:
        one = batcher(broken)
        return list(await asyncio.gather(*(session(one).ask(rows((at, 0))) for at in range(3)), return_exceptions=True))

    assert [type(error) for error in run(ask())] == [UpstreamError] * 3


def test_an_unexpected_error_is_reported_and_nobody_waits_for_ever() -> None:
    told = Told()

    async def buggy(rows: Rows, seconds: float, lane: str) -> Array:
        raise KeyError("bug")

    with pytest.raises(UpstreamError, match="the log"):
        run(session_ask(batcher(buggy, told)))
    assert [type(error) for error in told.errors] == [KeyError]


async def session_ask(of: Batcher, **more: Any) -> Array:
    return await session(of, **more).ask(rows((1, 1)))


def test_the_deadline_ends_the_waiting_and_the_rest_is_not_sent() -> None:
    call = Predictor(0.2)

    async def ask() -> Batcher:
        one = batcher(call, batch_rows=10, in_flight=1)
        with pytest.raises(DeadlineExceeded):
            await session(one, seconds=0.1).ask(Rows(np.arange(200.0).reshape(100, 2)))
        await asyncio.sleep(0.3)
        return one

    assert run(ask()).pending == 0
    assert len(call.calls) <= 2


def test_rows_are_bounded_for_a_session_and_for_all() -> None:
    with pytest.raises(TooLarge, match="max_rows"):
        run(session_ask(batcher(Predictor()), limit=0))
    with pytest.raises(Overloaded, match="ask again later"):
        run(session_ask(batcher(Predictor(), pending_rows=0)))


def test_the_prediction_comes_with_whatever_is_asked() -> None:
    call = Predictor()

    async def ask() -> float:
        mine = session(batcher(call), (3, 4))
        await mine.ask(rows((1, 1)))
        return float((await mine.predict())[0])

    assert run(ask()) == 43
    assert len(call.calls) == 1


def test_one_sessions_bad_row_fails_that_session_alone() -> None:
    class Picky(Predictor):
        async def __call__(self, rows: Rows, seconds: float, authorization: str) -> Array:
            outputs = await super().__call__(rows, seconds, authorization)
            if (rows.matrix == 666).any():
                raise UpstreamError("unknown 666")
            return outputs

    async def ask() -> list[Any]:
        one = batcher(Picky())
        asks = (session(one, (at, 0)).ask(rows((at, 1), (666 if at == 1 else 5, 5))) for at in range(3))
        return list(await asyncio.gather(*asks, return_exceptions=True))

    good, bad, other = run(ask())
    assert good[:, 0].tolist() == [10, 55]
    assert other[:, 0].tolist() == [12, 55]
    assert isinstance(bad, UpstreamError)


def test_many_sessions_and_small_calls_still_make_full_calls() -> None:
    call = Predictor()

    async def ask() -> None:
        one = batcher(call, batch_rows=64, in_flight=2)
        await asyncio.gather(
            *(session(one, (at, 0)).ask(Rows(np.arange(400.0).reshape(200, 2) + at)) for at in range(64))
        )

    run(ask())
    assert max(call.calls) <= 64
    assert np.mean(call.calls) > 50


def test_a_models_number_is_never_anothers() -> None:
    """More models than markers are remembered within the cache's time: the first one's answers are not the ninth's."""
    call = Predictor()

    async def ask() -> list[float]:
        one, said = batcher(call), list[float]()
        for scale in range(1, 12):
            call.scale = float(scale)
            await session(one).ask(rows((9, 9)))
            said.append(float((await session(one).ask(rows((1, 1)), keep=True))[0, 0]))
        return said

    assert run(ask()) == [1.0 + scale for scale in range(1, 12)]


def test_callers_are_forgotten_and_their_secrets_not_kept() -> None:
    call = Predictor()

    async def ask() -> Batcher:
        one = batcher(call)
        for at in range(300):
            await session(one, lane=f"Bearer secret-{at}").ask(rows((1, 1)), keep=True)
        return one

    one = run(ask())
    assert len(one._lanes) == 256
    assert "secret" not in repr(list(one._lanes)) + repr(list(one.cache._kept))


def test_what_is_near_zero_is_judged_by_the_scale_beside_it() -> None:
    """A float32 sum of large terms: 1e-4 of difference is nothing beside outputs of a thousand."""
    assert alike(np.array([1e-4]), np.array([0.0]), 1000.0)
    assert not alike(np.array([1e-4]), np.array([0.0]), 1.0)
    assert not alike(np.array([1000.0]), np.array([1001.0]), 1000.0)

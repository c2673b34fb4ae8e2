"""`permutation_shap`: Shapley values by antithetic permutation walks, stratified over the background rows.

Every background row is walked equally often, so their differences add nothing to the error; what it costs is rows of
the predictor: 2 (features − 1) a pair. Where all coalitions cost no more than the walks, all are asked and the values
are exact. Walks go out in bounded parts, background rows in random order: whatever has been answered by the deadline is
an estimate too. The default method. `walks` and `standard_error` hold the mathematics, with sources.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from explainers import walks
from explainers.coding import Array
from explainers.explanation import Attributions, Explanation
from explainers.methods import Task
from explainers.standard_error import sampled_error, standard_error
from servelens.contract.errors import DeadlineExceeded, TooLarge, UpstreamError

PAIRS: Final = 5  # of walks a background row, at most
STEPS: Final = 56  # features × pairs to aim at: narrow models are cheap, so they get more walks
EXACT_FEATURES: Final = 16  # at most, for all coalitions
PART_ROWS: Final = 1024  # of the predictor, in one part: what is late is lost by the part
PARTS: Final = 8  # made and asked at once, so that memory does not grow with the work


@dataclass(frozen=True, slots=True)
class Plan:
    """`rows` background rows, each walked `pairs` times or, if `exact`, over all coalitions; `each` rows a time.

    `sampled`: they are not all the background has, so its spread is part of the error. `whole`: the row budget cut
    nothing.
    """

    rows: int
    pairs: int
    each: int
    exact: bool
    sampled: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """What is asked at once: the inner rows of some background rows' walks in one round."""

    round: int
    some: slice


async def explain(task: Task) -> Explanation:
    """Attributions of every output. Options: `pairs`. Raises UpstreamError and its kin, Overloaded, TooLarge."""
    began = time.monotonic()
    random, features = np.random.default_rng(task.seed), len(task.x)
    plan = plan_of(features, len(task.background), task.budget.rows, task.options.get("pairs"))
    background = task.background.matrix[random.permutation(len(task.background))[: plan.rows]]
    orders = [walks.orders(random, plan.rows, features) for _ in range(plan.pairs)]
    parts = _parts(plan)
    start, answers = await _ask(task, plan, background, orders, parts)
    end = await task.session.predict()

    def estimate() -> Attributions:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by `_mean`
            rounds = _rounds(plan, parts, answers, orders, start, end)
            return _attributions(rounds, plan, background, start, task.x)

    found = await asyncio.to_thread(estimate)
    complete = plan.whole and found.pairs == plan.pairs and found.background_rows == plan.rows
    return task.explained("permutation_shap", end, found, time.monotonic() - began, complete=complete)


def plan_of(features: int, background: int, max_rows: int, pairs: int | None = None) -> Plan:
    """As many pairs as aimed at; fewer, and then fewer background rows, where `max_rows` does not allow them.

    Raises TooLarge if it does not even allow two background rows: an error needs two.
    """
    wanted, each = pairs or min(PAIRS, max(1, STEPS // features)), 2 * (features - 1)
    room = max_rows - 1  # the explained row itself
    if features <= EXACT_FEATURES and 2**features - 2 <= wanted * each and background * (2**features - 1) <= room:
        return Plan(background, 1, 2**features - 2, exact=True, sampled=False, whole=True)
    rows = min(background, room // (each + 1))
    if rows < 2:
        raise TooLarge("max_rows", f"of explainer.yaml is {max_rows}, this model needs {2 * each + 3} at least")
    fit = max(1, min(wanted, (room - rows) // (each * rows))) if rows == background else 1
    whole = rows == background and fit == wanted
    return Plan(rows, fit, each, exact=False, sampled=rows < background, whole=whole)


def _parts(plan: Plan) -> list[_Part]:
    """All first walks before the second ones, so that lateness costs precision evenly."""
    size = max(1, PART_ROWS // max(1, plan.each))
    return [
        _Part(number, slice(first, min(first + size, plan.rows)))
        for number in range(plan.pairs)
        for first in range(0, plan.rows, size)
    ]


async def _ask(
    task: Task, plan: Plan, background: Array, orders: Sequence[Array], parts: Sequence[_Part]
) -> tuple[Array, list[Array | None]]:
    """Outputs of the background rows, and of each part's rows, None where they came too late."""
    some_at_once = asyncio.Semaphore(PARTS)

    async def one(part: _Part) -> Array:
        async with some_at_once:
            rows = background[part.some]
            if plan.exact:
                inner = walks.all_rows(task.x, rows)
            else:
                inner = walks.pair_rows(task.x, rows, orders[part.round][part.some])
            # Of the explained row, since it knows the texts of its own categories.
            outputs = await task.session.ask(task.row.mixed(inner.reshape(-1, len(task.x))))
            return outputs.reshape(len(rows), plan.each, -1)

    start = asyncio.ensure_future(task.session.ask(task.background.mixed(background), keep=True))
    asked = [asyncio.ensure_future(one(part)) for part in parts] if plan.each else []
    try:
        await asyncio.wait([start, *asked], timeout=task.budget.left(), return_when=asyncio.FIRST_EXCEPTION)
        answers = [_answer(future) for future in asked]
        return await start, answers
    finally:
        for future in (start, *asked):
            future.cancel()


def _answer(future: "asyncio.Future[Array]") -> Array | None:
    """What came in time; an error other than lateness is raised."""
    if not future.done():
        return None
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, DeadlineExceeded):
        return None
    raise error


def _rounds(
    plan: Plan,
    parts: Sequence[_Part],
    answers: Sequence[Array | None],
    orders: Sequence[Array],
    start: Array,
    end: Array,
) -> list[Array]:
    """Contributions of each round, (rows, features, outputs); NaN in the rows that were not answered."""
    features, outputs = orders[0].shape[1], start.shape[1]
    rounds = [np.full((plan.rows, features, outputs), np.nan) for _ in orders]
    if not plan.each:  # one feature alone: its walk has no inner rows
        answers = [np.empty((part.some.stop - part.some.start, 0, outputs)) for part in parts]
    for part, given in zip(parts, answers, strict=True):
        if given is None:
            continue
        if plan.exact:
            found = walks.exact_contributions(given, start[part.some], end, features)
        else:
            inner = given.reshape(given.shape[0], 2, features - 1, outputs)
            found = walks.pair_contributions(inner, start[part.some], end, orders[part.round][part.some])
        rounds[part.round][part.some] = found
    return rounds


def _attributions(rounds: Sequence[Array], plan: Plan, background: Array, start: Array, x: Array) -> Attributions:
    """From the rounds that are whole; from what there is of the first, if not even that is."""
    whole = [contributions for contributions in rounds if not np.isnan(contributions).any()]
    if not whole:
        known = ~np.isnan(rounds[0]).any(axis=(1, 2))
        if known.sum() < 2:
            raise DeadlineExceeded("no explanation within the deadline; allow more time, or ask for less")
        return _mean(rounds[0][known], sampled_error(rounds[0][known]), start[known], 1)
    pairs = np.array(whole)
    if plan.sampled:
        errors = sampled_error(pairs.mean(axis=0))
    elif plan.exact:
        errors = np.zeros(pairs.shape[2:])
    else:
        errors = standard_error(pairs, background, start, x)
    return _mean(pairs.mean(axis=0), errors, start, len(whole), plan.exact)


def _mean(contributions: Array, errors: Array, start: Array, pairs: int, exact: bool = False) -> Attributions:
    """Contributions (rows, features, outputs), errors (features, outputs); the values add up to prediction − base."""
    values = contributions.mean(axis=0).T
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        raise UpstreamError("the predictor's outputs are too large to add up and square; scale them")
    return Attributions(start.mean(axis=0), values, errors.T, contributions.shape[0], pairs, exact)

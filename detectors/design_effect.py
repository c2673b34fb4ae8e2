"""How much less a row says than an independent row would: the design effect of a time-ordered reference.

Apart from `columns` since it is the one estimate there; all else is counted. Called by
`profile.build_profile`, once a column and once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detectors.bins import Bins, Counts

BLOCKS: Final = 20
# Correlation longer than a twentieth of the reference shows in longer blocks only, and few blocks say it badly.
RESOLUTIONS: Final = (20, 10, 5)
SHUFFLES: Final = 19  # so that one of twenty columns without any correlation is taken for one with it
SURE: Final = 5.0  # standard deviations of the shuffles beyond which a column's own longer blocks are believed
CONFIDENCE: Final = 0.9  # of the upper bound put on what stands out
EXPECTED: Final = 1  # rows of a level in a block, else pooled


@dataclass(frozen=True, slots=True)
class Orders:
    """`shuffled`: `SHUFFLES` permutations of the rows; `seasons`: (rows,) each row's of `count`, None without any."""

    shuffled: Sequence[NDArray[np.intp]]
    seasons: NDArray[np.intp] | None = None
    count: int = 1


_Spread = Callable[[Counts, NDArray[np.float64]], NDArray[np.float64]]


def shuffles(rows: int, seed: int, seasons: NDArray[np.intp] | None = None, count: int = 1) -> Orders:
    """The row orders without any correlation that every column is compared with; rows keep their season."""
    generator = np.random.default_rng(seed)
    if seasons is None:
        return Orders([generator.permutation(rows) for _ in range(SHUFFLES)])
    grouped = np.argsort(seasons, kind="stable")
    found = []
    for _ in range(SHUFFLES):
        order = np.empty(rows, np.intp)
        order[grouped] = np.lexsort((generator.random(rows), seasons))
        found.append(order)
    return Orders(found, seasons, count)


def _ordered(blocks: Counts, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """(blocks, bins) to mean squared distance of the blocks' cumulative curves to the expected: largest, average.

    Times the block's rows, as blocks of many nulls have fewer; those of nothing else say nothing.
    """
    held = blocks[:, :-1].any(1)
    ranges = blocks[held, :-1]
    apart = (_cumulative(ranges) - _cumulative(expected[held, :-1])) ** 2 * ranges.sum(1, keepdims=True)
    return np.array([apart.max(1).mean(), apart.mean()]) if len(ranges) > 1 else np.zeros(2)


def _cumulative(counts: NDArray[np.float64] | Counts) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.cumsum(counts, 1) / np.maximum(counts.sum(1, keepdims=True), 1e-300)
    return shares


def _unordered(blocks: Counts, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """(blocks, bins) to the eigenvalues of the blocks' standardised counts: mean, largest; 1 for independent rows.

    Rao and Scott (1984): the mean corrects Pearson's statistic on average, but where one combination of levels is
    correlated and the rest is not, only the largest bounds its tail.
    """
    seen, wanted = _pool(blocks.astype(np.float64), expected)
    apart = (seen - wanted) / np.sqrt(np.maximum(wanted, 1e-300))
    free = (len(seen) - 1) * max(seen.shape[1] - 1, 1)
    largest = float(np.linalg.eigvalsh(apart @ apart.T)[-1])
    return np.array([(apart**2).sum() / free, largest / (len(seen) - 1)])


def _pool(
    blocks: NDArray[np.float64], expected: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Without empty levels, and those with fewer than `EXPECTED` rows a block as one, unless that is all of them."""
    total = blocks.sum(0)
    rare = total < EXPECTED * BLOCKS
    if rare.all():
        return blocks[:, total > 0], expected[:, total > 0]
    pooled = []
    for counts in (blocks, expected):
        rest = counts[:, rare].sum(1, keepdims=True)
        pooled.append(np.hstack((counts[:, ~rare], rest)) if total[rare].any() else counts[:, ~rare])
    return pooled[0], pooled[1]


# By kind of column: the statistics, and whether their value for independent rows is known only from the shuffles.
_SPREADS: Final[Mapping[str, tuple[_Spread, bool]]] = {"numeric": (_ordered, True), "categorical": (_unordered, False)}


@dataclass(frozen=True, slots=True)
class Excess:
    """What stands out above 1 in a column, by the number of blocks in `RESOLUTIONS`; 0 where it is not `telling`.

    `telling`: whether some resolution shows more than every shuffle does.
    """

    by_blocks: tuple[float, ...]
    telling: bool


def excess(numbers: NDArray[np.intp], size: int, kind: str, orders: Orders) -> Excess:
    """The variance of a column's statistic between time blocks, over that of the same rows shuffled, less 1.

    `numbers`: (rows,) bin numbers in time order.
    """
    known = _SPREADS[kind][1] or orders.seasons is not None
    own = _spreads(numbers, size, kind, orders.seasons)
    shuffled = [_spreads(numbers[order], size, kind, orders.seasons) for order in orders.shuffled]
    found = [_beyond(own[at], np.array([one[at] for one in shuffled]), known, at) for at in RESOLUTIONS]
    return Excess(tuple(value for value, _ in found), any(telling for _, telling in found))


def null_excess(numbers: NDArray[np.intp], bins: Bins, orders: Orders) -> Excess:
    """The same for the rate of nulls, which come in bursts of their own."""
    return excess((numbers == bins.size - 1).astype(np.intp), 2, "categorical", orders)


def _beyond(own: NDArray[np.float64], shuffled: NDArray[np.float64], relative: bool, blocks: int) -> tuple[float, bool]:
    usual = shuffled.mean(0)
    unit = usual if relative else np.ones_like(usual)
    telling = (unit > 0) & (own > shuffled.max(0))
    sure = (unit > 0) & (own > usual + SURE * shuffled.std(0))
    counted = unit > 0 if blocks == BLOCKS else sure
    return max(0.0, float(((own - usual)[counted] / unit[counted]).max(initial=0.0))), bool(telling.any())


def growth(found: Sequence[Excess]) -> float:
    """How much more the longer blocks show than those of a twentieth, over all columns that show anything; ≥ 1.

    What makes rows alike (a session, an hour) mostly does so in many columns, and one column alone says too little
    of it: five blocks leave a relative error of two thirds, twenty columns of five blocks one of a sixth.
    """
    sums = [sum(one.by_blocks[at] for one in found if one.telling) for at in range(len(RESOLUTIONS))]
    return max(1.0, *(value / sums[0] for value in sums)) if sums[0] > 0 else 1.0


def design_effect(found: Excess, grown: float = 1.0) -> float:
    """An upper bound (at `CONFIDENCE`) of how many correlated rows weigh as one independent row (Kish 1965); ≥ 1.

    The bound is the chi-square one for the variance of twenty blocks. Correlation longer than a fifth of the
    reference cannot be seen in it. Four digits, so that the last bits of a platform's arithmetic reach no digest.
    """
    raised = (BLOCKS - 1) / float(stats.chi2.ppf(1 - CONFIDENCE, BLOCKS - 1))
    return round(1.0 + max(raised * grown * found.by_blocks[0], *found.by_blocks[1:]), 4)


def _spreads(
    numbers: NDArray[np.intp], size: int, kind: str, seasons: NDArray[np.intp] | None
) -> dict[int, NDArray[np.float64]]:
    """Each resolution's statistics of the rows in this order."""
    block = np.arange(len(numbers)) * BLOCKS // len(numbers)
    counts = np.bincount(block * size + numbers, minlength=BLOCKS * size).reshape(BLOCKS, size)
    expected = _expected(numbers, size, block, counts, seasons)
    spread = _SPREADS[kind][0]
    return {
        blocks: spread(counts.reshape(blocks, BLOCKS // blocks, size).sum(1), expected.reshape(blocks, -1, size).sum(1))
        for blocks in RESOLUTIONS
    }


def _expected(
    numbers: NDArray[np.intp], size: int, block: NDArray[np.intp], counts: Counts, seasons: NDArray[np.intp] | None
) -> NDArray[np.float64]:
    """(BLOCKS, bins) rows each block would hold if only its seasons mattered."""
    if seasons is None:
        alike: NDArray[np.float64] = counts.sum(1, keepdims=True) * (counts.sum(0) / max(len(numbers), 1))
        return alike
    most = int(seasons.max()) + 1
    by_season = np.bincount(seasons * size + numbers, minlength=most * size).reshape(most, size)
    shares = by_season / np.maximum(by_season.sum(1, keepdims=True), 1)
    present = np.bincount(block * most + seasons, minlength=BLOCKS * most).reshape(BLOCKS, most)
    mixed: NDArray[np.float64] = present @ shares
    return mixed

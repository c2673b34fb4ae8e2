"""How much less a row says than an independent row would: the design effect of a time-ordered reference.

Apart from `columns` since it is the one estimate there; all else is counted. Called once a column by
`profile.build_profile`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.bins import Bins, Counts

BLOCKS: Final = 20
SHUFFLES: Final = 5
# Twenty blocks leave the estimate a relative standard error of sqrt(2 / 19) = 0.32, and blocks shorter than the
# correlation see only part of it: what stands out above 1 is taken half as large again.
MARGIN: Final = 1.5
EXPECTED: Final = 1  # rows of a level in a block, else pooled

Orders = Sequence[NDArray[np.intp]]  # SHUFFLES permutations of the rows
_Spread = Callable[[Counts], NDArray[np.float64]]


def shuffles(rows: int, seed: int) -> Orders:
    """The row orders without any correlation that every column is compared with."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(rows) for _ in range(SHUFFLES)]


def _ordered(blocks: Counts) -> NDArray[np.float64]:
    """(BLOCKS, bins) to mean squared distance of each block's cumulative curve to the others': largest, average.

    Times the block's rows, as blocks of many nulls have fewer; those of nothing else say nothing.
    """
    ranges = blocks[blocks[:, :-1].any(1), :-1]
    rest = ranges.sum(0) - ranges
    apart = (_cumulative(ranges) - _cumulative(rest)) ** 2 * ranges.sum(1, keepdims=True)
    return np.array([apart.max(1).mean(), apart.mean()]) if len(ranges) > 1 else np.zeros(2)


def _cumulative(counts: Counts) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.cumsum(counts, 1) / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def _unordered(blocks: Counts) -> NDArray[np.float64]:
    """(BLOCKS, bins) to the eigenvalues of the blocks' standardised counts: mean, largest; 1 for independent rows.

    Rao and Scott (1984): the mean corrects Pearson's statistic on average, but where one combination of levels is
    correlated and the rest is not, only the largest bounds its tail.
    """
    pooled = _pool(blocks)
    expected = pooled.sum(1, keepdims=True) * (pooled.sum(0) / pooled.sum())
    apart = (pooled - expected) / np.sqrt(expected)
    free = (len(pooled) - 1) * max(pooled.shape[1] - 1, 1)
    largest = float(np.linalg.eigvalsh(apart @ apart.T)[-1])
    return np.array([(apart**2).sum() / free, largest / (len(pooled) - 1)])


def _pool(blocks: Counts) -> Counts:
    """Without empty levels, and those with fewer than `EXPECTED` rows a block as one, unless that is all of them."""
    total = blocks.sum(0)
    rare = total < EXPECTED * len(blocks)
    if rare.all():
        return blocks[:, total > 0]
    rest = blocks[:, rare].sum(1, keepdims=True)
    return np.hstack((blocks[:, ~rare], rest)) if rest.any() else blocks[:, ~rare]


# By kind of column: the statistics, and whether their value for independent rows is known only from the shuffles.
_SPREADS: Final[Mapping[str, tuple[_Spread, bool]]] = {"numeric": (_ordered, True), "categorical": (_unordered, False)}


def design_effect(numbers: NDArray[np.intp], size: int, kind: str, orders: Orders) -> float:
    """Variance of the column's statistic over `BLOCKS` time blocks, over that of the same rows shuffled; ≥ 1.

    `numbers`: (rows,) bin numbers in time order. Kish (1965): m correlated rows weigh as m / deff independent ones.
    Correlation longer than rows / 20 is seen only in part. Four digits, so that the last bits of a platform's
    arithmetic do not reach a profile's digest.
    """
    block = np.arange(len(numbers)) * BLOCKS // len(numbers)
    spread, relative = _SPREADS[kind]

    def of(order: NDArray[np.intp]) -> NDArray[np.float64]:
        return spread(np.bincount(block * size + order, minlength=BLOCKS * size).reshape(BLOCKS, size))

    shuffled = np.mean([of(numbers[order]) for order in orders], axis=0)
    unit = shuffled if relative else np.ones_like(shuffled)
    excess = (of(numbers) - shuffled)[unit > 0] / unit[unit > 0]
    return round(1.0 + MARGIN * float(excess.max(initial=0.0)), 4)


def null_design_effect(numbers: NDArray[np.intp], bins: Bins, orders: Orders) -> float:
    """The same for the rate of nulls, which come in bursts of their own."""
    return design_effect((numbers == bins.size - 1).astype(np.intp), 2, "categorical", orders)

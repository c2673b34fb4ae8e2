"""`anchor_tabular`: a rule under which the prediction stays the same (Ribeiro et al. 2018), found by alibi.

The one module that imports alibi, and with it ray, which is told not to phone home. The search is synchronous and
asks in small steps, so it runs in a thread, one at a time (alibi seeds numpy's global generator), and its questions
go through the same session as every other method's. alibi's own precision is that of the samples it selected the rule
by; what is stated here comes from fresh ones. A classifier is needed.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from explainers.coding import Array
from explainers.explanation import Explanation, Rule
from explainers.methods import Task
from servelens.contract.errors import DeadlineExceeded, PayloadError, ServeLensError

THRESHOLD: Final = 0.95
SAMPLES: Final = 1000  # fresh rows the precision is stated from
BATCH: Final = 256  # rows a step of the search; alibi's 100 make many small calls
NOTHING: Final = "(none)"  # how null reads in a rule about a categorical feature

log = logging.getLogger(__name__)

_SEEDS: Final = 1 << 32  # that numpy's global generator takes
_thread = ThreadPoolExecutor(1, thread_name_prefix="anchors")


async def explain(task: Task) -> Explanation:
    """A rule for the predicted class. Options: `threshold`. Raises PayloadError for a model that is no classifier."""
    began = time.monotonic()
    if task.coding.schema.outputs.kind == "values":
        raise PayloadError("method", "anchor_tabular needs a model that answers classes", reason="wrong_method")
    prediction = await task.session.predict()
    ask = _bridge(task, asyncio.get_running_loop())
    try:
        async with asyncio.timeout(task.budget.left()):  # one search at a time: there may be others before this
            found = await asyncio.get_running_loop().run_in_executor(_thread, _search, task, ask, prediction)
    except TimeoutError:
        raise DeadlineExceeded("no rule was found within the deadline; allow more time") from None
    return task.explained("anchor_tabular", prediction, found, time.monotonic() - began, complete=found.met)


def warm() -> None:
    """Import alibi, which takes seconds, before the first request needs it."""
    _alibi()


def installed() -> bool:
    """Whether alibi is there, without importing it."""
    return find_spec("alibi") is not None


def _alibi() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from alibi.explainers.anchors import anchor_base, anchor_tabular

    for module in (anchor_base, anchor_tabular):  # they print, and stdout belongs to the start-up line
        vars(module)["print"] = lambda *words, **_: log.debug(" ".join(map(str, words)))
    return anchor_tabular.AnchorTabular


def _bridge(task: Task, loop: asyncio.AbstractEventLoop) -> Callable[[Array], Array]:
    """The predictor as a synchronous function: (rows, features) → class numbers (rows,), asked in the event loop."""

    def ask(matrix: Array) -> Array:
        task.budget.check()
        rows = task.row.mixed(_with_nulls(task, np.asarray(matrix, np.float64)))
        outputs = asyncio.run_coroutine_threadsafe(task.session.ask(rows), loop).result()
        return classes(outputs)

    return ask


def classes(outputs: Array) -> Array:
    """The likeliest class of each row, as a number; one output is the probability of the second of two classes."""
    chosen: Array = (outputs[:, 0] > 0.5).astype(np.intp) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return chosen


def _search(task: Task, ask: Callable[[Array], Array], prediction: Array) -> Rule:
    threshold = float(task.options.get("threshold") or THRESHOLD)
    label = int(classes(prediction[None])[0])
    try:
        searched = _fitted(task, ask)
        result = searched.explain(_without_nulls(task, task.row.matrix)[0], threshold=threshold, batch_size=BATCH)
        sampler = searched.samplers[0]
        labels = np.asarray(sampler((0, tuple(searched.encoded)), SAMPLES, compute_labels=True)[2])
    except ServeLensError:
        raise
    except Exception as error:  # alibi wraps what its predictor raised; ours is in the chain
        raise _own(error) from error
    precision = float(labels.mean())
    return Rule(
        outcome=task.coding.schema.outputs.classes[label],
        predicates=tuple(result.anchor),
        features=tuple(int(feature) for feature in result.raw["feature"]),
        precision=precision,
        error=precision_error(int(labels.sum()), SAMPLES),
        samples=SAMPLES,
        coverage=float(result.coverage),
        met=precision >= threshold,
    )


def _own(error: BaseException) -> Exception:
    """Our error among the causes of one of alibi's, else the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ServeLensError):
            return cause
        if isinstance(cause, TimeoutError):
            return DeadlineExceeded("no explanation within the deadline; allow more time")
        cause = cause.__cause__ or cause.__context__
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def precision_error(hits: int, samples: int) -> float:
    """Standard error of a share, by Agresti & Coull 1998: two hits and two misses added, so that it is never 0."""
    share = (hits + 2) / (samples + 4)
    return float(np.sqrt(share * (1 - share) / (samples + 4)))


def _fitted(task: Task, ask: Callable[[Array], Array]) -> Any:
    """Alibi's search, fitted to the background; it keeps the rule's encoded form, by which fresh rows are drawn."""

    class Search(_alibi()):  # type: ignore[misc]
        encoded: tuple[int, ...] = ()

        def _build_explanation(self, X: Array, result: dict[str, Any], *rest: Any) -> Any:  # noqa: N803 - alibi's name
            self.encoded = tuple(result["feature"])
            return super()._build_explanation(X, result, *rest)

    names = {index: [*texts, *task.row.unseen.get(index, ()), NOTHING] for index, texts in task.coding.texts.items()}
    search = Search(ask, list(task.coding.schema.names), categorical_names=names, seed=task.seed % _SEEDS)
    return search.fit(_without_nulls(task, task.background.matrix))


def _without_nulls(task: Task, matrix: Array) -> Array:
    """Null categories as a category of their own: the last one, as `_fitted` names them."""
    filled = matrix.copy()
    for index, texts in task.coding.texts.items():
        nulls = np.isnan(filled[:, index])
        filled[nulls, index] = len(texts) + len(task.row.unseen.get(index, ()))
    return filled


def _with_nulls(task: Task, matrix: Array) -> Array:
    matrix = matrix.copy()
    for index, texts in task.coding.texts.items():
        last = len(texts) + len(task.row.unseen.get(index, ()))
        matrix[matrix[:, index] == last, index] = np.nan
    return matrix

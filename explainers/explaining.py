"""From a table of rows to their explanations: admission, method, session, deadline, and what is counted on the way.

Between `routes` (protocols) and the methods (mathematics); one `Explaining` a process. Its metrics carry the identity
of the model that is explained.
"""

import asyncio
import logging
import time
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from explainers.admission import Admission
from explainers.artifact import Artifact
from explainers.batching import Batcher
from explainers.budget import Budget
from explainers.cache import Cache
from explainers.coding import Rows
from explainers.explanation import Attributions, Explanation
from explainers.methods import Task, method
from explainers.predictor import Predictor, PredictorSettings
from explainers.session import distinct
from servelens.contract.errors import NotFound, ServeLensError, TooLarge, UpstreamChanged
from servelens.contract.metrics import Instruments
from servelens.contract.table import Table

log = logging.getLogger(__name__)

MAX_EXPLAINED: Final = 64  # rows of one request
AT_ONCE: Final = 4  # of them: each holds its walks in memory
MARKER: Final = 8  # background rows by whose answers models are told apart
COLUMNS: Final = 50  # features with a series of their own; the others share one
# Usual reasons of refused requests, there at 0 from the start: else the first increase is seen by no query.
_REASONS: Final = ("overloaded", "deadlineexceeded", "upstreamaway", "upstreamerror", "upstreamchanged", "malformed")
OTHERS: Final = "(other)"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for beside its rows: "" and None stand for the default."""

    method: str = ""
    seconds: float | None = None
    seed: int | None = None
    authorization: str = ""


class Explaining:
    """Explains rows of one model. `limit`: requests at once; `seconds`: the default and longest deadline."""

    def __init__(
        self,
        artifact: Artifact,
        predictor: PredictorSettings,
        metrics: Instruments,
        *,
        limit: int,
        seconds: float,
        seed: int = 0,
    ) -> None:
        self.artifact, self.seconds, self._seed = artifact, seconds, seed
        self._metrics, self._model = metrics, artifact.schema.identity.labels()
        self.admission = Admission(limit, self._admitted)
        self.predictor = Predictor(predictor, artifact.coding, self._called)
        file = artifact.file
        self.batcher = Batcher(
            self.predictor.call,
            artifact.coding,
            marker_of(artifact.background),
            self,
            Cache(file.cache_rows),
            batch_rows=file.predictor.batch_rows,
            in_flight=file.predictor.in_flight,
        )
        self._admitted(0, 0)
        for name in artifact.methods:
            for result in ("complete", "partial", "failed"):
                self._one("servelens_explanations_total", method=name, result=result)
        for reason in ("cached", "duplicate"):
            self._one("servelens_explanation_rows_saved_total", reason=reason)
        for reason in _REASONS:
            self._one("servelens_explanation_errors_total", reason=reason)
        self._one("servelens_explanation_predictor_changes_total")

    def _one(self, metric: str, **labels: str) -> Any:
        return self._metrics[metric].labels(**self._model, **labels)

    async def explain(self, table: Table, wish: Wish) -> list[Explanation]:
        """One explanation a row, all by one method. Raises ServeLensError."""
        name = wish.method or next(iter(self.artifact.methods))
        if name not in self.artifact.methods:
            raise NotFound(f"method: no {name!r} here; explainer.yaml offers {', '.join(self.artifact.methods)}")
        if table.rows > MAX_EXPLAINED:
            raise TooLarge("instances", f"{table.rows} rows, an explain request may have {MAX_EXPLAINED}; send several")
        seconds = min(wish.seconds or self.seconds, self.seconds)
        budget = Budget.of(seconds, self.artifact.file.max_rows)
        rows = self.artifact.coding.encode(table)
        async with self.admission.admitted(budget):
            places = asyncio.Semaphore(AT_ONCE)

            async def one(row: Rows) -> Explanation:
                async with places:
                    return await self._row(row, name, wish, budget)

            tasks = [asyncio.ensure_future(one(rows.mixed(rows.matrix[at : at + 1]))) for at in range(len(rows))]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _row(self, row: Rows, name: str, wish: Wish, budget: Budget) -> Explanation:
        began, result = time.monotonic(), "failed"
        try:
            explanation = await self._twice(row, name, wish, budget)
            result = "complete" if explanation.complete else "partial"
            self._note(explanation)
            return explanation
        finally:
            self._one("servelens_explanations_total", method=name, result=result).inc()
            self._one("servelens_explanation_duration_seconds", method=name).observe(time.monotonic() - began)

    async def _twice(self, row: Rows, name: str, wish: Wish, budget: Budget) -> Explanation:
        """Once more where the predictor's model changed in the middle: the second time everything is the new one's."""
        try:
            return await self._run(row, name, wish, budget)
        except UpstreamChanged:
            log.warning("the predictor's model changed during an explanation; it is made once more")
            return await self._run(row, name, wish, budget)

    async def _run(self, row: Rows, name: str, wish: Wish, budget: Budget) -> Explanation:
        artifact = self.artifact
        task = Task(
            row=row,
            background=artifact.background,
            digest=artifact.digest,
            coding=artifact.coding,
            outputs=artifact.outputs,
            session=self.batcher.session(row, budget, wish.authorization),
            budget=budget,
            seed=self.seed_of(row) if wish.seed is None else wish.seed,
            options=artifact.methods[name],
        )
        return await method(name)(task)

    def seed_of(self, row: Rows) -> int:
        """The seed of a row that comes without: the same row is explained the same way twice."""
        return self._seed ^ zlib.crc32(row.keys()[0])

    def _note(self, explanation: Explanation) -> None:
        if not isinstance(explanation.found, Attributions):
            return
        share = explanation.found.relative_error()
        self._one("servelens_explanation_relative_error", method=explanation.method).observe(share)
        sums = np.abs(explanation.found.values).sum(axis=0)
        shares = sums / (sums.sum() or 1.0)
        for at, (name, own) in enumerate(zip(explanation.features, shares.tolist(), strict=True)):
            column = name if at < COLUMNS else OTHERS
            self._one("servelens_explanation_attribution_share_total", column=column).inc(own)

    def refused(self, error: ServeLensError) -> None:
        """Count a request that is answered with an error."""
        reason = getattr(error, "reason", "") or type(error).__name__.lower()
        self._one("servelens_explanation_errors_total", reason=reason).inc()

    # -- what batching, predictor and admission report -----------------------------------------------------------

    def _admitted(self, running: int, waiting: int) -> None:
        self._one("servelens_explanations_in_flight").set(running)
        self._one("servelens_explanations_waiting").set(waiting)

    def _called(self, code: str, rows: int, seconds: float) -> None:
        self._one("servelens_explanation_predictor_calls_total", code=code).inc()
        self._one("servelens_explanation_predictor_rows_total").inc(rows)
        self._one("servelens_explanation_predictor_duration_seconds").observe(seconds)

    def saved(self, reason: str, rows: int) -> None:
        """Rows that were asked for and not sent."""
        self._one("servelens_explanation_rows_saved_total", reason=reason).inc(rows)

    def pending(self, rows: int) -> None:
        """Rows waiting now."""
        self._one("servelens_explanation_pending_rows").set(rows)

    def changed(self) -> None:
        """Another model answered."""
        self._one("servelens_explanation_predictor_changes_total").inc()

    def failed(self, error: Exception) -> None:
        """An unexpected error was caught in a batch."""
        log.error("a batch failed", exc_info=error)
        self._metrics["servelens_task_errors_total"].labels(task="batch").inc()

    async def close(self) -> None:
        """Close the predictor's connections."""
        await self.batcher.close()
        await self.predictor.close()


def marker_of(background: Rows) -> Rows:
    """A few background rows that differ."""
    first, _ = distinct(background)
    return background.mixed(background.matrix[np.sort(first)[:MARKER]])

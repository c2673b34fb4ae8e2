"""permutation_shap through the server against shap's KernelExplainer, default and `l1_reg=0`, over one HTTP predictor.

One configuration, the shipped default, for all three: predictor rows, explanations a second, and how often two stated
standard errors hold. The predictor is a process of its own serving boosted trees (log-odds, whose exact interventional
Shapley values Tree SHAP gives; rows whose own additivity check fails are dropped). Every side asks it over V2 binary in
batches of at most 4,096 rows. Rows are explained in turn by all sides; speed is the median of each.

    python tests/bench/explainers/bench_permutation_shap.py [--rows 30] [--coverage-rows 60] [--sets wine,digits]
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track
from rich.table import Table as Rows
from sklearn import datasets
from sklearn.ensemble import GradientBoostingClassifier

warnings.filterwarnings("ignore")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import shap  # noqa: E402
from model_server import matrix, serving  # noqa: E402

from explainers.coding import Coding  # noqa: E402
from explainers.coding import Rows as Coded  # noqa: E402
from explainers.predictor import Predictor, PredictorSettings  # noqa: E402
from explainers.service import Explainer  # noqa: E402
from explainers.settings import ExplainerSettings  # noqa: E402
from servelens.contract.schema import ModelSchema, parse_model  # noqa: E402
from servelens.contract.table import Table  # noqa: E402

BACKGROUND = 100
BATCH = 4096
KERNEL_ROWS = {"breast_cancer": 30, "wine": 15, "digits": 15}  # the bar: at most 1/this of the default's rows
SETS = {
    "breast_cancer": (datasets.load_breast_cancer, lambda y: y),
    "wine": (datasets.load_wine, lambda y: y == 1),
    "digits": (datasets.load_digits, lambda y: y % 2),
}


def split(name: str) -> tuple[GradientBoostingClassifier, Any, Any]:
    """The model, its background, and rows it has not seen."""
    load, classes = SETS[name]
    data, target = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(data))
    data, target = data[order], classes(target[order])
    held = len(data) // 3
    model = GradientBoostingClassifier(random_state=0).fit(data[held:], target[held:])
    return model, data[held:][:BACKGROUND], data[:held]


def schema_of(width: int) -> ModelSchema:
    lines = [
        "schemaversion: 1",
        "identity: {namespace: bench, inferenceservice: trees}",
        "features:",
        *(f"  - {{name: f{at}, type: numeric}}" for at in range(width)),
        "outputs: {kind: values}",
    ]
    return parse_model("\n".join(lines))


def serve(name: str, pipe: Any) -> None:
    """The predictor's process."""
    model, background, _ = split(name)
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1, background.shape[1]]}]
    with serving(
        schema_of(background.shape[1]), lambda table: model.decision_function(matrix(table)), inputs=inputs
    ) as running:
        pipe.send(running.address)
        pipe.recv()


class Asked:
    """The predictor as a function of a matrix, for shap: the same client, protocol and batch size as ours."""

    def __init__(self, address: str, schema: ModelSchema, background: Any) -> None:
        self.rows = 0
        coding = Coding(schema, Table.of({name: background[:, at] for at, name in enumerate(schema.names)}))
        settings = PredictorSettings(f"http://{address}", "m", "v2", "always")
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.predictor = Predictor(settings, coding)

    def __call__(self, matrix: Any) -> Any:
        self.rows += len(matrix)
        parts = [matrix[at : at + BATCH] for at in range(0, len(matrix), BATCH)]
        return np.concatenate([self._ask(part) for part in parts])

    def _ask(self, part: Any) -> Any:
        call = self.predictor.call(Coded(np.ascontiguousarray(part, float)), 600)
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()[:, 0]


@dataclass
class Side:
    """One way to explain, and what it took."""

    name: str
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(self, said: Any, truth: Any, seconds: float, rows: int) -> None:
        self.errors.append(float(np.abs(said - truth).sum() / np.abs(truth).sum()))
        self.seconds.append(seconds)
        self.rows.append(rows)

    @property
    def error(self) -> float:
        return statistics.mean(self.errors)

    @property
    def rate(self) -> float:
        return 1 / statistics.median(self.seconds)

    @property
    def cost(self) -> float:
        return statistics.median(self.rows)


def ours(client: httpx.Client, row: Any) -> tuple[Any, Any, int, float]:
    began = time.perf_counter()
    answer = client.post("/v1/models/m:explain", json={"instances": [row.tolist()]}).raise_for_status().json()
    seconds = time.perf_counter() - began
    found = answer["explanations"][0]
    said = np.array([one["attribution"] for one in found["attributions"]["prediction"]])
    errors = np.array([one["standard_error"] for one in found["attributions"]["prediction"]])
    return said, errors, found["cost"]["rows"], seconds


def measure(name: str, count: int, coverage_rows: int, console: Console) -> dict[str, Any]:
    model, background, rows = split(name)
    oracle = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    rows = rows[: max(count, coverage_rows)]
    truth = np.array(oracle.shap_values(rows, check_additivity=False))
    gap = truth.sum(axis=1) + model.decision_function(background).mean() - model.decision_function(rows)
    rows, truth = rows[np.abs(gap) < 1e-6], truth[np.abs(gap) < 1e-6]
    schema = schema_of(background.shape[1])
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=serve, args=(name, far), daemon=True)
    process.start()
    address = pipe.recv()
    sides = [Side("permutation_shap"), Side("KernelExplainer"), Side("KernelExplainer, l1_reg=0")]
    with tempfile.TemporaryDirectory() as folder:
        _artifact(Path(folder), schema, background)
        settings = ExplainerSettings(
            "m", address, http_port=0, host="127.0.0.1", artifacts=Path(folder), predictor_protocol="v2", deadline=60.0
        )
        explainer = Explainer(settings)
        client = httpx.Client(base_url=f"http://{explainer.open()}", timeout=120)
        asked = Asked(address, schema, background)
        kernel = shap.KernelExplainer(asked, background)
        ours(client, rows[-1])  # connections, and the background's answers
        for at in track(range(min(count, len(rows))), description=name, console=console):
            said, _, used, seconds = ours(client, rows[at])
            sides[0].add(said, truth[at], seconds, used)
            for side, options in zip(sides[1:], ({}, {"l1_reg": 0}), strict=True):
                before, began = asked.rows, time.perf_counter()
                said = kernel.shap_values(rows[at], silent=True, **options)
                side.add(said, truth[at], time.perf_counter() - began, asked.rows - before)
        covered, wide, slow = _coverage(client, rows[:coverage_rows], truth[:coverage_rows])
        together = _together(client, rows[:coverage_rows])
        explainer._server.stop(2)
    pipe.send("end")
    process.join(10)
    return {"set": name, "width": background.shape[1], "sides": sides, "covered": covered, "wide": wide,
            "together": together, "explained": len(slow)}  # fmt: skip


def _artifact(folder: Path, schema: ModelSchema, background: Any) -> None:
    (folder / "explainer.yaml").write_text("schemaversion: 1\nbackground: b.parquet\n")
    names = "\n".join(f"  - {{name: {name}, type: numeric}}" for name in schema.names)
    identity = "identity: {namespace: bench, inferenceservice: trees}"
    (folder / "model.yaml").write_text(f"schemaversion: 1\n{identity}\nfeatures:\n{names}\noutputs: {{kind: values}}\n")
    pq.write_table(pa.table({name: background[:, at] for at, name in enumerate(schema.names)}), folder / "b.parquet")


def _coverage(client: httpx.Client, rows: Any, truth: Any) -> tuple[float, float, list[float]]:
    """Share of attributions within two stated errors, the stated error over the true one (both root mean square)."""
    hits, stated, true, seconds = [], [], [], []
    for row, right in zip(rows, truth, strict=True):
        said, errors, _, took = ours(client, row)
        acting = np.abs(right) > 1e-9
        hits.append((np.abs(said - right) <= 2 * errors + 1e-9)[acting])
        stated.append(errors[acting] ** 2)
        true.append((said - right)[acting] ** 2)
        seconds.append(took)
    ratio = np.sqrt(np.concatenate(stated).mean() / np.concatenate(true).mean())
    return float(np.concatenate(hits).mean()), float(ratio), seconds


def _together(client: httpx.Client, rows: Any, callers: int = 8) -> float:
    """Explanations a second with eight callers at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(lambda row: ours(client, row * (1 + 1e-9)), rows))  # not one of them is cached
    return len(rows) / (time.perf_counter() - began)


def bars(result: dict[str, Any]) -> dict[str, bool]:
    """What the default has to reach, and whether it did."""
    mine, default, free = result["sides"]
    share = KERNEL_ROWS[result["set"]]
    return {
        f"rows at most 1/{share} of the default's": mine.cost * share <= default.cost,
        "error no larger than the default's": mine.error <= default.error,
        "error no larger than with l1_reg=0": mine.error <= free.error,
        "10 times its explanations/s or more": mine.rate >= 10 * default.rate,
        "coverage from 90 to 99.5 %": 0.9 <= result["covered"] <= 0.995,
    }


HEADINGS = ("set (features)", "side", "rows", "rows / ours", "mean error", "expl./s", "ours / this", "within 2 SE")


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Rows(title="permutation_shap against KernelExplainer, the same HTTP predictor", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for result in results:
        mine = result["sides"][0]
        for side in result["sides"]:
            own = side is mine
            table.add_row(
                f"{result['set']} ({result['width']})" if own else "", side.name, f"{side.cost:,.0f}",
                f"{side.cost / mine.cost:.1f}", f"{side.error:.2%}", f"{side.rate:.2f}", f"{mine.rate / side.rate:.1f}",
                f"{result['covered']:.1%}" if own else "–",
            )  # fmt: skip
        table.add_section()
    console.print(table)
    for result in results:
        words = f"stated / true error {result['wide']:.2f}; 8 callers at once {result['together']:.1f} explanations/s"
        console.print(f"{result['set']}: {words}")
        for bar, held in bars(result).items():
            console.print(f"   {'held  ' if held else 'MISSED'} {bar}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--coverage-rows", type=int, default=60)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--out", type=Path, default=Path("bench-out/permutation_shap.json"))
    arguments = parser.parse_args()
    console = Console(width=130)
    results = [measure(name, arguments.rows, arguments.coverage_rows, console) for name in arguments.sets.split(",")]
    show(results, console)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    plain = [{**one, "sides": [vars(side) for side in one["sides"]]} for one in results]
    arguments.out.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()

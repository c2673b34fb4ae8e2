"""Fixtures of the explainer's tests; the parts they are made of are in `explainers_parts`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from explainers_parts import MODEL, ArtifactOf, House, house, write_artifact

from servelens.contract.schema import ModelSchema, parse_model


@pytest.fixture
def schema() -> ModelSchema:
    return parse_model(MODEL)


@pytest.fixture
def artifact(tmp_path: Path) -> ArtifactOf:
    def write(explainer: str = "", model: str = MODEL, rows: Mapping[str, Any] | None = None) -> Path:
        return write_artifact(tmp_path / "artifact", explainer, model, rows)

    return write


@pytest.fixture
def home(artifact: ArtifactOf, schema: ModelSchema) -> Iterator[House]:
    with house(artifact(), schema) as made:
        yield made

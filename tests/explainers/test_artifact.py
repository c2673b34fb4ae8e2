"""The artifact folder: what is read, and that every fault names file, field and remedy."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from explainers_parts import ArtifactOf, background
from jsonschema import Draft202012Validator

from explainers.artifact import EXPLAINER_SCHEMA, parse_explainer, read_artifact
from servelens.contract.errors import ConfigError
from servelens.demo.explained import EXPLAINER_YAML

GOOD = "schemaversion: 1\nbackground: b.parquet\n"


def test_the_folder_is_read_whole(artifact: ArtifactOf) -> None:
    read = read_artifact(artifact("methods: [{name: anchor_tabular, threshold: 0.9}, {name: permutation_shap}]\n"))
    assert read.outputs == ("score",)
    assert list(read.methods) == ["anchor_tabular", "permutation_shap"]
    assert read.methods["anchor_tabular"] == {"threshold": 0.9}
    assert len(read.background) == 40
    assert len(read.digest) == 64
    assert np.array_equal(read.background.matrix[:, 0], background()["age"])


def test_background_may_be_csv(artifact: ArtifactOf) -> None:
    folder = artifact()
    pyarrow.csv.write_csv(pa.table(background()), folder / "rows.csv")
    (folder / "explainer.yaml").write_text("schemaversion: 1\nbackground: rows.csv\n")
    assert np.allclose(read_artifact(folder).background.matrix[:, 1], background()["income"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("", "Input should be a valid"),
        ("schemaversion: 2\nbackground: b.parquet", "schemaversion"),
        ("schemaversion: 1", "background: Field required"),
        (GOOD + "backgrund: x", "backgrund: Extra inputs"),
        (GOOD + "methods: []", "methods"),
        (GOOD + "methods: [{name: lime}]", "methods.0"),
        (GOOD + "methods: [{name: permutation_shap, pears: 2}]", "pears"),
        (GOOD + "methods: [{name: permutation_shap}, {name: permutation_shap}]", "twice"),
        (GOOD + "methods: [{name: anchor_tabular, threshold: 2}]", "threshold"),
        (GOOD + "predictor: {datatype: FP65}", "datatype"),
        (GOOD + "predictor: {in_flight: 0}", "in_flight"),
    ],
)
def test_a_fault_of_the_file_names_its_field(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"explainer\.yaml") as caught:
        parse_explainer(text)
    assert words in str(caught.value)


def test_the_json_schema_agrees_with_the_reader() -> None:
    validator = Draft202012Validator(EXPLAINER_SCHEMA)
    Draft202012Validator.check_schema(EXPLAINER_SCHEMA)
    assert validator.is_valid(yaml.safe_load(EXPLAINER_YAML))
    for bad in ({"schemaversion": 1}, {"schemaversion": 1, "background": "b", "odd": 1}):
        assert not validator.is_valid(bad)


def fault(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_artifact(folder)
    return str(caught.value)


def test_missing_files_name_the_flag(tmp_path: Path, artifact: ArtifactOf) -> None:
    assert "--artifacts names a folder" in fault(tmp_path)
    folder = artifact()
    (folder / "model.yaml").unlink()
    assert "model.yaml" in fault(folder)


def test_a_background_that_does_not_fit(artifact: ArtifactOf) -> None:
    few: dict[str, Any] = {name: values[:1] for name, values in background().items()}
    assert "has 1 rows" in fault(artifact(rows=few))
    less = {name: values for name, values in background().items() if name != "income"}
    assert "lacks the columns income" in fault(artifact(rows=less))


def test_no_file_outside_of_the_folder(artifact: ArtifactOf) -> None:
    folder = artifact()
    (folder / "explainer.yaml").write_text("schemaversion: 1\nbackground: ../secret.parquet\n")
    assert "leads out of the folder" in fault(folder)

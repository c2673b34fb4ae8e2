"""model.yaml: what it says, what it refuses, and that the published JSON Schema says the same."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity
from servelens.contract.schema import MODEL_SCHEMA, Feature, ModelSchema, Outputs, parse_model

TEXT = """\
schemaversion: 1
identity: {namespace: demo, inferenceservice: flights, component: predictor, modelname: flights, revision: ""}
features:
  - {name: dep_delay, type: numeric}
  - {name: carrier, type: categorical, categories: [AA, UA]}
outputs: {tensor: probabilities, kind: probabilities, classes: [on_time, late]}
"""


def edited(edit: Callable[[Any], object]) -> Any:
    document = copy.deepcopy(yaml.safe_load(TEXT))
    edit(document)
    return document


def test_a_model_is_read() -> None:
    assert parse_model(TEXT) == ModelSchema(
        ModelIdentity("demo", "flights", "predictor", "flights", ""),
        (Feature("dep_delay", "numeric"), Feature("carrier", "categorical", ("AA", "UA"))),
        Outputs("probabilities", "probabilities", ("on_time", "late")),
    )
    assert parse_model(TEXT.encode()) == parse_model(TEXT)


def test_what_may_be_left_out_has_a_default() -> None:
    schema = parse_model(
        "{schemaversion: 1, identity: {namespace: a, inferenceservice: b}, "
        "features: [{name: x, type: integer}, {name: y, type: boolean}, {name: z, type: categorical}], "
        "outputs: {kind: values}}"
    )
    assert schema.identity == ModelIdentity("a", "b", "predictor", "", "")
    assert schema.outputs == Outputs("values", "", ())
    assert schema.names == ("x", "y", "z")
    assert (schema.numeric, schema.categorical) == ((0, 1), (2,))
    assert schema.positions == {"x": 0, "y": 1}


@pytest.mark.parametrize(
    ("outputs", "columns"),
    [
        (Outputs("values"), ["prediction"]),
        (Outputs("labels", classes=("a", "b", "c")), ["prediction"]),
        (Outputs("probabilities", classes=("a", "b")), ["score"]),
        (Outputs("probabilities", classes=("a", "b", "c")), ["score:a", "score:b", "score:c"]),
    ],
)
def test_prediction_columns_are_named_after_the_output(outputs: Outputs, columns: list[str]) -> None:
    assert [column.name for column in outputs.columns()] == columns
    assert all(column.is_categorical == (outputs.kind == "labels") for column in outputs.columns())


@pytest.mark.parametrize(
    ("categories", "coded"),
    [((), False), (("a", "b"), True), (("0", "-1"), False), (("1", "one"), True), (("²",), True)],
)
def test_integers_are_codes_unless_the_categories_are_integers_themselves(
    categories: tuple[str, ...], coded: bool
) -> None:
    assert Feature("x", "categorical", categories).coded is coded


# Each with the setting named and a piece of the remedy; True if the JSON Schema can see it too.
REFUSED: list[tuple[Callable[[Any], object], str, str, bool]] = [
    (lambda d: d.update(extra=1), "extra", "Known are schemaversion, identity, features, outputs", True),
    (lambda d: d.update(schemaversion=2), "schemaversion", "Convert", True),
    (lambda d: d.update(schemaversion="1"), "schemaversion", "Convert", True),
    (lambda d: d.update(schemaversion=True), "schemaversion", "Convert", True),
    (lambda d: d.pop("schemaversion"), "schemaversion", "Add it", True),
    (lambda d: d.pop("identity"), "identity", "Add it", True),
    (lambda d: d.pop("features"), "features", "Add it", True),
    (lambda d: d.pop("outputs"), "outputs", "Add it", True),
    (lambda d: d.update(identity="flights"), "identity", "namespace", True),
    (lambda d: d["identity"].pop("namespace"), "identity.namespace", "Add it", True),
    (lambda d: d["identity"].update(version="1"), "identity.version", "revision", True),
    (lambda d: d["identity"].update(revision=3), "identity.revision", "quotes", True),
    (lambda d: d.update(features=[]), "features", "List every column", True),
    (lambda d: d.update(features={"x": "numeric"}), "features", "list", True),
    (lambda d: d["features"].append("x"), "features[2]", "name", True),
    (lambda d: d["features"].append({"name": "x"}), "features[2].type", "Add it", True),
    (lambda d: d["features"].append({"name": "", "type": "numeric"}), "features[2].name", "payloads", True),
    (lambda d: d["features"].append({"name": 7, "type": "numeric"}), "features[2].name", "quotes", True),
    (lambda d: d["features"].append({"name": "x", "type": "float"}), "features[2].type", "numeric, integer", True),
    (lambda d: d["features"].append({"name": "x", "type": ["numeric"]}), "features[2].type", "numeric, integer", True),
    (lambda d: d["features"].append({"name": "x", "type": "numeric", "unit": "s"}), "features[2].unit", "Known", True),
    (lambda d: d["features"][0].update(categories=["a"]), "features[0].categories", "Remove it", True),
    (lambda d: d["features"][1].update(categories=[]), "features[1].categories", "at least 1", True),
    (lambda d: d["features"][1].update(categories="AA"), "features[1].categories", "list", True),
    (lambda d: d["features"][1].update(categories=["AA", False]), "features[1].categories[1]", "quotes", True),
    (lambda d: d["features"][1].update(categories=["AA", "AA"]), "features[1].categories", "Remove one", True),
    (lambda d: d["features"].append({"name": "carrier", "type": "numeric"}), "features", "Remove one", False),
    (lambda d: d["features"].append({"name": "score", "type": "numeric"}), "features", "Rename", False),
    (lambda d: d["outputs"].pop("kind"), "outputs.kind", "Add it", True),
    (lambda d: d["outputs"].update(kind="classes"), "outputs.kind", "labels", True),
    (lambda d: d["outputs"].update(kind="values"), "outputs.classes", "Remove it", True),
    (lambda d: d["outputs"].pop("classes"), "outputs.classes", "List the classes", True),
    (lambda d: d["outputs"].update(classes=["a"]), "outputs.classes", "at least 2", True),
    (lambda d: d["outputs"].update(classes=[0, 1]), "outputs.classes[0]", "quotes", True),
    (lambda d: d["outputs"].update(tensor=1), "outputs.tensor", "quotes", True),
    (lambda d: d["outputs"].update(task="binary"), "outputs.task", "Known", True),
]


@pytest.mark.parametrize(("edit", "setting", "remedy", "published"), REFUSED)
def test_what_is_wrong_is_refused_with_its_place_and_a_remedy(
    edit: Callable[[Any], object], setting: str, remedy: str, published: bool
) -> None:
    document = edited(edit)
    with pytest.raises(ConfigError) as caught:
        parse_model(yaml.safe_dump(document))
    assert caught.value.setting == f"model.yaml: {setting}"
    assert remedy in caught.value.remedy
    assert admits(MODEL_SCHEMA, document) is not published


ACCEPTED: list[Callable[[Any], object]] = [
    lambda _: None,
    lambda d: d["identity"].pop("component"),
    lambda d: d["features"][1].pop("categories"),
    lambda d: d["features"].append({"name": "x", "type": "boolean"}),
    lambda d: d["outputs"].pop("tensor"),
    lambda d: d.update(outputs={"kind": "values"}),
    lambda d: d["outputs"].update(kind="labels"),
    lambda d: d["outputs"].update(classes=["a", "b", "c"]),
]


@pytest.mark.parametrize("edit", ACCEPTED)
def test_what_is_right_is_right_for_the_published_schema_too(edit: Callable[[Any], object]) -> None:
    document = edited(edit)
    assert isinstance(parse_model(yaml.safe_dump(document)), ModelSchema)
    assert admits(MODEL_SCHEMA, document)


@pytest.mark.parametrize(
    "text", ["", "[", "a: b: c", "- 1", "\x00", b"\xff\xfe\xff", "x: &x [*x]", "[" * 5000, "1" * 5000]
)
def test_what_is_no_mapping_of_settings_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigError):
        parse_model(text)


def test_a_key_written_twice_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=re.escape("is not YAML in line 2")):
        parse_model(TEXT.replace("namespace: demo", "namespace: demo, namespace: prod"))


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer"):
        parse_model(TEXT + "#" * (1 << 20))


JSON_TYPES: dict[str, type] = {"object": dict, "array": list, "string": str}


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right  # JSON Schema: true is not 1


CHECKS: dict[str, Callable[[Any, Any, dict[str, Any]], bool]] = {
    "type": lambda value, wanted, _: isinstance(value, JSON_TYPES[wanted]),
    "const": lambda value, wanted, _: same(value, wanted),
    "enum": lambda value, wanted, _: any(same(value, one) for one in wanted),
    "required": lambda value, wanted, _: not isinstance(value, dict) or set(wanted) <= value.keys(),
    "additionalProperties": lambda value, wanted, schema: (
        wanted or not isinstance(value, dict) or value.keys() <= schema["properties"].keys()
    ),
    "properties": lambda value, wanted, _: (
        not isinstance(value, dict) or all(admits(wanted[key], value[key]) for key in value.keys() & wanted.keys())
    ),
    "items": lambda value, wanted, _: not isinstance(value, list) or all(admits(wanted, item) for item in value),
    "minItems": lambda value, wanted, _: not isinstance(value, list) or len(value) >= wanted,
    "minLength": lambda value, wanted, _: not isinstance(value, str) or len(value) >= wanted,
    "uniqueItems": lambda value, wanted, _: (
        not isinstance(value, list) or not wanted or len({repr(item) for item in value}) == len(value)
    ),
    "not": lambda value, wanted, _: not admits(wanted, value),
    "if": lambda value, wanted, schema: admits(schema.get("then" if admits(wanted, value) else "else", {}), value),
    "then": lambda *_: True,  # with "if"
    "else": lambda *_: True,
    "$schema": lambda *_: True,
    "title": lambda *_: True,
}


def admits(schema: Any, value: object) -> bool:
    """JSON Schema as far as MODEL_SCHEMA uses it; a keyword it does not know is a KeyError."""
    return all(CHECKS[keyword](value, wanted, schema) for keyword, wanted in schema.items())

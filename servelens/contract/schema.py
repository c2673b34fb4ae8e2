"""`model.yaml`: a model's columns and what its output means; one file, read by profile, detector and explainer alike.

Text in, frozen value out. `MODEL_SCHEMA` publishes the same rules as JSON Schema (draft 2020-12) for editors and CI;
what it cannot say (a name used twice, a feature named like a prediction column) only `parse_model` refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

import yaml

from servelens.contract.errors import ConfigError
from servelens.contract.identity import ModelIdentity

SCHEMA_VERSION: Final = 1
FILE: Final = "model.yaml"
_SIZE_LIMIT: Final = 1 << 20  # characters

FeatureType = Literal["numeric", "integer", "boolean", "categorical"]
OutputKind = Literal["probabilities", "labels", "values"]
FEATURE_TYPES: Final[tuple[FeatureType, ...]] = get_args(FeatureType)
OUTPUT_KINDS: Final[tuple[OutputKind, ...]] = get_args(OutputKind)


@dataclass(frozen=True, slots=True)
class Feature:
    """A column: `categorical` is text, every other type float64. `categories` may be left empty: any text will do.

    `coded`: an integer in a payload is the index of a category. So unless the categories themselves are all integers
    (`["1", "2"]`), then it is meant literally.
    """

    name: str
    type: FeatureType
    categories: tuple[str, ...] = ()
    coded: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        literal = all(category.lstrip("-").isdecimal() for category in self.categories)
        object.__setattr__(self, "coded", bool(self.categories) and not literal)

    @property
    def is_categorical(self) -> bool:
        """Whether the column is text."""
        return self.type == "categorical"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model answers: `tensor` names the V2 output (empty: its only one); values have no `classes`."""

    kind: OutputKind
    tensor: str = ""
    classes: tuple[str, ...] = ()

    def columns(self) -> tuple[Feature, ...]:
        """The prediction columns, described like features.

        values: `prediction`; labels: `prediction`, categorical; probabilities: `score`, that of the second of two
        classes, or `score:<class>` for each of more.
        """
        if self.kind == "values":
            return (Feature("prediction", "numeric"),)
        if self.kind == "labels":
            return (Feature("prediction", "categorical", self.classes),)
        if len(self.classes) == 2:
            return (Feature("score", "numeric"),)
        return tuple(Feature(f"score:{name}", "numeric") for name in self.classes)


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """One model: who it is, its features in the order its matrix input has them, and what it answers.

    Derived, once, since every payload needs them: `predictions`, the prediction columns; `names` of all features;
    `numeric` and `categorical`, the indices of either kind; `positions` of the numeric ones among themselves.
    """

    identity: ModelIdentity
    features: tuple[Feature, ...]
    outputs: Outputs
    predictions: tuple[Feature, ...] = field(init=False, repr=False)
    names: tuple[str, ...] = field(init=False, repr=False)
    numeric: tuple[int, ...] = field(init=False, repr=False)
    categorical: tuple[int, ...] = field(init=False, repr=False)
    positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = [feature.is_categorical for feature in self.features]
        numeric = [feature.name for feature in self.features if not feature.is_categorical]
        object.__setattr__(self, "predictions", self.outputs.columns())
        object.__setattr__(self, "names", tuple(feature.name for feature in self.features))
        object.__setattr__(self, "numeric", tuple(index for index, text in enumerate(texts) if not text))
        object.__setattr__(self, "categorical", tuple(index for index, text in enumerate(texts) if text))
        object.__setattr__(self, "positions", {name: position for position, name in enumerate(numeric)})


def parse_model(text: str | bytes) -> ModelSchema:
    """The schema in a `model.yaml`. Raises ConfigError naming the setting, what is wrong and what to write."""
    root = _keys(_load(text), "", ("schemaversion", "identity", "features", "outputs"))
    if type(root["schemaversion"]) is not int or root["schemaversion"] != SCHEMA_VERSION:
        raise _error("schemaversion", f"is not {SCHEMA_VERSION}", "Convert the file, or use the release that wrote it")
    schema = ModelSchema(
        identity=_identity(root["identity"]),
        features=_features(root["features"]),
        outputs=_outputs(root["outputs"]),
    )
    taken = {column.name for column in schema.predictions} & {feature.name for feature in schema.features}
    if taken:
        raise _error("features", f"{min(taken)!r} is the name of a prediction column", "Rename the feature")
    return schema


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`, but two equal keys are an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.MarkedYAMLError(problem="a key is there twice", problem_mark=node.start_mark)
        return mapping


def _load(text: str | bytes) -> object:
    if len(text) > _SIZE_LIMIT:
        raise _error("", f"is longer than {_SIZE_LIMIT} characters", "List fewer categories, or none")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _error("", f"is not YAML{where}", "Correct it; a key may be there only once") from error


def _identity(value: object) -> ModelIdentity:
    parts = _keys(value, "identity", ("namespace", "inferenceservice"), ("component", "modelname", "revision"))
    return ModelIdentity.from_mapping({key: _text(part, f"identity.{key}") for key, part in parts.items()})


def _features(value: object) -> tuple[Feature, ...]:
    features = tuple(_feature(item, f"features[{index}]") for index, item in enumerate(_list(value, "features")))
    if not features:
        raise _error("features", "is empty", "List every column the model is given")
    _distinct([feature.name for feature in features], "features")
    return features


def _feature(value: object, where: str) -> Feature:
    parts = _keys(value, where, ("name", "type"), ("categories",))
    name = _filled(parts["name"], f"{where}.name")
    kind = cast("FeatureType", _choice(parts["type"], FEATURE_TYPES, f"{where}.type"))
    if "categories" not in parts:
        return Feature(name, kind)
    if kind != "categorical":
        raise _error(f"{where}.categories", f"goes with a categorical feature, not a {kind} one", "Remove it")
    return Feature(name, kind, _names(parts["categories"], f"{where}.categories", at_least=1))


def _outputs(value: object) -> Outputs:
    parts = _keys(value, "outputs", ("kind",), ("tensor", "classes"))
    kind = cast("OutputKind", _choice(parts["kind"], OUTPUT_KINDS, "outputs.kind"))
    tensor = _text(parts.get("tensor", ""), "outputs.tensor")
    if kind == "values":
        if "classes" in parts:
            raise _error("outputs.classes", "goes with probabilities or labels, not values", "Remove it")
        return Outputs(kind, tensor)
    if "classes" not in parts:
        raise _error("outputs.classes", f"is missing, kind {kind} needs it", "List the classes in the model's order")
    return Outputs(kind, tensor, _names(parts["classes"], "outputs.classes", at_least=2))


def _keys(value: object, where: str, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise _error(where, "is not a mapping", f"Write the keys {', '.join((*required, *optional))} below it")
    for key in value:
        if key not in required and key not in optional:
            raise _error(_join(where, str(key)[:80]), "is unknown", f"Known are {', '.join((*required, *optional))}")
    for key in required:
        if key not in value:
            raise _error(_join(where, key), "is missing", "Add it")
    return value


def _list(value: object, where: str) -> list[object]:
    if type(value) is not list:
        raise _error(where, "is not a list", "Write it as a YAML list")
    return value


def _names(value: object, where: str, *, at_least: int) -> tuple[str, ...]:
    names = [_text(item, f"{where}[{index}]") for index, item in enumerate(_list(value, where))]
    if len(names) < at_least:
        raise _error(where, f"has {len(names)} entries", f"List at least {at_least}")
    _distinct(names, where)
    return tuple(names)


def _distinct(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _error(where, f"{name!r} is there twice", "Remove one")
        seen.add(name)


def _text(value: object, where: str) -> str:
    if type(value) is not str:  # YAML reads NO as false and 1 as a number
        raise _error(where, "is not text", "Put it in quotes")
    return value


def _filled(value: object, where: str) -> str:
    text = _text(value, where)
    if not text:
        raise _error(where, "is empty", "Name it as the payloads do")
    return text


def _choice(value: object, choices: Sequence[str], where: str) -> str:
    if value not in choices:
        raise _error(where, "is not one of the known values", f"Write {', '.join(choices)}")
    return cast("str", value)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _error(where: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(f"{FILE}: {where}" if where else FILE, problem, remedy)


_NAME_LIST: Final = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}

MODEL_SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "ServeLens model.yaml",
    "type": "object",
    "required": ["schemaversion", "identity", "features", "outputs"],
    "additionalProperties": False,
    "properties": {
        "schemaversion": {"const": SCHEMA_VERSION},
        "identity": {
            "type": "object",
            "required": ["namespace", "inferenceservice"],
            "additionalProperties": False,
            "properties": {
                "namespace": {"type": "string"},
                "inferenceservice": {"type": "string"},
                "component": {"type": "string"},
                "modelname": {"type": "string"},
                "revision": {"type": "string"},
            },
        },
        "features": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "type"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "type": {"enum": list(FEATURE_TYPES)},
                    "categories": {**_NAME_LIST, "minItems": 1},
                },
                "if": {"required": ["categories"]},
                "then": {"properties": {"type": {"const": "categorical"}}},
            },
        },
        "outputs": {
            "type": "object",
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {
                "tensor": {"type": "string"},
                "kind": {"enum": list(OUTPUT_KINDS)},
                "classes": {**_NAME_LIST, "minItems": 2},
            },
            "if": {"properties": {"kind": {"const": "values"}}},
            "then": {"not": {"required": ["classes"]}},
            "else": {"required": ["classes"]},
        },
    },
}

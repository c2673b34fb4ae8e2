"""The artifact folder: `explainer.yaml`, `model.yaml` and the background rows; read once, before anything is served.

No pickle: YAML, and Parquet or CSV. `EXPLAINER_SCHEMA` is the JSON Schema of `explainer.yaml`, for editors and CI.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from explainers.coding import Coding, Rows
from explainers.dialects import Shape, output_names
from servelens.contract.elements import DTYPE
from servelens.contract.errors import ConfigError
from servelens.contract.schema import FILE as MODEL_FILE
from servelens.contract.schema import ModelSchema, parse_model
from servelens.io.tables import read_table

FILE: Final = "explainer.yaml"
MAX_BACKGROUND: Final = 1000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PermutationShap(_Section):
    """Options of `permutation_shap`."""

    name: Literal["permutation_shap"]
    pairs: int | None = Field(default=None, ge=1, le=1000, description="Walk pairs a background row; default by width.")


class AnchorTabular(_Section):
    """Options of `anchor_tabular`."""

    name: Literal["anchor_tabular"]
    threshold: float = Field(default=0.95, gt=0, lt=1, description="Precision the rule should reach.")


MethodSection: TypeAlias = Annotated[PermutationShap | AnchorTabular, Field(discriminator="name")]


class PredictorSection(_Section):
    """How the model wants to be asked; what is left out is found out from its V2 metadata."""

    inputs: Literal["auto", "columns", "matrix"] = "auto"
    tensor: str = Field(default="input-0", description="Name of the one tensor, with `inputs: matrix`.")
    datatype: str = Field(default="FP64", description="Datatype of that tensor.")
    binary: Literal["auto", "always", "never"] = "auto"
    batch_rows: int = Field(default=4096, ge=16, le=1_000_000, description="Rows of one call at most.")
    in_flight: int = Field(
        default=2, ge=1, le=64, description="Calls at once at most: explanations must not starve traffic."
    )

    def shape(self) -> Shape | None:
        """The stated shape, None for auto."""
        return {"auto": None, "columns": Shape(), "matrix": Shape(self.tensor, self.datatype)}[self.inputs]


class ExplainerFile(_Section):
    """`explainer.yaml`."""

    schemaversion: Literal[1]
    background: str = Field(description="File of background rows in this folder, Parquet or CSV.")
    methods: list[MethodSection] = Field(
        default=[PermutationShap(name="permutation_shap")],
        min_length=1,
        description="Methods offered; the first is the default.",
    )
    predictor: PredictorSection = PredictorSection()
    max_rows: int = Field(
        default=50_000, ge=10, le=10_000_000, description="Rows an explanation of one row may look at."
    )
    cache_rows: int = Field(default=20_000, ge=0, le=1_000_000, description="Answers kept for up to a minute.")


EXPLAINER_SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **ExplainerFile.model_json_schema(),
    "title": "ServeLens explainer.yaml",
}


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """What is read from the folder. `methods`: options by name, in order; `digest` names the background (SHA-256)."""

    schema: ModelSchema
    file: ExplainerFile
    coding: Coding
    background: Rows
    digest: str
    methods: Mapping[str, Mapping[str, Any]]
    outputs: tuple[str, ...]


def read_artifact(folder: Path) -> Artifact:
    """The folder's content. Raises ConfigError naming file and field, and what to write there."""
    file = parse_explainer(_text(folder, FILE))
    schema = parse_model(_text(folder, MODEL_FILE))
    path = _inside(folder, file.background)
    table = read_table(path, schema)
    if not 2 <= table.rows <= MAX_BACKGROUND:
        problem = f"{path.name} has {table.rows} rows"
        raise ConfigError(f"{FILE}: background", problem, f"Give 2 to {MAX_BACKGROUND}: a sample of training rows.")
    coding = Coding(schema, table)
    background = coding.encode(table)
    return Artifact(
        schema=schema,
        file=file,
        coding=coding,
        background=background,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        methods={section.name: section.model_dump(exclude={"name"}) for section in file.methods},
        outputs=output_names(schema),
    )


def parse_explainer(text: str) -> ExplainerFile:
    """The value of an `explainer.yaml`. Raises ConfigError."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            FILE, "is not YAML", "Write `schemaversion: 1` and `background: background.parquet`."
        ) from error
    try:
        file = ExplainerFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{FILE}: {where}" if where else FILE, first["msg"], "Correct it; the README shows the file."
        ) from None
    if file.predictor.datatype not in DTYPE:
        raise ConfigError(f"{FILE}: predictor.datatype", "is no datatype of V2", f"Write {', '.join(DTYPE)}.")
    names = [section.name for section in file.methods]
    if len(set(names)) < len(names):
        raise ConfigError(f"{FILE}: methods", "names a method twice", "List each once.")
    return file


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})"
        raise ConfigError(
            str(folder / name), problem, f"--artifacts names a folder with {FILE} and {MODEL_FILE}."
        ) from error


def _inside(folder: Path, name: str) -> Path:
    """The path of a file of the folder: an artifact must not reach out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"{FILE}: background", "leads out of the folder", "Name a file beside explainer.yaml.")
    return path

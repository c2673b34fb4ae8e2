"""The verdict's data as JSON Schema (draft 2020-12): what others may rely on. Within v1 names are only added.

Published by the API at `/api/v1/verdict-schema`; tests hold verdicts to it.
"""

from typing import Any, Final

from detectors.algorithms import ALGORITHMS
from detectors.algorithms.two_sample import NAMES
from detectors.monitor import STATES
from detectors.requests import STATISTICS
from detectors.verdict import COMPARISON, WINDOW

_COUNT: Final = {"type": "integer", "minimum": 0}
_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_TEXT: Final = {"type": "string"}
_HEX: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SLOTS: Final = {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "minItems": 2, "maxItems": 2}
_OFFSETS: Final = {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}


def _closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_PART: Final = _closed({"part": _TEXT, "then": _SHARE, "now": _SHARE})
_TESTED: Final = {
    "statistic": {"enum": [*ALGORITHMS, *NAMES.values(), *STATISTICS]},
    "effect": {"type": "number", "minimum": -1, "maximum": 1},
    "p": _SHARE,
    "p_adjusted": _SHARE,
    "alpha": _SHARE,
    "min_detectable": _SHARE,
    "fired": {"type": "boolean"},
    "shares": {"type": "array", "items": _PART},
    "scale": {"type": "integer", "minimum": 1},
}
_COLUMN: Final = _closed(
    {
        "column": _TEXT,
        "kind": {"enum": ["numeric", "categorical", "requests"]},
        "family": {"enum": ["feature", "prediction", "quality"]},
        "deff": {"type": "number", "minimum": 1},
        "state": {"enum": [state for state in STATES if state != "insufficient"]},
        **_TESTED,
    },
    optional=("deff", *_TESTED),
)
VERDICT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "io.servelens.verdict.v1",
    **_closed(
        {
            "id": _HEX,
            "kind": {"enum": [WINDOW, COMPARISON]},
            "group": _TEXT,
            **dict.fromkeys(("namespace", "inferenceservice", "component", "modelname", "revision"), _TEXT),
            "against": {**_TEXT, "description": "the revision a comparison is with"},
            "segment": {**_TEXT, "description": "column=value, empty for all rows"},
            "slots": {**_SLOTS, "description": "event-time slots since the Unix epoch, both in"},
            "slotseconds": {"type": "integer", "minimum": 1},
            "rows": _COUNT,
            "exchanges": _COUNT,
            "late": {**_COUNT, "description": "rows that came after their window had closed"},
            "counters": {"type": "object", "additionalProperties": _COUNT},
            "coverage": {"anyOf": [_SHARE, {"const": "unknown"}]},
            "gaps": {"type": "array", "items": _closed({"records": _COUNT})},
            "timesource": {"enum": ["broker", "producer"]},
            "pointers": {
                "type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": _OFFSETS},
            },
            "profile": _HEX,
            "previousprofile": _HEX,
            "followingprofile": _HEX,
            "statistics": _TEXT,
            "alpha": _SHARE,
            "scales": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "state": {"enum": list(STATES)},
            "transitions": {"type": "array", "items": _closed(dict.fromkeys(("column", "from", "to"), _TEXT))},
            "columns": {"type": "array", "items": _COLUMN},
            "summary": _TEXT,
        },
        optional=("against", "previousprofile", "followingprofile", "summary"),
    ),
}

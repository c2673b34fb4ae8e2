"""Places in a JSON document by a small path language, and what is found there changed in place.

`$` is the root, `.name` or `["name"]` a member, `[3]` an element, `[*]` or `.*` all of either, `..name` every member of
that name at any depth. No filters, slices or functions: a rule must be read at a glance. Called by `redaction`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from servelens.contract.errors import ConfigError

Place = dict[str, Any] | list[Any]
_STEP: Final = re.compile(
    r'\.\.(?P<deep>[\w-]+)|\.(?P<name>[\w-]+)|\["(?P<quoted>[^"\\]+)"\]|\[(?P<index>\d{1,9})\]|(?P<all>\[\*\]|\.\*)'
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step down; `value` is the member's name or the element's index."""

    kind: Literal["deep", "name", "index", "all"]
    value: str | int = ""


def parse(text: str, where: str) -> tuple[Step, ...]:
    """The steps of a path; ConfigError naming `where` it stands."""
    steps, position = list[Step](), 1
    while position < len(text) and text.startswith("$"):
        found = _STEP.match(text, position)
        if found is None:
            break
        position = found.end()
        kind = str(found.lastgroup)
        if kind == "index":
            steps.append(Step("index", int(found["index"])))
        elif kind == "all":
            steps.append(Step("all"))
        else:
            steps.append(Step("deep" if kind == "deep" else "name", found[kind]))
    if not steps or position != len(text):
        remedy = 'Write $.name, $["name"], [0], [*] or ..name, as in $.instances[*].ssn.'
        raise ConfigError(where, f"{text!r} is no path", remedy)
    return tuple(steps)


def change(root: Any, steps: tuple[Step, ...], act: Callable[[Place, Any], None]) -> bool:
    """Call `act(parent, key)` for each place the path leads to; whether there was one. The document may shrink."""
    found = list(_places(root, steps))
    for parent, key in found:
        act(parent, key)
    return bool(found)


def _places(value: Any, steps: tuple[Step, ...]) -> Iterator[tuple[Place, Any]]:
    for parent, key in _below(value, steps[0]):
        if len(steps) == 1:
            yield parent, key
        else:
            yield from _places(parent[key], steps[1:])


def _below(value: Any, step: Step) -> Iterator[tuple[Any, Any]]:
    if step.kind == "deep":
        yield from _deep(value, str(step.value))
    elif isinstance(value, dict):
        keys = list(value) if step.kind == "all" else [step.value] if step.value in value else []
        yield from ((value, key) for key in keys)
    elif isinstance(value, list):
        if step.kind == "all":
            yield from ((value, index) for index in range(len(value)))
        elif step.kind == "index" and int(step.value) < len(value):
            yield value, step.value


def _deep(value: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Deepest first, so that what is changed above has been searched."""
    for member in list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(member, dict | list):
            yield from _deep(member, name)
    if isinstance(value, dict) and name in value:
        yield value, name

"""Places in a JSON document by a small path language, and what is found there changed in place.

`$` is the root, `.name` or `["name"]` a member, `[3]` an element, `[*]` or `.*` all of either, `..name` every member of
that name at any depth. No filters, slices or functions: a rule must be read at a glance. Called by `redaction`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from servelens.contract.errors import ConfigError, TooLarge

Place = dict[str, Any] | list[Any]
Act = Callable[[Place, Any], None]
MOST_PLACES: Final = 1 << 18  # a place takes some hundred bytes until all of them are known
_CONTAINERS: Final = frozenset({dict, list})
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


def change(root: Any, steps: tuple[Step, ...], act: Act) -> bool:
    """Call `act(parent, key)` once for each place the path leads to; whether there was one. The document may shrink.

    Raises TooLarge for more than MOST_PLACES.
    """
    values, found = [root], list[tuple[Place, Any]]()
    for step in steps:
        found = _bounded(_below(values, step))
        values = [parent[key] for parent, key in found]
    return _each(found, act)


def change_named(root: Any, name: str, act: Act) -> bool:
    """The same for what any JSON calls `name`: members, and the `data` of objects whose `name` it is."""
    return _each(_bounded(_named(root, name)), act)


def _each(places: list[tuple[Place, Any]], act: Act) -> bool:
    for parent, key in places:
        act(parent, key)
    return bool(places)


def _bounded(places: Iterable[tuple[Place, Any]]) -> list[tuple[Place, Any]]:
    found = list[tuple[Place, Any]]()
    for place in places:
        found.append(place)
        if len(found) > MOST_PLACES:
            raise TooLarge("body", f"a rule names more than {MOST_PLACES} places in it")
    return found


def _below(values: list[Any], step: Step) -> Iterator[tuple[Any, Any]]:
    walked = set[int]()
    for value in values:
        if step.kind == "deep":
            for container in _containers(value, walked):
                if isinstance(container, dict) and step.value in container:
                    yield container, step.value
        elif isinstance(value, dict):
            keys = value if step.kind == "all" else [step.value] if step.value in value else ()
            yield from ((value, key) for key in keys)
        elif isinstance(value, list):
            if step.kind == "all":
                yield from ((value, index) for index in range(len(value)))
            elif step.kind == "index" and int(step.value) < len(value):
                yield value, step.value


def _named(root: Any, name: str) -> Iterator[tuple[Place, Any]]:
    for container in _containers(root, set()):
        if isinstance(container, dict):
            if name in container:
                yield container, name
            if "data" in container and name != "data" and container.get("name") == name:
                yield container, "data"


def _containers(value: Any, walked: set[int]) -> Iterator[Place]:
    """Objects and arrays from `value` down, deepest first, each but once for one `walked`.

    Deepest first: a list that is hidden above is copied with what is hidden in it. Once: a place that two ways lead to
    must not be hashed twice, and the time stays linear however objects of one name are nested.
    """
    if type(value) not in _CONTAINERS or id(value) in walked:
        return
    walked.add(id(value))
    members = value.values() if type(value) is dict else value
    if not _CONTAINERS.isdisjoint(map(type, members)):
        for member in members:
            if type(member) in _CONTAINERS:
                yield from _containers(member, walked)
    yield value

"""YAML without its surprises: only `true` and `false` are booleans, and a key stands once.

Apart from `rulesfile` since it knows no rules. `on: request` is a key and not `true`, as YAML 1.2 has it, and a second
`redact:` is an error where YAML libraries silently forget the first.
"""

import re
from typing import Any, Final

import yaml

_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_LEFT_OUT: Final = frozenset({_BOOLEAN, "tag:yaml.org,2002:timestamp"})


class _Twice(ValueError):
    """A key that stands twice in one object."""


# What the safe loader lets through where a value is not of the type its tag says.
_FAULTS: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """The safe loader, stricter."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """An object; a key that is there twice is refused."""
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _Twice("has a key twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in _LEFT_OUT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile("(?:true|false)$"), ["t", "f"])


def load(text: str) -> Any:
    """The document of a text; ValueError, which repeats nothing of it, if it is not YAML or has a key twice."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a safe loader's child
    except _Twice:
        raise
    except _FAULTS:
        raise ValueError("is not YAML") from None

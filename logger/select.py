"""Which exchanges are logged, and whose they are: decided from method and path alone, before anything is encoded.

Every exchange is logged unless a row of the table says otherwise: what asks about a model rather than of it. Called by
the recorder for each frame.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from servelens.contract.events import LogMode

# Health, readiness, metadata and metrics, by the method that asks for them: V1, the Open Inference Protocol, OpenAI's
# model list, Kubernetes' and Prometheus' customs.
_NOT_LOGGED: Final[tuple[tuple[frozenset[str], re.Pattern[str]], ...]] = (
    (frozenset({"GET", "HEAD"}), re.compile(r"/v1/models(?:/[^/:]+)?/?")),
    (frozenset({"GET", "HEAD"}), re.compile(r"/v2(?:/health/(?:live|ready))?/?")),
    (frozenset({"GET", "HEAD"}), re.compile(r"/v2/models/[^/]+(?:/versions/[^/]+)?(?:/ready|/stats|/config)?/?")),
    (frozenset({"GET", "HEAD"}), re.compile(r"/openai/v1/models(?:/[^/]+)?/?")),
    (frozenset({"GET", "HEAD"}), re.compile(r"/(?:healthz?|readyz?|livez?|ping|metrics)?/?")),
)
_MODELS: Final = (
    re.compile(r"/v1/models/([^/:]+)(?:/versions/[^/:]+)?:(?:predict|explain)/?\Z"),
    re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/(?:infer|explain|generate|generate_stream)/?\Z"),
)


@lru_cache(maxsize=1024)
def model_of(path: str) -> str:
    """The model an inference path names, whatever prefix an ingress left before it; empty if it names none."""
    # A server reads `/v2/mod%65ls/…` as the same path; a model's own escapes are looked at before they are undone.
    spellings = (path, unquote(path.partition("#")[0]))
    found = next((match for text in spellings for form in _MODELS if (match := form.search(text))), None)
    return unquote(found[1]) if found else ""


@lru_cache(maxsize=1024)
def reason_against(mode: LogMode, method: str, path: str) -> str:
    """Why an exchange is not logged, as a reason of the account; empty if it is logged."""
    if mode == "none":
        return "not_logged"
    return "filtered" if any(method in methods and path_.fullmatch(path) for methods, path_ in _NOT_LOGGED) else ""

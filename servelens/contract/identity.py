"""Who a payload belongs to and how an exchange is called: the identity tuple, exchange ids and Kafka keys.

Apart from `events` since windows, profiles, labels and metrics use the same tuple without any event.
Called by the tap (new ids), the bridge (repeatable ids), the detector's worker and every verdict.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid5

# Namespace for ids derived from foreign events; fixed for ever, since clients repeat the derivation.
BRIDGE_NAMESPACE = UUID("6f6e7d8a-2b51-5c0e-9d1f-73c1a6f2e4b0")

REQUEST_ID_LIMIT = 128  # visible ASCII characters
_REQUEST_ID = re.compile(rf"[!-~]{{1,{REQUEST_ID_LIMIT}}}")
_48_BITS, _62_BITS = (1 << 48) - 1, (1 << 62) - 1


@dataclass(frozen=True, slots=True, order=True)
class ModelIdentity:
    """Names profiles, windows, verdicts and labels alike; a part that is not known is the empty string."""

    namespace: str
    inferenceservice: str
    component: str = "predictor"
    modelname: str = ""
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.inferenceservice}/{self.component}/{self.modelname}/{self.revision}"

    @classmethod
    def from_mapping(cls, parts: Mapping[str, str]) -> "ModelIdentity":
        """Pick the five parts out of a mapping, absent ones empty (component: `predictor`)."""
        return cls(
            namespace=parts.get("namespace", ""),
            inferenceservice=parts.get("inferenceservice", ""),
            component=parts.get("component", "predictor"),
            modelname=parts.get("modelname", ""),
            revision=parts.get("revision", ""),
        )

    def labels(self) -> dict[str, str]:
        """The same five parts under their metric label names."""
        return {
            "namespace": self.namespace,
            "inferenceservice": self.inferenceservice,
            "component": self.component,
            "modelname": self.modelname,
            "revision": self.revision,
        }


def new_exchange_id(
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    random_bits: Callable[[int], int] = secrets.randbits,
) -> str:
    """A UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then random; sorts by time of creation."""
    # One draw for both random fields, and no UUID object: this is on the tap's hot path.
    bits = random_bits(74)
    low = f"{0b10 << 62 | bits & _62_BITS:016x}"
    high = f"{now_ms() & _48_BITS:012x}"
    return f"{high[:8]}-{high[8:]}-7{bits >> 62:03x}-{low[:4]}-{low[4:]}"


def bridged_exchange_id(namespace: str, inferenceservice: str, component: str, ce_id: str) -> str:
    """The id of an exchange seen only as foreign CloudEvents: UUIDv5 (RFC 9562 section 5.5), equal on both halves."""
    return str(uuid5(BRIDGE_NAMESPACE, "\n".join((namespace, inferenceservice, component, ce_id))))


def clean_request_id(value: str | None) -> str | None:
    """The client's own id if it is 1 to 128 visible ASCII characters, else None (the caller counts the drop)."""
    return value if value and _REQUEST_ID.fullmatch(value) else None


def digest(*parts: str | int) -> str:
    """SHA-256 over length-prefixed parts, so no two different tuples meet; hex."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = str(part).encode()
        hasher.update(len(raw).to_bytes(4, "big") + raw)
    return hasher.hexdigest()

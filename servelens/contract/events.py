"""What an inference is once it is an event: `Exchange`, its halves, and the accounting beside it.

One value for all of them: the tap fills in what it saw, the recorder adds identity and row number, the detector reads
it back. How an attribute is spelled stands in `attributes`; the Kafka form in `records`, the HTTP form in `cloudhttp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from servelens.contract.identity import ModelIdentity

EXCHANGE_TYPE: Final = "io.servelens.inference.exchange.v1"
ACCOUNTING_TYPE: Final = "io.servelens.inference.accounting.v1"
LABEL_TYPE: Final = "io.servelens.label.v1"
VERDICT_TYPE: Final = "io.servelens.verdict.v1"
EXCHANGE_CONTENT_TYPE: Final = "application/vnd.servelens.exchange"
SCHEMA_VERSION: Final = 1

LogMode = Literal["exchange", "all", "request", "response", "none"]
Side = Literal["request", "response"]

HALF_TYPES: Final[Mapping[str, Side]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
    "io.seldon.serving.inference.request": "request",
    "io.seldon.serving.inference.response": "response",
}
KSERVE_TYPE: Final[Mapping[Side, str]] = {
    "request": "org.kubeflow.serving.inference.request",
    "response": "org.kubeflow.serving.inference.response",
}
# Which halves each log mode ships, in order; `exchange` ships both in one record.
MODE_SIDES: Final[Mapping[LogMode, tuple[Side, ...]]] = {
    "all": ("request", "response"),
    "request": ("request",),
    "response": ("response",),
    "none": (),
}


@dataclass(frozen=True, slots=True)
class Half:
    """One body of an exchange. `size` is in bytes before the cap; `body` may be shorter, then `truncated`."""

    body: bytes = b""
    size: int = 0
    truncated: bool = False
    content_type: str = ""
    encoding: str = ""
    header_length: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response as the tap saw them; times in Unix microseconds, durations in microseconds."""

    exchangeid: str
    arrived_us: int
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("", ""))
    endpoint: str = ""
    method: str = ""
    path: str = ""
    status: int | None = None
    protocol: str = ""
    grpcstatus: int | None = None
    duration_us: int | None = None
    requestid: str = ""
    traceparent: str = ""
    samplerate: float | None = None
    redacted: tuple[str, ...] = ()  # the slots a rule has changed, as in `request.inputs.ssn`
    claimedsynthetic: bool = False
    tapid: str = ""
    seq: int = 0
    request: Half | None = None
    response: Half | None = None
    sources: tuple[str, ...] = ()  # the CloudEvent ids it was read from


@dataclass(frozen=True, slots=True)
class Accounting:
    """What one tap offered and lost in one slot: the denominator of coverage. Counts are exchanges, not rows."""

    tapid: str
    seq: int
    identity: ModelIdentity
    from_us: int
    to_us: int
    offered: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record to be: `headers` in order, values UTF-8; `timestamp_ms` is Unix milliseconds."""

    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    timestamp_ms: int

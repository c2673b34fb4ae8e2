"""Every error ServeLens raises on purpose, in one tree that says who must act.

    ServeLensError
    ├── ConfigError          the operator: a flag, file or topic is wrong; the process exits with 2
    ├── PayloadError         the sender: bytes that are not what they claim to be (HTTP 400; a dead letter on a stream)
    │   ├── TooLarge         the sender: over a stated limit (HTTP 413)
    │   └── TooSlow          the sender: the body did not come in time (HTTP 408)
    ├── UpstreamError        the predictor's owner: it refused, hung up or answered nonsense (HTTP 502)
    │   ├── UpstreamAway     nobody listens there (HTTP 503 where the protocol asks for it)
    │   ├── UpstreamChanged  two answers to one question: a rollout or canary (HTTP 503)
    │   └── DeadlineExceeded no answer in time (HTTP 504)
    ├── Unauthorized         the caller: no token, or not one that is known (HTTP 401)
    ├── Forbidden            the caller: known, and not allowed this (HTTP 403)
    ├── NotFound             the caller: no such model or method here (HTTP 404)
    ├── Overloaded           the caller: come back later (HTTP 429 with Retry-After)
    │   └── SpoolFull        the operator, in the end: Kafka is away for too long (HTTP 503 with Retry-After)
    ├── BrokerError          the Kafka operator: the topic or broker is not usable now; retried by whoever owns the loop
    └── StateError           us: stored state contradicts itself; never repaired silently

A message names the field, what was found there and what to do; it never carries a header's or a secret's value.
"""


class ServeLensError(Exception):
    """The root: catch it only where a process or a request ends."""

    status = 500


class ConfigError(ServeLensError):
    """A setting is wrong. `setting` is its name as the operator writes it, `remedy` one sentence on what to do."""

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        super().__init__(f"{setting}: {problem}. {remedy}")
        self.setting, self.problem, self.remedy = setting, problem, remedy


class PayloadError(ServeLensError):
    """Bytes that cannot be read as what they claim to be. `reason` is a short stable word, fit for a metric label."""

    status = 400

    def __init__(self, field: str, problem: str, *, reason: str = "malformed") -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem, self.reason = field, problem, reason


class TooLarge(PayloadError):
    """A payload, shape or nesting over its stated limit."""

    status = 413

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem, reason="too_large")


class TooSlow(PayloadError):
    """A body that did not come in time."""

    status = 408

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem, reason="too_slow")


class UpstreamError(ServeLensError):
    """The predictor refused, hung up or answered nonsense."""

    status = 502


class UpstreamAway(UpstreamError):
    """Nobody listens at the predictor's address."""

    status = 503


class UpstreamChanged(UpstreamError):
    """The predictor gave two answers to one question: its model changed under us, or two models share its address."""

    status = 503


class DeadlineExceeded(UpstreamError):
    """No answer within the deadline."""

    status = 504


class Unauthorized(ServeLensError):
    """The caller did not show a token that is known here."""

    status = 401


class Forbidden(ServeLensError):
    """The caller is known, and may not do this."""

    status = 403


class NotFound(ServeLensError):
    """No such model, method or tensor here; the message says which there are."""

    status = 404


class Overloaded(ServeLensError):
    """A bounded queue is full; `retry_after` in seconds."""

    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SpoolFull(Overloaded):
    """What was sent cannot be kept now."""

    status = 503


class BrokerError(ServeLensError):
    """Kafka is away, or a topic is not what the contract says."""

    status = 503


class StateError(ServeLensError):
    """Stored state contradicts itself (a spool segment, a profile, a journal)."""

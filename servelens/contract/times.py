"""RFC 3339 times as Unix microseconds, and event-time slots: the two ways time crosses a process boundary."""

from datetime import UTC, datetime
from typing import Final

from servelens.contract.errors import PayloadError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
US: Final = 1_000_000  # microseconds in a second


def rfc3339(unix_us: int) -> str:
    """Unix microseconds as RFC 3339 UTC with six digits and a `Z`."""
    whole = datetime.fromtimestamp(unix_us // US, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{unix_us % US:06d}Z"


def unix_us(text: str, field: str = "time") -> int:
    """RFC 3339 to Unix microseconds, finer fractions cut; PayloadError for anything without a date and an offset."""
    try:
        moment = datetime.fromisoformat(text)
        offset = moment.utcoffset()
    except ValueError as error:
        raise PayloadError(field, f"not an RFC 3339 time: {text[:40]!r}", reason="bad_time") from error
    if offset is None:
        raise PayloadError(field, "has no offset; write it in UTC with a trailing Z", reason="bad_time")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * US + delta.microseconds


def slot_of(unix_us: int, slot_seconds: int) -> int:
    """The number of the slot a moment falls into: whole slots since the Unix epoch."""
    return unix_us // (slot_seconds * US)


def clamp_event_time(event_us: int, broker_us: int, max_age_us: int, ahead_us: int = 60 * US) -> int:
    """Event time as detectors use it: no older than the broker's time less `max_age_us`, at most `ahead_us` past it."""
    return min(max(event_us, broker_us - max_age_us), broker_us + ahead_us)

"""The settings as the command lines of tap, recorder and shipper: one table of flags for each, filled for a lane.

Apart from `settings`, which are checked once; a flag whose value is empty is not given, so the child's own default
holds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from logger.lanes import Lane
from logger.settings import LoggerSettings
from servelens.io.kafka_settings import KafkaSettings, as_arguments

Flags = Mapping[str, Any]


def _identity(settings: LoggerSettings) -> Flags:
    return {
        "--namespace": settings.namespace,
        "--inference-service": settings.inference_service,
        "--component": settings.component,
    }


def _tracing(settings: LoggerSettings) -> Flags:
    return {
        "--otlp": settings.otlp,
        "--otlp-headers-file": settings.otlp_headers_file,
        "--otlp-ca-file": settings.otlp_ca_file,
        "--trace-ratio": settings.trace_ratio if settings.otlp else None,
    }


def _meeting(settings: LoggerSettings, lane: Lane) -> Flags:
    logged = settings.log_mode != "none"
    return {"--capture-socket": lane.socket if logged else None, "--accounts": lane.accounts if logged else None}


def _tap(settings: LoggerSettings, lane: Lane) -> Flags:
    return {
        "--upstream": settings.address,
        **_meeting(settings, lane),
        **_identity(settings),
        "--capture-memory": settings.capture_memory // settings.workers,
        "--body-cap": settings.body_cap,
        "--on-unparsable": settings.on_unparsable,
        "--max-connections": max(1, settings.max_connections // settings.workers),
        "--idle-seconds": settings.idle_seconds,
        "--drain-seconds": settings.grace_seconds,
        "--synthetic-key": settings.synthetic_key,
        "--add-request-id": settings.add_request_id,
        "--trace-ratio": settings.trace_ratio if settings.add_request_id and settings.otlp else None,
    }


def _recorder(settings: LoggerSettings, lane: Lane) -> Flags:
    return {
        "--capture-socket": lane.socket,
        "--accounts": lane.accounts,
        "--spool": lane.spool,
        "--spool-bytes": lane.spool_bytes,
        "--spool-policy": settings.spool_policy,
        **_identity(settings),
        "--revision": settings.revision,
        "--endpoint": settings.endpoint,
        "--log-mode": settings.log_mode,
        "--accounting-seconds": settings.accounting_seconds,
        "--rules": settings.rules,
        "--redaction-key": settings.redaction_key,
        **_tracing(settings),
    }


def _shipper(settings: LoggerSettings, lane: Lane) -> Flags:
    return {
        "--spool": lane.spool,
        "--topic-prefix": settings.topic_prefix,
        "--partitions": settings.partitions,
        "--grace-seconds": settings.grace_seconds,
        "--create-topics" if settings.create_topics else "--no-create-topics": True,
        **_identity(settings),
        **_tracing(settings),
    }


_CHILDREN: Final[Mapping[str, Callable[[LoggerSettings, Lane], Flags]]] = {
    "tap": _tap,
    "recorder": _recorder,
    "shipper": _shipper,
}


def arguments(settings: LoggerSettings, lane: Lane, process: str, listen_fd: int = -1) -> list[str]:
    """The words after `python -m logger.PROCESS`; `listen_fd` is the tap's socket."""
    words = ["--listen-fd", str(listen_fd)] if process == "tap" else []
    for flag, value in _CHILDREN[process](settings, lane).items():
        if value is True:
            words.append(flag)
        elif value not in (None, "", False):
            words += [flag, str(value)]
    return words + (as_arguments(settings.kafka or KafkaSettings("")) if process == "shipper" else [])

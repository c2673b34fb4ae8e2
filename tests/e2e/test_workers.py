"""`servelens logger` with more than one worker: one port, a spool each, one account; and with fewer the next time."""

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from tap_parts import OK, Predictor, answering, read_exactly, until
from whole_logger import flags, whole_logger

from logger.segment import newest_state
from servelens.contract import records
from servelens.contract.events import Exchange
from servelens.contract.topics import Topics
from servelens.io.embedded import EmbeddedBroker, free_port
from servelens.io.kafka import read_all
from servelens.io.kafka_settings import KafkaSettings


def ask(port: int, number: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /v1/models/m:predict?n HTTP/1.1\r\nx-request-id: %d\r\n\r\n" % number)
        assert read_exactly(client, len(OK)) == OK


def spooled(spool: Path) -> int:
    """Exchanges committed, by both workers: one that still lies in a tap's memory would die with it."""
    states = [newest_state(folder) for folder in (spool, spool / "worker-1")]
    return sum(state[1].spooled for state in states if state)


def in_kafka(settings: KafkaSettings, prefix: str) -> list[str]:
    found = [
        records.decode(record.headers, record.value)
        for partition in range(4)
        for record in read_all(settings, Topics(prefix).payloads, partition)
    ]
    return sorted(event.requestid for event in found if isinstance(event, Exchange))


def test_two_workers_share_a_port_and_what_a_lost_one_left_is_shipped_by_the_next_start(
    tmp_path: Path, prefix: str
) -> None:
    port = free_port()
    with ExitStack() as stack:
        predictor = stack.enter_context(Predictor(answering()))
        given = flags(tmp_path, f"127.0.0.1:{predictor.port}", f"127.0.0.1:{port}", prefix)
        with whole_logger(tmp_path, *given, "--workers", "2", stop=False) as logger:
            logger.wait_ready()
            for number in range(60):
                ask(logger.port, number)
            until(lambda: spooled(tmp_path / "spool") == 60, "all spooled", 60)
            assert logger.account()["waiting"] == 60
            children = logger.account()["processes"]
            assert set(children) == {"tap", "tap-1", "recorder", "recorder-1", "shipper", "shipper-1"}
            # Where there is too little time for all, inference has it first.
            policies = {name: os.sched_getscheduler(pid) for name, pid in children.items()}
            idle = {name for name, policy in policies.items() if policy == os.SCHED_IDLE}
            assert idle == {name for name in children if not name.startswith("tap")}
            os.kill(children["tap-1"], signal.SIGKILL)
            until(lambda: logger.account()["processes"]["tap-1"] not in (None, children["tap-1"]), "restarted")
            for number in range(60, 80):
                ask(logger.port, number)
            until(lambda: spooled(tmp_path / "spool") == 80, "all spooled", 60)
            account = logger.account()
            assert (account["offered"], account["waiting"], account["adds_up"]) == (80, 80, True)
            assert b"--source-uri belongs to KServe" in logger.log_file.read_bytes()
        # Killed with Kafka away; this one has no second worker, but its spool.
        assert (tmp_path / "spool" / "worker-1").is_dir()
        stack.enter_context(EmbeddedBroker("127.0.0.1", port))
        with whole_logger(tmp_path, *given) as logger:
            account = logger.wait_shipped(80)
            assert (account["offered"], account["shipped"], account["waiting"]) == (80, 80, 0)
            assert set(account["processes"]) == {"tap", "recorder", "shipper", "recorder-1", "shipper-1"}
            text = logger.get("/metrics").text
        ids = in_kafka(KafkaSettings(f"127.0.0.1:{port}"), prefix)
        assert sorted(set(ids), key=int) == [str(number) for number in range(80)]
    shipped = f'inferenceservice="income",namespace="ns"}} {float(account["shipped"])}'
    assert f'servelens_logger_shipped_total{{component="predictor",{shipped}' in text
    assert "kserve_logger_events_sent_total{" in text


@pytest.mark.parametrize("probe", ["", "/v2/health/ready"])
def test_it_is_ready_when_the_predictor_is(tmp_path: Path, prefix: str, probe: str) -> None:
    path = tmp_path / "model.sock"
    given = flags(tmp_path, f"unix:{path}", "127.0.0.1:9", prefix)
    with whole_logger(tmp_path, *given, "--log-mode", "none", "--probe-path", probe) as logger:
        answer = logger.get("/readyz")
        assert (answer.status_code, "not ready" in answer.text) == (503, True)
        with Predictor(answering(), path):
            logger.wait_ready()
            ask(logger.port, 1)
            assert set(logger.account()["processes"]) == {"tap"}
            until(lambda: 'servelens_requests_total{code="200"' in logger.get("/metrics").text, "measured")

"""The tap's limits on connections, its other kind of upstream, and the ids it inserts when told to."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tap_parts import OK, LocalTap, Predictor, RecorderEnd, answering, read_all, read_exactly, read_head, until

from logger.upstream import Upstream

GET = b"GET /v2/models/m/infer HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RecorderEnd]:
    with RecorderEnd(tmp_path / "capture.sock") as recorder:
        yield recorder


def test_one_connection_too_many_is_answered_503_and_room_is_given_back(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path, max_connections=2) as tap:
        kept = [tap.connect() for _ in range(2)]
        for client in kept:
            client.sendall(GET)
            assert read_exactly(client, len(OK)) == OK
        for count in (1, 2, 3):  # those turned away take up no room themselves
            with tap.connect() as late:
                late.sendall(GET)
                assert read_all(late).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert tap.metric("servelens_upstream_errors_total", reason="too_many_connections") == count
        kept[0].sendall(GET)
        assert read_exactly(kept[0], len(OK)) == OK
        kept.pop().close()
        until(lambda: len(tap.tap._shared.clients) == 1, "the closed ones gone")
        with tap.connect() as next_one:
            next_one.sendall(GET)
            assert read_exactly(next_one, len(OK)) == OK
        kept[0].close()
        until(lambda: recorder.count == 7, "all committed")
    assert predictor.connections == 3
    assert sorted(str(exchange.status) for exchange in recorder.exchanges) == ["200"] * 4 + ["503"] * 3


def test_a_silent_connection_is_closed_and_a_thinking_predictor_is_waited_for(
    tmp_path: Path, recorder: RecorderEnd
) -> None:
    def script(connection: socket.socket, number: int) -> None:
        if number == 1:  # of the half request
            read_all(connection)
            return
        read_head(connection)
        time.sleep(1.2)
        connection.sendall(OK)
        connection.recv(1)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path, idle_seconds=0.4) as tap:
        silent, half = tap.connect(), tap.connect()
        half.sendall(GET[:20])
        until(lambda: predictor.connections == 1)
        began = time.monotonic()
        with tap.connect() as asking:
            asking.sendall(GET)
            assert read_exactly(asking, len(OK)) == OK
            assert time.monotonic() - began > 1.1
            assert asking.recv(1) == b""  # in its turn, once it owes nothing
        assert (silent.recv(1), half.recv(1)) == (b"", b"")
        silent.close()
        half.close()


def test_a_busy_connection_is_never_idle(tmp_path: Path, recorder: RecorderEnd) -> None:
    with (
        Predictor(answering()) as predictor,
        LocalTap(predictor.port, tmp_path, idle_seconds=0.4) as tap,
        tap.connect() as client,
    ):
        for _ in range(12):
            client.sendall(GET)
            assert read_exactly(client, len(OK)) == OK
            time.sleep(0.1)


def test_the_predictor_may_listen_on_a_unix_socket(tmp_path: Path, recorder: RecorderEnd) -> None:
    path = tmp_path / "model.sock"
    with Predictor(answering(), path), LocalTap(Upstream(path=str(path)), tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "committed")


def test_nobody_at_a_unix_socket_is_a_typed_502(tmp_path: Path, recorder: RecorderEnd) -> None:
    with LocalTap(Upstream(path=str(tmp_path / "none.sock")), tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_all(client).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


def test_inserted_ids_reach_the_predictor_and_the_event_alike(tmp_path: Path, recorder: RecorderEnd) -> None:
    heads: list[bytes] = []

    def script(connection: socket.socket, _: int) -> None:
        for _ in range(3):
            heads.append(read_head(connection))
            connection.sendall(OK)

    own = GET[:-2] + b"x-request-id: mine\r\n\r\n"
    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path, add_request_id=True) as tap:
        with tap.connect() as client:
            client.sendall(GET[:10])
            time.sleep(0.05)
            client.sendall(GET[10:-1])
            time.sleep(0.05)
            client.sendall(GET[-1:] + own)
            assert read_exactly(client, 2 * len(OK)) == 2 * OK
            client.sendall(GET)
            assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 3, "committed")
    found = [re.search(rb"x-request-id: (\S+)\r\ntraceparent: (\S+)\r\n", head) for head in heads]
    assert found[0]
    assert found[2]
    assert heads[1].startswith(own[:-2] + b"traceparent: ")
    assert [exchange.requestid for exchange in recorder.exchanges] == [
        found[0][1].decode(), "mine", found[2][1].decode()
    ]  # fmt: skip
    assert recorder.exchanges[0].traceparent == found[0][2].decode()
    assert len({exchange.requestid for exchange in recorder.exchanges}) == 3


def test_without_room_for_its_account_it_serves_and_counts_what_it_missed(tmp_path: Path) -> None:
    accounts = tmp_path / "taps"
    accounts.write_text("in the way, as a full volume is")
    with (
        Predictor(answering()) as predictor,
        RecorderEnd(tmp_path / "capture.sock") as recorder,
        LocalTap(predictor.port, tmp_path) as tap,
        tap.connect() as client,
    ):
        client.sendall(GET)
        assert read_exactly(client, len(OK)) == OK
        client.sendall(GET)
        assert read_exactly(client, len(OK)) == OK
        assert tap.tap.account is None
        accounts.unlink()
        until(lambda: tap.tap.account is not None, "an account")
        client.sendall(GET)
        assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "a frame")
        counts = tap.counts()
        assert (counts.offered, counts.handed, counts.reasons["over_budget"]) == (3, 1, 2)
        assert tap.registry.get_sample_value("servelens_task_errors_total", {"task": "account"}) == 1

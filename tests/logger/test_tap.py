import contextlib
import hashlib
import hmac
import http.client
import http.server
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import orjson
import pytest
from http_traffic import Turn, conversation, split
from tap_parts import (
    OK,
    LocalTap,
    Predictor,
    RecorderEnd,
    TapProcess,
    answering,
    at_once,
    read_all,
    read_exactly,
    read_head,
    reset,
    tap_process,
    until,
)

from logger.account import read_account
from logger.seen import Headers, Seen
from logger.tap import TapSettings, main
from logger.upstream import Upstream
from servelens.contract.errors import ConfigError
from servelens.contract.events import Exchange

GET = b"GET /v2/health HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RecorderEnd]:
    with RecorderEnd(tmp_path / "capture.sock") as end:
        yield end


def facts(exchange: Exchange) -> tuple[object, ...]:
    assert exchange.request is not None
    assert exchange.response is not None
    assert not exchange.request.truncated
    assert not exchange.response.truncated
    return (
        exchange.method,
        exchange.path,
        exchange.status,
        exchange.requestid,
        exchange.request.body,
        exchange.response.body,
        exchange.request.content_type,
        exchange.response.content_type,
    )


def ends(connection: socket.socket) -> bool:
    """Whether nothing but the connection's end comes."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# Transparency.


class Plan:
    """What each connection is to say; one connection at a time, each conversation once directly and once by the tap."""

    def __init__(self, seed: int, connections: int) -> None:
        self.random = Random(seed)
        self.said = [conversation(self.random, self.random.randrange(1, 13)) for _ in range(connections)]
        self.pipelined = [self.random.random() < 0.3 for _ in self.said]

    def script(self, connection: socket.socket, number: int) -> None:
        turns, pieces = self.said[(number - 1) // 2], Random(number)
        for request, response in self.legs((number - 1) // 2, turns):
            assert read_exactly(connection, len(request)) == request
            for piece in split(pieces, response, pieces.randrange(1, 4)):
                connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""

    def legs(self, index: int, turns: list[Turn]) -> list[tuple[bytes, bytes]]:
        if self.pipelined[index]:
            return [(b"".join(turn.request for turn in turns), b"".join(turn.response for turn in turns))]
        return [(turn.request, turn.response) for turn in turns]

    def converse(self, index: int, port: int) -> bytes:
        pieces, got = Random(index), b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            at_once(client)
            for request, response in self.legs(index, self.said[index]):
                for piece in split(pieces, request, pieces.randrange(1, 4)):
                    client.sendall(piece)
                got += read_exactly(client, len(response)) if response else b""
            return got + read_all(client)


def test_thousands_of_exchanges_pass_byte_for_byte_and_are_all_seen(tmp_path: Path, recorder: RecorderEnd) -> None:
    plan = Plan(seed=20240611, connections=450)
    with Predictor(plan.script) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        for index, turns in enumerate(plan.said):
            direct = plan.converse(index, predictor.port)
            assert plan.converse(index, tap.port) == direct == b"".join(turn.response for turn in turns)
        expected = [turn.seen() for turns in plan.said for turn in turns]
        assert len(expected) > 2500
        until(lambda: recorder.count == len(expected), "all exchanges committed")
        assert [facts(exchange) for exchange in recorder.exchanges] == expected
        counts = tap.counts()
        assert (counts.offered, counts.handed, counts.open) == (len(expected), len(expected), 0)
        until(lambda: tap.on_loop(lambda: tap.tap._budget.used) == 0, "all memory given back")


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_concurrent_clients_of_a_real_server_get_their_own_answers(tmp_path: Path, recorder: RecorderEnd) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong: list[str] = []

    def client(name: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", tap.port, timeout=20)
        for number in range(40):
            body = f"{name}/{number}".encode() * 300
            connection.request("POST", f"/{name}/{number}", body, {"X-Request-Id": f"{name}-{number}"})
            if connection.getresponse().read() != body[::-1]:
                wrong.append(f"{name}/{number}")
        connection.close()

    with LocalTap(server.server_port, tmp_path) as tap:
        threads = [threading.Thread(target=client, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: recorder.count == 320, "all exchanges committed")
    server.shutdown()
    server.server_close()
    assert wrong == []
    for exchange in recorder.exchanges:
        assert exchange.request is not None
        assert exchange.response is not None
        assert exchange.path == "/" + exchange.requestid.replace("-", "/")
        assert exchange.request.body == exchange.path[1:].encode() * 300
        assert exchange.response.body == exchange.request.body[::-1]


def test_expect_100_continue_waits_for_the_predictor(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert read_exactly(connection, 4) == b"body"
        connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "the exchange committed")
    assert (recorder.exchanges[0].status, recorder.exchanges[0].request) is not None
    assert recorder.exchanges[0].status == 200


def test_a_half_closed_client_gets_its_answer(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        assert read_all(connection).endswith(b"\r\n\r\n")
        connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == OK
        until(lambda: recorder.count == 1, "the exchange committed")
        until(lambda: not tap.tap._shared.clients, "the connection gone")


def test_a_predictor_that_answers_early_and_closes_is_heard_while_the_client_still_sends(
    tmp_path: Path, recorder: RecorderEnd
) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\ncontent-length: 10000000\r\n\r\n" + b"x" * 100_000)
        assert read_all(client) == answer
        client.sendall(b"x" * 100_000)
        client.close()
        until(lambda: recorder.count == 1, "the exchange committed")
    (exchange,) = recorder.exchanges
    assert exchange.request is not None
    assert (exchange.status, exchange.request.truncated) == (413, True)


def test_a_reset_in_mid_response_reaches_the_client_as_one(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\npart")
        time.sleep(0.1)
        reset(connection)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_head(client)
        with pytest.raises(ConnectionResetError):
            read_all(client)
        until(lambda: recorder.count == 1, "the exchange committed")
    (exchange,) = recorder.exchanges
    assert exchange.response is not None
    assert (exchange.status, exchange.response.body, exchange.response.truncated) == (200, b"part", True)


def test_a_client_that_vanishes_takes_its_upstream_along_and_is_handed_over(
    tmp_path: Path, recorder: RecorderEnd
) -> None:
    ended = threading.Event()

    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        ended.set()

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        client = tap.connect()
        client.sendall(GET)
        until(lambda: predictor.connections, "the request passed on")
        reset(client)
        assert ended.wait(5)
        until(lambda: recorder.count == 1, "the exchange committed")
        assert tap.metric("servelens_requests_in_flight") == 0
    assert recorder.exchanges[0].status is None


@pytest.mark.parametrize("direction", ["down", "up"])
def test_the_slower_end_sets_the_pace_and_nothing_piles_up(
    tmp_path: Path, recorder: RecorderEnd, direction: str
) -> None:
    size, go, moved = 48 << 20, threading.Event(), [0]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    piece = b"z" * (1 << 18)

    def send(connection: socket.socket) -> None:
        for _ in range(size // len(piece)):
            connection.sendall(piece)
            moved[0] += len(piece)

    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        if direction == "down":
            connection.sendall(head)
            send(connection)
        else:
            go.wait(10)
            assert len(read_exactly(connection, size)) == size
            connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        sender = threading.Thread(target=send, args=(client,))
        if direction == "down":
            client.sendall(GET)
        else:
            client.sendall(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size)
            sender.start()
        before = -1
        while moved[0] != before or not before:  # until it stands
            before = moved[0]
            time.sleep(0.3)
        assert moved[0] < size * 3 // 4
        go.set()
        if direction == "down":
            assert len(read_exactly(client, len(head) + size)) == len(head) + size
        else:
            sender.join(20)
            assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "the exchange committed")
    (exchange,) = recorder.exchanges
    half = exchange.response if direction == "down" else exchange.request
    assert half is not None
    assert (half.size, len(half.body), half.truncated) == (size, 1 << 20, True)


# Predictors that are away.


def parts(raw: bytes) -> tuple[int, dict[str, str]]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), orjson.loads(body) if body else {}


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_a_refused_connection_is_a_typed_502_counted_and_handed_over(tmp_path: Path, recorder: RecorderEnd) -> None:
    with LocalTap(unused_port(), tmp_path) as tap:
        for request, has_body in ((GET, True), (GET.replace(b"GET", b"HEAD"), False)):
            with tap.connect() as client:
                client.sendall(request)
                status, answer = parts(read_all(client))
                assert status == 502
                assert ("refuses" in answer.get("error", "")) is has_body
        until(lambda: recorder.count == 2, "both exchanges committed")
        assert tap.metric("servelens_upstream_errors_total", reason="refused") == 2
        assert tap.metric("servelens_requests_total", method="GET", code="502") == 1
    assert [exchange.status for exchange in recorder.exchanges] == [502, 502]


def test_a_refused_client_that_still_sends_its_head_or_body_is_answered(tmp_path: Path, recorder: RecorderEnd) -> None:
    with LocalTap(unused_port(), tmp_path) as tap:
        with tap.connect() as client:
            client.sendall(GET[:10])
            time.sleep(0.2)
            client.sendall(GET[10:])
            assert parts(read_all(client))[0] == 502
        with tap.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n")
            for _ in range(30):
                client.sendall(b"x" * 100_000)
            assert parts(read_all(client))[0] == 502
        until(lambda: tap.counts().offered == 2 and tap.counts().open == 0, "both handed over")


def test_a_refused_client_that_never_completes_a_head_is_closed(tmp_path: Path, recorder: RecorderEnd) -> None:
    with LocalTap(unused_port(), tmp_path, connect_timeout=0.3) as tap, tap.connect() as client:
        client.sendall(GET[:10])
        assert read_all(client) == b""
        assert tap.counts().offered == 0


def test_a_predictor_that_does_not_accept_is_a_typed_503(tmp_path: Path, recorder: RecorderEnd) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(3):  # the queue takes one more than asked for
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        with LocalTap(full.getsockname()[1], tmp_path, connect_timeout=0.3) as tap, tap.connect() as client:
            client.sendall(GET)
            assert parts(read_all(client))[0] == 503
            assert tap.metric("servelens_upstream_errors_total", reason="connect_timeout") == 1
        for one in waiting:
            one.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_predictor_gone_before_its_answer_is_passed_on_as_it_came_and_counted(
    tmp_path: Path, recorder: RecorderEnd, how: str, before: bytes
) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(before)
        time.sleep(0.05)
        if how == "reset":
            reset(connection)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_exactly(client, len(before)) == before
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""
        assert tap.metric("servelens_upstream_errors_total", reason="closed_early") == 1
        until(lambda: recorder.count == 1, "the exchange committed")
    assert recorder.exchanges[0].status is None


def test_a_predictor_gone_between_two_pipelined_answers_is_counted_once(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_exactly(connection, 3 * len(GET))
        connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET * 3)
        assert read_all(client) == OK
        until(lambda: recorder.count == 3, "all exchanges committed")
        assert tap.metric("servelens_upstream_errors_total", reason="closed_early") == 1
    assert [exchange.status for exchange in recorder.exchanges] == [200, None, None]


@pytest.mark.parametrize("sent", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"])
def test_a_predictor_gone_in_its_answer_is_passed_on_as_it_came(
    tmp_path: Path, recorder: RecorderEnd, sent: bytes
) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(sent)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_all(client) == sent
        assert tap.metric("servelens_upstream_errors_total", reason="closed_early") == 0
        until(lambda: recorder.count == 1, "the exchange committed")


def test_a_predictor_that_closes_an_idle_connection_is_only_passed_on(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(GET)
        assert read_all(client) == OK
        assert tap.metric("servelens_upstream_errors_total", reason="closed_early") == 0


def test_a_probe_of_the_port_opens_nothing_upstream(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        tap.connect().close()
        until(lambda: not tap.tap._shared.clients, "the probe gone")
        assert predictor.connections == 0


# What is seen, and what is not.


def test_an_upgrade_passes_and_is_counted_as_upgraded(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        while data := connection.recv(1 << 16):
            connection.sendall(data[::-1])

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        read_head(client)
        for _ in range(3):
            client.sendall(b"\x00GET \xff")
            assert read_exactly(client, 6) == b"\xff TEG\x00"
        until(lambda: tap.counts().reasons["upgraded"] == 1, "the upgrade counted")
        assert (tap.counts().offered, tap.counts().open) == (1, 0)


def test_bytes_that_are_no_http_pass_unseen_and_are_counted(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        for _ in range(3):
            client.sendall(b"\x16\x03\x01 no http")
            assert read_exactly(client, 11) == b"\x16\x03\x01 no http"
        assert (tap.counts().offered, tap.counts().reasons["unparsable"]) == (1, 1)


def test_with_close_bytes_that_are_no_http_end_the_connection(tmp_path: Path, recorder: RecorderEnd) -> None:
    with (
        Predictor(answering()) as predictor,
        LocalTap(predictor.port, tmp_path, on_unparsable="close") as tap,
        tap.connect() as client,
    ):
        client.sendall(b"\x16\x03\x01 no http")
        assert ends(client)
        assert tap.counts().reasons["unparsable"] == 1


def test_an_observer_that_fails_is_counted_and_noticed_by_nobody(tmp_path: Path, recorder: RecorderEnd) -> None:
    class Failing:
        def begun(self, seen: Seen, headers: Headers) -> None:
            raise ZeroDivisionError(seen, headers)

        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        tap.tap._shared.watch = Failing()  # type: ignore[assignment]
        with tap.connect() as client:
            for _ in range(3):
                client.sendall(GET)
                assert read_exactly(client, len(OK)) == OK
        tap.on_loop(tap.tap.publish)
        assert tap.registry.get_sample_value("servelens_task_errors_total", {"task": "observer"}) == 1


def test_probes_are_measured_and_not_offered(tmp_path: Path, recorder: RecorderEnd) -> None:
    probe = b"GET /ready HTTP/1.1\r\nuser-agent: kube-probe/1.31\r\n\r\n"
    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(probe)
        assert read_exactly(client, len(OK)) == OK
        client.sendall(GET)
        assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "the other one committed")
        assert tap.counts().offered == 1
        assert tap.metric("servelens_requests_total", method="GET", code="200") == 2
    assert recorder.exchanges[0].path == "/v2/health"


def test_signed_synthetic_traffic_is_counted_and_any_other_claim_is_logged(
    tmp_path: Path, recorder: RecorderEnd
) -> None:
    key, expiry = b"0123456789abcdef", str(int(time.time()) + 60)
    (tmp_path / "key").write_bytes(key + b"\n")

    def token(key: bytes) -> str:
        return f"{expiry}.{hmac.new(key, expiry.encode(), hashlib.sha256).hexdigest()}"

    claims = [
        f"x-servelens-synthetic: {token(key)}",
        "x-servelens-synthetic: true",
        f"X-ServeLens-Synthetic: {token(b'guessed')}",
        "Seldon-Skip-Logging: true",
        "x-other: 1",
    ]
    with (
        Predictor(answering()) as predictor,
        LocalTap(predictor.port, tmp_path, synthetic_key=tmp_path / "key") as tap,
        tap.connect() as client,
    ):
        for claim in claims:
            client.sendall(f"GET / HTTP/1.1\r\n{claim}\r\n\r\n".encode())
            assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 4, "the others committed")
        counts = tap.counts()
        assert (counts.offered, counts.reasons["synthetic"]) == (5, 1)
    assert [exchange.claimedsynthetic for exchange in recorder.exchanges] == [True, True, True, False]


def test_what_is_handed_over_of_an_exchange(tmp_path: Path, recorder: RecorderEnd) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = (
        b"POST /v2/models/m/infer?key=secret HTTP/1.1\r\ncontent-type: application/octet-stream\r\n"
        b"inference-header-content-length: 2\r\ncontent-encoding: gzip\r\nx-request-id: not fit\r\nce-id: fit\r\n"
        b"traceparent: " + trace.encode() + b"\r\nauthorization: secret\r\ncontent-length: 4\r\n\r\n{}ab"
    )
    before = time.time_ns() // 1000

    def script(connection: socket.socket, _: int) -> None:
        read_exactly(connection, len(request))
        time.sleep(0.1)
        connection.sendall(OK)

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        client.sendall(request)
        until(lambda: tap.metric("servelens_requests_in_flight") == 1, "the exchange in flight")
        assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 1, "the exchange committed")
        assert tap.metric("servelens_requests_in_flight") == 0
        assert tap.metric("servelens_logger_requestid_dropped_total") == 1
        assert tap.metric("servelens_request_duration_seconds_count") == 1
        assert 0.09 < tap.metric("servelens_request_duration_seconds_sum") < 5
        assert tap.metric("servelens_request_duration_seconds_bucket", le="0.05") == 0
    (exchange,) = recorder.exchanges
    assert exchange.request is not None
    assert exchange.response is not None
    assert before <= exchange.arrived_us <= time.time_ns() // 1000
    assert exchange.duration_us is not None
    assert 90_000 < exchange.duration_us < 5_000_000
    assert exchange.exchangeid[14] == "7"
    assert int(exchange.exchangeid.replace("-", "")[:12], 16) == exchange.arrived_us // 1000
    assert (exchange.path, exchange.requestid, exchange.traceparent) == ("/v2/models/m/infer", "fit", trace)
    assert (exchange.request.body, exchange.request.header_length, exchange.request.encoding) == (b"{}ab", 2, "gzip")
    assert exchange.response.content_type == "application/json"
    assert b"secret" not in recorder.frames[tap.tap.stream][0]


def test_unknown_methods_share_one_label(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        for method in (b"PROPFIND", b"PURGE"):
            client.sendall(method + b" / HTTP/1.1\r\n\r\n")
            assert read_exactly(client, len(OK)) == OK
        until(lambda: recorder.count == 2, "both committed")
        assert tap.metric("servelens_requests_total", method="OTHER", code="200") == 2


def test_over_the_budget_exchanges_are_dropped_and_answered_all_the_same(tmp_path: Path) -> None:
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n" + b"y" * 4000
    recorder = RecorderEnd(tmp_path / "capture.sock")
    with (
        Predictor(answering(body)) as predictor,
        LocalTap(predictor.port, tmp_path, capture_memory=20_000) as tap,
        tap.connect() as client,
    ):
        for _ in range(20):
            client.sendall(GET)
            assert read_exactly(client, len(body)) == body
        until(lambda: tap.counts().open == 0, "all settled")
        counts = tap.counts()
        assert (counts.offered, counts.handed, counts.reasons["over_budget"]) == (20, 4, 16)
        assert 16_000 < tap.metric("servelens_logger_capture_bytes") <= 20_000
        with recorder:
            until(lambda: recorder.count == 4, "what fitted is committed")
            client.sendall(GET)
            assert read_exactly(client, len(body)) == body
            until(lambda: recorder.count == 5, "there is room again")
            until(lambda: tap.metric("servelens_logger_capture_bytes") == 0, "all memory given back")


def test_without_a_capture_socket_exchanges_are_only_measured(tmp_path: Path) -> None:
    with Predictor(answering()) as predictor, LocalTap(predictor.port) as tap, tap.connect() as client:
        for _ in range(5):
            client.sendall(GET)
            assert read_exactly(client, len(OK)) == OK
        until(lambda: tap.metric("servelens_requests_total", method="GET", code="200") == 5, "five measured")
        assert tap.tap.account is None


def test_whatever_is_sent_every_exchange_offered_is_accounted_for(tmp_path: Path, recorder: RecorderEnd) -> None:
    random = Random(5)

    def script(connection: socket.socket, number: int) -> None:
        chance = Random(number)
        try:
            while data := connection.recv(1 << 16):
                choice = chance.choice(("answer", "answer", "close", "reset", "garbage", "half"))
                if choice == "close":
                    break
                if choice == "reset":
                    reset(connection)
                    break
                connection.sendall({"garbage": data, "half": OK[:-1]}.get(choice, OK))
        except ConnectionError:
            pass

    with Predictor(script) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        for _ in range(200):
            with tap.connect() as client:
                client.settimeout(0.02)
                try:
                    for turn in conversation(random, 3, largest=50):
                        client.sendall(turn.request[: random.choice((None, None, len(turn.request) // 2))])
                        client.recv(1 << 16)
                except OSError:
                    pass
                if random.random() < 0.3:
                    reset(client)
        until(lambda: not tap.tap._shared.clients, "all connections gone")
        counts = tap.counts()
        assert counts.offered > 100
        assert counts.open == 0
        assert counts.reasons["unparsable"] > 0
        until(lambda: recorder.count == counts.handed, "what was handed over is committed")
        assert tap.metric("servelens_requests_in_flight") == 0
        until(lambda: tap.metric("servelens_logger_capture_bytes") == 0, "all memory given back")
        assert tap.registry.get_sample_value("servelens_task_errors_total", {"task": "observer"}) is None


# Life and death of the process.


def test_sigterm_lets_the_open_exchange_finish_and_every_frame_be_committed(
    tmp_path: Path, recorder: RecorderEnd
) -> None:
    go = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        read_head(connection)
        if number == 2:
            go.wait(10)
        connection.sendall(OK)
        assert connection.recv(1) == b""

    with Predictor(script) as predictor, tap_process(predictor.port, tmp_path) as (tap, port):
        idle, busy = (socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2))
        idle.sendall(GET)
        assert read_exactly(idle, len(OK)) == OK
        busy.sendall(GET)
        until(lambda: tap.account()[0].offered == 2, "both begun")
        tap.process.terminate()
        assert read_all(idle) == b""
        assert tap.process.poll() is None
        go.set()
        assert read_all(busy) == OK
        assert tap.process.wait(10) == 0
        counts, alive = tap.account()
        assert (counts.offered, counts.handed, counts.open, alive) == (2, 2, 0, False)
        assert recorder.count == 2
        idle.close()
        busy.close()


def test_the_drain_time_bounds_exchanges_and_recorder_alike(tmp_path: Path) -> None:
    never = threading.Event()

    def script(connection: socket.socket, _: int) -> None:
        read_head(connection)
        never.wait(4)

    with Predictor(script) as predictor, tap_process(predictor.port, tmp_path, "--drain-seconds", "1") as (tap, port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(GET)
            until(lambda: tap.account()[0].offered == 1, "one begun")
            started = time.monotonic()
            tap.process.terminate()
            assert tap.process.wait(10) == 0
            assert 0.8 < time.monotonic() - started < 3
            counts, alive = tap.account()
            assert (counts.offered, counts.handed, counts.open, alive) == (1, 1, 0, False)
        never.set()


def test_it_ends_with_its_parent(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, tap_process(predictor.port, tmp_path) as (tap, _):
        tap.account()
        assert tap.process.stdin is not None
        tap.process.stdin.close()
        assert tap.process.wait(10) == 0


def test_a_killed_tap_leaves_its_account_and_the_next_one_its_port(tmp_path: Path, recorder: RecorderEnd) -> None:
    def script(connection: socket.socket, _: int) -> None:
        while head := read_head(connection):
            if b"/open" in head:
                assert ends(connection)
                return
            connection.sendall(OK)

    with Predictor(script) as predictor, tap_process(predictor.port, tmp_path) as (tap, port):
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
        for client in clients:
            for _ in range(5):
                client.sendall(GET)
                assert read_exactly(client, len(OK)) == OK
            client.sendall(GET.replace(b"/v2/health", b"/open"))
        until(lambda: recorder.count == 15, "what was complete is committed")
        until(lambda: tap.account()[0].offered == 18, "three open")
        os.kill(tap.process.pid, signal.SIGKILL)
        tap.process.wait()
        counts, alive = tap.account()
        assert (counts.offered, counts.handed, counts.open, alive) == (18, 15, 3, False)
        for client in clients:
            assert ends(client)
            client.close()


def test_new_connections_wait_for_the_next_tap_on_the_parents_socket(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, socket.create_server(("127.0.0.1", 0)) as listener:
        first = TapProcess(listener, predictor.port, tmp_path)
        first.account()
        first.process.kill()
        first.process.wait()
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            client.sendall(GET)
            second = TapProcess(listener, predictor.port, tmp_path)
            assert read_exactly(client, len(OK)) == OK
            second.process.terminate()
            assert second.process.wait(10) == 0
        for tap in (first, second):
            assert tap.process.stdin is not None
            tap.process.stdin.close()


def test_no_exchange_is_lost_or_recorded_twice_while_the_recorder_dies_again_and_again(tmp_path: Path) -> None:
    recorder, total = RecorderEnd(tmp_path / "capture.sock"), 600
    done = threading.Event()

    def die() -> None:
        chance = Random(3)
        while not done.is_set():
            recorder.committing = chance.random() < 0.7
            recorder.start()
            time.sleep(chance.random() * 0.15)
            recorder.kill()

    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap, tap.connect() as client:
        killer = threading.Thread(target=die)
        killer.start()
        for number in range(total):
            client.sendall(GET.replace(b"\r\n\r\n", b"\r\nx-request-id: %d\r\n\r\n" % number))
            assert read_exactly(client, len(OK)) == OK
            time.sleep(0.001)
        done.set()
        killer.join()
        recorder.committing = True
        with recorder:
            until(lambda: recorder.count == total, "all exchanges committed")
            assert [exchange.requestid for exchange in recorder.exchanges] == [str(number) for number in range(total)]


# Settings.


def test_a_setting_that_is_wrong_exits_with_2_and_says_which(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flags = [
            "--listen-fd",
            str(listener.fileno()),
            "--upstream",
            "h:1",
            "--namespace",
            "n",
            "--inference-service",
            "i",
        ]
        assert main([*flags, "--body-cap", str(1 << 40)]) == 2
        assert main([*flags, "--capture-socket", str(tmp_path / "s")]) == 2
        missing = str(tmp_path / "none")
        flags[1] = str(os.dup(listener.fileno()))
        assert main([*flags, "--synthetic-key", missing]) == 2
    lines = [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["message"].partition(":")[0] for line in lines] == ["--body-cap", "--accounts", "--synthetic-key"]
    assert {line["process"] for line in lines} == {"tap"}


def test_the_defaults_are_the_documented_ones() -> None:
    settings = TapSettings(Upstream("h", 1), "n", "i")
    assert (settings.capture_memory, settings.body_cap, settings.on_unparsable) == (32 << 20, 1 << 20, "blind")
    assert (settings.connect_timeout, settings.drain_seconds, settings.component) == (5.0, 10.0, "predictor")
    with pytest.raises(ConfigError):
        TapSettings(Upstream("h", 1), "n", "i", body_cap=-1)


def test_every_connection_is_counted_once_as_read_back(tmp_path: Path, recorder: RecorderEnd) -> None:
    with Predictor(answering()) as predictor, LocalTap(predictor.port, tmp_path) as tap:
        with tap.connect() as client:
            client.sendall(GET)
            assert read_exactly(client, len(OK)) == OK
        tap.stop()
        counts, alive = read_account(tmp_path / "taps" / f"{tap.tap.stream}.account")
    assert (counts.offered, counts.handed, alive) == (1, 1, False)
    assert Counter(exchange.method for exchange in recorder.exchanges) == {"GET": 1}

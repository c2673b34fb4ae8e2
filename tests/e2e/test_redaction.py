"""Secrets planted in every place a rule can name are found nowhere: spool, Kafka, logs, metrics, traces."""

import gzip
import json
import socket
import struct
from pathlib import Path

import pytest
from otlp_receiver import receiving
from tap_parts import Predictor, read_all, until
from whole_logger import WholeLogger, whole_logger

from servelens.contract.topics import Topics
from servelens.io.embedded import EmbeddedBroker, free_port
from servelens.io.kafka import read_all as read_topic
from servelens.io.kafka_settings import KafkaSettings

SECRET = "plantedsecret"  # noqa: S105  it is what must not be found
OPEN = "openvalue"
RULES = """
version: 1
redact:
  - {json: "$.instances[*].person.card", action: mask}
  - {column: ssn, action: hmac}
  - {column: b, columns: [a, b], action: mask}
  - {header: x-request-id, action: hmac}
  - {header: content-type, action: mask}
"""
V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"


def binary() -> tuple[bytes, int]:
    pieces = [
        b"".join(struct.pack("<I", len(v)) + v for v in (SECRET.encode(), b"x" + SECRET.encode())),
        b"".join(struct.pack("<I", len(v)) + v for v in (OPEN.encode(), SECRET.encode())),
    ]
    heads = [
        {"name": name, "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(piece)}}
        for name, shape, piece in zip(("ssn", "packed"), ([2], [1, 2]), pieces, strict=True)
    ]
    head = json.dumps({"inputs": heads, "id": OPEN}).encode()
    return head + b"".join(pieces), len(head)


def requests() -> list[tuple[str, dict[str, str], bytes]]:
    v1 = json.dumps({"instances": [{"person": {"card": SECRET}, "ssn": SECRET, "open": OPEN}]}).encode()
    tensor = {"name": "ssn", "datatype": "BYTES", "shape": [1], "data": [SECRET]}
    v2 = json.dumps({"inputs": [tensor], "parameters": {"ssn": SECRET, "open": OPEN}}).encode()
    data, length = binary()
    octets = {"content-type": "application/octet-stream", "inference-header-content-length": str(length)}
    return [
        (V1, {"content-type": "application/json"}, v1),
        (V1, {"content-type": "application/json", "content-encoding": "gzip"}, gzip.compress(v1)),
        (V2, {"content-type": "application/json"}, v2),
        (V2, octets, data),
        (V1, {"content-type": f"application/json; p={SECRET}", "x-request-id": SECRET}, v1),
        (V1 + f"?q={SECRET}", {"authorization": f"Bearer {SECRET}", "cookie": SECRET}, b'{"instances": [' + v1),
        ("/fails", {"content-type": "application/json"}, v1),
    ]


def serve(connection: socket.socket, _: int) -> None:
    """Answers with what the predictions would be, or with an error that repeats the request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(1 << 16)
    bad = head.startswith(b"POST /fails")
    answer = json.dumps({"error": f"cannot read {body!r}"} if bad else {"predictions": [{"ssn": SECRET, "y": OPEN}]})
    status = b"400 Bad Request" if bad else b"200 OK"
    connection.sendall(
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(answer), answer.encode())
    )


def ask(port: int, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
        return read_all(client)


def found_in(folder: Path, word: str) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if word.encode() in path.read_bytes()]


@pytest.fixture
def flags(tmp_path: Path, prefix: str) -> list[str]:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "key").write_text("0123456789abcdef0123")
    return [
        "--listen", "127.0.0.1:0",
        "--admin", "127.0.0.1:0",
        "--spool", str(tmp_path / "spool"),
        "--topic-prefix", prefix,
        "--inference-service", "income",
        "--namespace", "ns",
        "--rules", str(tmp_path / "rules.yaml"),
        "--redaction-key", str(tmp_path / "key"),
    ]  # fmt: skip


def test_planted_secrets_are_found_nowhere(tmp_path: Path, prefix: str, flags: list[str]) -> None:
    port = free_port()
    sent = requests()

    def quiet(logger: WholeLogger) -> bool:
        return SECRET not in logger.get("/metrics").text + logger.get("/spool").text

    with Predictor(serve) as predictor, receiving() as collector:
        given = [*flags, "--upstream", f"127.0.0.1:{predictor.port}", "--kafka", f"127.0.0.1:{port}"]
        given += ["--otlp", collector.endpoint, "--trace-ratio", "1", "--add-request-id"]
        with whole_logger(tmp_path, *given) as logger:
            logger.wait_ready()
            for path, headers, body in sent:
                assert (SECRET if path != "/fails" else "error").encode() in ask(logger.port, path, headers, body)
            until(lambda: logger.account()["waiting"] == len(sent) and found_in(tmp_path / "spool", OPEN), "spooled")
            assert found_in(tmp_path, SECRET) == []
            assert quiet(logger)
            with EmbeddedBroker("127.0.0.1", port):
                logger.wait_shipped(len(sent))
                settings = KafkaSettings(f"127.0.0.1:{port}")
                records = [r for p in range(4) for r in read_topic(settings, Topics(prefix).payloads, p)]
            assert quiet(logger)
            spans = collector.wait_spans(len(sent) + 1)
            text = logger.get("/metrics").text
    assert found_in(tmp_path, SECRET) == []
    assert not any(SECRET.encode() in post.raw + repr(post.headers).encode() for post in collector.posts)
    assert sum(span.kind == span.SPAN_KIND_SERVER for span in spans) == len(sent)
    raw = [b"|".join([r.key, r.value or b"", *(h[0].encode() + h[1] for h in r.headers)]) for r in records]
    assert not any(SECRET.encode() in one for one in raw)
    exchanges = [one for one in raw if b"/exchange" in one]
    assert len(exchanges) == len(sent)
    assert all(OPEN.encode() in one for one in exchanges)  # what no rule names is there
    assert all(b"hmac:" in one for one in exchanges)
    assert 'servelens_logger_withheld_total{component="predictor"' in text
    withheld = [line for line in text.splitlines() if "withheld_total{" in line]
    assert {line.partition('reason="')[2].partition('"')[0] for line in withheld} == {"error_body", "truncated"}


def test_the_kill_switch_is_a_line_in_the_file(tmp_path: Path, flags: list[str]) -> None:
    with (
        Predictor(serve) as predictor,
        whole_logger(tmp_path, *flags, "--upstream", f"127.0.0.1:{predictor.port}", "--kafka", "127.0.0.1:9") as logger,
    ):
        logger.wait_ready()
        (tmp_path / "rules.yaml").write_text("version: 1\nlog: false\n")

        def off() -> bool:
            ask(logger.port, *requests()[0])
            return bool(logger.account()["reasons"]["not_logged"])

        until(off, "the switch")
        before = logger.account()
        for _ in range(5):
            ask(logger.port, *requests()[0])
        until(lambda: logger.account()["reasons"]["not_logged"] >= before["reasons"]["not_logged"] + 5, "all off")
        assert logger.account()["adds_up"]

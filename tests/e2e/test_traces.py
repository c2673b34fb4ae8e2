"""One request is one trace at a real collector: the client's span, the exchange's, and the sending to Kafka."""

import socket
from pathlib import Path

from otlp_receiver import attributes, receiving
from tap_parts import Predictor, read_all, read_head
from whole_logger import flags, whole_logger

from servelens.contract import records
from servelens.contract.events import Exchange
from servelens.contract.topics import Topics
from servelens.io.kafka import read_all as read_topic
from servelens.io.kafka_settings import KafkaSettings

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_one_request_is_one_trace(tmp_path: Path, prefix: str, kafka: KafkaSettings) -> None:
    heads: list[bytes] = []

    def serve(connection: socket.socket, _: int) -> None:
        if not connection.recv(1, socket.MSG_PEEK):  # the readiness probe
            return
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")

    with receiving() as collector, Predictor(serve) as predictor:
        given = flags(tmp_path, f"127.0.0.1:{predictor.port}", kafka.bootstrap, prefix)
        given += ["--otlp", collector.endpoint, "--trace-ratio", "1", "--add-request-id"]
        with whole_logger(tmp_path, *given) as logger:
            logger.wait_ready()
            for extra in (f"traceparent: {CLIENT}\r\n", ""):
                with socket.create_connection(("127.0.0.1", logger.port), timeout=20) as client:
                    client.sendall(f"GET /v1/models/m:predict HTTP/1.1\r\nhost: h\r\n{extra}\r\n".encode())
                    assert read_all(client).endswith(b"{}")
            logger.wait_shipped(2)
            servers = [span for span in collector.wait_spans(3) if span.kind == span.SPAN_KIND_SERVER]
            text = logger.get("/metrics").text
        spans = collector.spans
    linked = {link.span_id for span in spans if span.kind == span.SPAN_KIND_PRODUCER for link in span.links}
    assert linked == {span.span_id for span in servers}
    told = {span.trace_id.hex(): span for span in servers}
    asked = told.pop(CLIENT[3:35])
    assert asked.parent_span_id.hex() == CLIENT[36:52]
    # The other had none: the tap began its trace, and the predictor was told so.
    ((own, begun),) = told.items()
    (inserted,) = [head for head in heads if CLIENT.encode() not in head]
    assert f"00-{own}-{begun.span_id.hex()}-0".encode() in inserted.lower()
    assert attributes(begun)["http.route"] == "/v1/models/{model}:predict"
    events = [
        event
        for partition in range(4)
        for row in read_topic(kafka, Topics(prefix).payloads, partition)
        if isinstance(event := records.decode(row.headers, row.value), Exchange)
    ]
    assert {event.traceparent[3:52] for event in events} == {
        f"{span.trace_id.hex()}-{span.span_id.hex()}" for span in servers
    }
    assert (
        'servelens_spans_total{component="predictor",inferenceservice="income",namespace="ns",result="exported"' in text
    )

"""`servelens bridge` from posts to Kafka, as KServe's agent, Knative and a labelling job would use it, and killed."""

import threading
import time
from pathlib import Path
from random import Random

import httpx
import orjson
import pytest
from tap_parts import until
from whole_logger import WholeLogger, whole_logger

from servelens.contract import labels, records
from servelens.contract.events import Exchange
from servelens.contract.topics import Topics
from servelens.io.embedded import free_port
from servelens.io.kafka import read_all
from servelens.io.kafka_settings import KafkaSettings

# As KServe's agent posts them: the headers of its pkg/logger/worker.go, in full.
EVENT = {
    "ce-specversion": "1.0",
    "ce-source": "http://localhost:9081/",
    "ce-time": "2026-08-21T00:23:26.070123456Z",
    "ce-recordedtime": "2026-08-21T00:23:26.09Z",
    "ce-inferenceservicename": "sklearn-iris",
    "ce-namespace": "default",
    "ce-component": "predictor",
    "ce-endpoint": "",
    "ce-metadata": "{}",
    "content-type": "application/json",
}
REQUEST, RESPONSE = (f"org.kubeflow.serving.inference.{side}" for side in ("request", "response"))


def flags(folder: Path, kafka: KafkaSettings, prefix: str, listen: int = 0) -> list[str]:
    return [
        "--listen", f"127.0.0.1:{listen}", "--admin", "127.0.0.1:0", "--spool", str(folder / "spool"),
        "--kafka", kafka.bootstrap, "--topic-prefix", prefix,
    ]  # fmt: skip


def url(bridge: WholeLogger) -> str:
    return f"http://{bridge.addresses['listening']}"


def exchanges(kafka: KafkaSettings, prefix: str) -> list[Exchange]:
    rows = [row for partition in range(4) for row in read_all(kafka, Topics(prefix).payloads, partition)]
    return [event for row in rows if isinstance(event := records.decode(row.headers, row.value), Exchange)]


def test_events_in_every_form_and_labels_reach_kafka(any_kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    with (
        whole_logger(tmp_path, *flags(tmp_path, any_kafka, prefix), service="bridge") as bridge,
        httpx.Client(base_url=url(bridge)) as client,
    ):
        for kind, body in ((REQUEST, b'{"instances":[[1,2]]}'), (RESPONSE, b'{"predictions":[0]}')):
            assert client.post("/", content=body, headers=EVENT | {"ce-type": kind, "ce-id": "b-1"}).status_code == 202
        event = {name.removeprefix("ce-"): value for name, value in EVENT.items() if name.startswith("ce-")}
        event |= {"type": REQUEST, "id": "s-1", "datacontenttype": "application/json", "data": {"instances": [[3]]}}
        form = "application/cloudevents{}+json".format
        sent = client.post("/team/token", content=orjson.dumps(event), headers={"content-type": form("")})
        assert sent.status_code == 202
        batch = [event | {"id": f"m-{number}"} for number in range(7)] + [event | {"type": "unknown"}]
        sent = client.post("/", content=orjson.dumps(batch), headers={"content-type": form("-batch")})
        assert (sent.status_code, sent.json()["accepted"]) == (202, 7)
        label = {"namespace": "default", "inferenceservice": "sklearn-iris", "requestid": "b-1", "value": 1}
        assert client.post("/labels", json=label).status_code == 202
        account = bridge.wait_shipped(12)
        assert (account["offered"], account["waiting"], account["adds_up"]) == (12, 0, True)
        text = bridge.get("/metrics").text
    found = exchanges(any_kafka, prefix)
    assert sorted(one.requestid for one in found) == ["b-1", "b-1", *(f"m-{number}" for number in range(7)), "s-1"]
    request, response = sorted(
        (one for one in found if one.requestid == "b-1"), key=lambda one: one.response is not None
    )
    assert request.exchangeid == response.exchangeid
    assert request.request is not None
    assert response.response is not None
    assert (request.request.body, response.response.body) == (b'{"instances":[[1,2]]}', b'{"predictions":[0]}')
    topics = Topics(prefix)
    told = [labels.decode(row.headers, row.value) for p in range(4) for row in read_all(any_kafka, topics.labels, p)]
    assert [(one.join_key, one.values) for one in told] == [("default/sklearn-iris/r:b-1", (1,))]
    letters = [row for p in range(4) for row in read_all(any_kafka, topics.dead_letters("bridge"), p)]
    assert [dict(row.headers)["servelens_reason"] for row in letters] == [b"unknown_type"]
    assert 'servelens_bridge_events_total{type="event"} 10.0' in text
    assert 'servelens_logger_shipped_total{component="bridge",inferenceservice="",namespace=""} 12.0' in text


class Poster(threading.Thread):
    """Posts events one after another, each again until it is answered; `answered` are those with 202."""

    def __init__(self, port: int, name: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._prefix, self._stop_posting = port, name, stop
        self.answered: list[str] = []
        self.failures = 0

    def run(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=5) as client:
            number = 0
            while not self._stop_posting.is_set():
                name = f"{self._prefix}-{number}"
                try:
                    headers = EVENT | {"ce-type": REQUEST, "ce-id": name}
                    sent = client.post("/", content=b'{"instances":[[1]]}', headers=headers)
                except httpx.HTTPError:
                    self.failures += 1
                    time.sleep(0.02)
                    continue
                if sent.status_code == 202:
                    self.answered.append(name)
                    number += 1


def test_killed_at_any_moment_it_loses_nothing_it_has_answered(
    any_kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    port, stop, random = free_port(), threading.Event(), Random(4)
    posters = [Poster(port, f"p{number}", stop) for number in range(4)]
    given = flags(tmp_path, any_kafka, prefix, port)
    for life in range(5):
        with whole_logger(tmp_path, *given, stop=False, service="bridge"):
            if life == 0:
                for poster in posters:
                    poster.start()
            time.sleep(random.uniform(0.1, 1.2))
    with whole_logger(tmp_path, *given, service="bridge") as bridge:
        time.sleep(0.3)
        stop.set()
        for poster in posters:
            poster.join(20)
        bridge.wait_shipped(sum(len(poster.answered) for poster in posters))
        until(lambda: bridge.account()["waiting"] == 0, "nothing waits", 30)  # some were posted twice
        account = bridge.account()
        assert (account["offered"], account["adds_up"]) == (account["shipped"], True)
    answered = {name for poster in posters for name in poster.answered}
    assert len(answered) > 100
    assert sum(poster.failures for poster in posters) > 4
    found = exchanges(any_kafka, prefix)
    assert answered <= {one.requestid for one in found}
    # What comes again is known by its row number, as everywhere.
    last: dict[tuple[str, int], str] = {}
    for one in found:
        assert last.setdefault((one.tapid, one.seq), one.requestid) == one.requestid


@pytest.mark.parametrize("wrong", [["--spool-policy", "keep"], ["--tokens", "nowhere.yaml"], ["--listen", "nowhere"]])
def test_a_wrong_setting_is_told_in_a_line(tmp_path: Path, wrong: list[str]) -> None:
    given = flags(tmp_path, KafkaSettings("127.0.0.1:9"), "p")
    with pytest.raises(AssertionError, match=wrong[0]), whole_logger(tmp_path, *given, *wrong, service="bridge"):
        pass

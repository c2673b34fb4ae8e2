"""The bridge's HTTP side on a real server, a real spool behind it and no Kafka: what is answered, and what is kept."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from tap_parts import until

from logger.backlog import Backlog
from logger.inbox import Inbox
from logger.reception import Bounds, Reception
from logger.rules import NO_RULES, Rules
from logger.segment import unpack_headers
from logger.spool import Spool
from logger.tenants import parse
from servelens.contract import labels, records
from servelens.contract.events import Exchange
from servelens.contract.metrics import Instruments

TOKEN = "a-token-of-the-shop"  # noqa: S105
TENANTS = parse(f"version: 1\ntenants:\n  shop: {{tokens: [{TOKEN}], namespaces: [shop]}}")
AGENT = {
    "ce-specversion": "1.0",
    "ce-id": "0009174a-24a8-4603-b098-09c8799950e9",
    "ce-source": "http://localhost:9081/",
    "ce-time": "2026-08-21T00:23:26.07Z",
    "ce-recordedtime": "2026-08-21T00:23:26.09Z",
    "ce-inferenceservicename": "risk",
    "ce-namespace": "shop",
    "ce-component": "predictor",
    "ce-endpoint": "",
    "ce-metadata": '{"X-Request-Id":["abc"]}',
    "ce-annotations": '{"team":"risk"}',
    "content-type": "application/json",
}
ASKED = AGENT | {"ce-type": "org.kubeflow.serving.inference.request"}
BODY = b'{"instances":[[6.8,2.8,4.8,1.4]]}'


class Desk:
    """A reception that is served."""

    def __init__(self, folder: Path, tenants: Any, rules: Rules, bounds: Bounds, spool_bytes: int) -> None:
        self.registry, self.folder = CollectorRegistry(), folder
        self.withheld: list[str] = []
        self.inbox = Inbox(Spool(folder, spool_bytes), lambda: rules, self.withheld.append, self.withheld.append)
        reception = Reception(self.inbox, tenants and (lambda: tenants), Instruments(self.registry), bounds)
        config = uvicorn.Config(reception, log_config=None, access_log=False, lifespan="off")
        self._server, self._bound = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
        self.port: int = self._bound.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        tidying = asyncio.get_running_loop().create_task(self.inbox.tidy())
        await self._server.serve(sockets=[self._bound])
        tidying.cancel()

    def __enter__(self) -> "Desk":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(10)
        self.inbox.close()
        self._bound.close()

    def post(self, path: str = "/", body: bytes = BODY, headers: dict[str, str] | None = None, **more: Any) -> Any:
        return self.client.post(path, content=body, headers=ASKED if headers is None else headers, **more)

    def kept(self) -> list[tuple[str, dict[str, bytes], bytes]]:
        backlog, place, found = Backlog(self.folder), (0, 0), []
        while entries := backlog.read(place, 1000, 1 << 30):
            found += [(e.row.topic, dict(unpack_headers(e.row.headers)), e.row.value) for e in entries]
            place = entries[-1].position
        backlog.close()
        return found

    def exchanges(self) -> list[Exchange]:
        read = [records.decode(list(headers.items()), value) for topic, headers, value in self.kept() if not topic]
        return [one for one in read if isinstance(one, Exchange)]

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def desk(tmp_path: Path, options: dict[str, Any]) -> Iterator[Desk]:
    given = {"tenants": None, "rules": NO_RULES, "bounds": Bounds(), "spool_bytes": 64 << 20} | options
    with Desk(tmp_path / "spool", **given) as desk:
        yield desk


def test_an_event_of_kserves_agent_is_an_exchange_once_it_is_answered(desk: Desk) -> None:
    answer = desk.post()
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    told = AGENT | {"ce-type": "org.kubeflow.serving.inference.response"}
    assert desk.post(body=b'{"predictions":[1]}', headers=told).status_code == 202
    first, second = desk.exchanges()
    assert first.exchangeid == second.exchangeid
    assert (first.requestid, second.requestid) == ("abc", "abc")
    assert (first.request and first.request.body, second.response and second.response.body) == (
        BODY,
        b'{"predictions":[1]}',
    )
    assert [(one.tapid, one.seq) for one in (first, second)] == [(first.tapid, 1), (first.tapid, 2)]
    assert desk.count("servelens_bridge_events_total", type="event") == 2


def test_without_an_id_of_the_client_the_events_own_is_what_labels_can_name(desk: Desk) -> None:
    desk.post(headers=ASKED | {"ce-metadata": "{}"})
    assert desk.exchanges()[0].requestid == AGENT["ce-id"]


def structured(**more: Any) -> dict[str, Any]:
    event = {name.removeprefix("ce-"): value for name, value in ASKED.items() if name.startswith("ce-")}
    return event | {"datacontenttype": "application/json", "data": {"instances": [[1]]}} | more


def test_structured_and_batch(desk: Desk) -> None:
    one = {"content-type": "application/cloudevents+json"}
    assert desk.post(body=orjson.dumps(structured()), headers=one).json() == {"accepted": 1}
    many = [structured(id=str(number)) for number in range(5)]
    batch = {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}
    assert desk.post(body=orjson.dumps(many), headers=batch).json() == {"accepted": 5}
    assert len({one.exchangeid for one in desk.exchanges()}) == 6
    assert {one.request and one.request.body for one in desk.exchanges()} == {b'{"instances":[[1]]}'}


def test_what_of_a_batch_cannot_be_read_is_a_dead_letter_and_the_rest_is_kept(desk: Desk) -> None:
    batch = {"content-type": "application/cloudevents-batch+json"}
    answer = desk.post(body=orjson.dumps([structured(), structured(time="now"), 7]), headers=batch)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert [one["index"] for one in answer.json()["rejected"]] == [1, 2]
    letters = [(headers["servelens_reason"], value) for topic, headers, value in desk.kept() if topic == "dead-letters"]
    assert letters == [(b"bad_time", orjson.dumps(structured(time="now"))), (b"no_cloudevent", b"7")]
    assert desk.count("servelens_bridge_dead_letters_total", reason="bad_time") == 1
    account = desk.inbox._spool.state
    assert (account.offered, account.spooled) == (3, 3)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({}, BODY, "no_cloudevent"),
        (ASKED | {"ce-type": "com.example.other"}, BODY, "unknown_type"),
        (ASKED | {"ce-id": ""}, BODY, "bad_attribute"),
        ({"content-type": "application/cloudevents+json"}, b"{", "malformed"),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", "malformed"),
        (ASKED | {"ce-path": "/" + "x" * 40_000}, BODY, "too_large"),
    ],
)
def test_an_event_that_cannot_be_read_is_refused_and_kept_with_its_reason(
    desk: Desk, headers: dict[str, str], body: bytes, reason: str
) -> None:
    answer = desk.post(headers=headers, body=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    ((topic, found, value),) = desk.kept()
    assert (topic, found["servelens_reason"].decode()) == ("dead-letters", reason)
    assert value == body


def test_a_dead_letter_is_no_longer_than_kafka_takes_it(desk: Desk) -> None:
    assert desk.post(headers={}, body=b"x" * (2 << 20)).status_code == 400
    ((_, headers, value),) = desk.kept()
    assert headers["servelens_truncated"] == b"true"
    assert (1 << 19) < len(value) < (1 << 20) - (1 << 16)


def test_labels(desk: Desk) -> None:
    label = {"namespace": "shop", "inferenceservice": "risk", "requestid": "abc", "value": "good"}
    assert desk.post("/labels", orjson.dumps([label, label | {"value": "bad"}])).json() == {"accepted": 2}
    (topic, headers, value), _ = desk.kept()
    assert topic == "labels"
    read = labels.decode(list(headers.items()), value)
    assert (read.join_key, read.values) == ("shop/risk/r:abc", ("good",))
    assert desk.count("servelens_bridge_events_total", type="label") == 2
    wrong = desk.post("/labels", orjson.dumps([label, {}]))
    assert (wrong.status_code, wrong.json()["error"]) == (400, "[1].exchangeid: give either this or requestid")
    assert len(desk.kept()) == 2
    assert desk.count("servelens_bridge_rejected_total", reason="malformed") == 1


@pytest.mark.parametrize("options", [{"tenants": TENANTS}])
def test_who_shows_a_token_may_send_for_its_namespaces(desk: Desk) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    label = orjson.dumps({"namespace": "shop", "inferenceservice": "risk", "requestid": "abc", "value": 1})
    for path, headers in ((f"/shop/{TOKEN}", {}), ("/", bearer)):
        assert desk.post(path, headers=ASKED | headers).status_code == 202
    for path, headers in ((f"/shop/{TOKEN}/labels", {}), ("/labels", bearer)):
        assert desk.post(path, label, headers=headers).status_code == 202
    kept = len(desk.kept())
    refusals = [
        desk.post(f"/shop/{TOKEN[:-1]}"),
        desk.post(f"/other/{TOKEN}"),
        desk.post("/", headers=ASKED | {"authorization": f"Basic {TOKEN}"}),
        desk.post("/labels", label, headers={}),
        desk.post(f"/shop/{TOKEN}", headers=ASKED | {"ce-namespace": "other"}),
        desk.post(f"/shop/{TOKEN}/labels", label.replace(b"shop", b"other"), headers={}),
    ]
    assert [answer.status_code for answer in refusals] == [401, 401, 401, 401, 403, 403]
    assert refusals[0].headers["www-authenticate"] == "Bearer"
    assert not any(TOKEN[:-1] in answer.text for answer in refusals)
    assert len(desk.kept()) == kept == 4


def test_other_paths_and_methods(desk: Desk) -> None:
    assert [desk.post(path).status_code for path in ("/a", "/a/b/c", "/a/b/labels/d")] == [404, 404, 404]
    answer = desk.client.get("/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("options", [{"bounds": Bounds(body=1000, pending=1500, seconds=0.4)}])
def test_too_much_and_too_slow_are_told_apart(desk: Desk) -> None:
    large = desk.post(body=b"x" * 1001)
    assert (large.status_code, large.headers["connection"]) == (413, "close")
    assert desk.post(body=iter([b"x" * 600, b"x" * 600])).status_code == 413  # type: ignore[arg-type]
    slow = socket.create_connection(("127.0.0.1", desk.port))
    slow.sendall(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 900\r\n\r\n")
    answers: list[Any] = []
    until(lambda: answers.append(desk.post(body=b"x" * 900)) or answers[-1].status_code == 429, "too many")  # type: ignore[func-returns-value]
    busy = answers[-1]
    assert busy.headers["retry-after"] == "1"
    slow.settimeout(5)
    assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
    slow.close()
    assert desk.post().status_code == 202
    assert desk.count("servelens_bridge_rejected_total", reason="over_budget") == 1


@pytest.mark.parametrize("options", [{"spool_bytes": 1 << 20}])
def test_a_full_spool_is_told_and_counted(desk: Desk) -> None:
    statuses = [desk.post(body=b"x" * 50_000) for _ in range(40)]
    kept = sum(answer.status_code == 202 for answer in statuses)
    assert {answer.status_code for answer in statuses} == {202, 503}
    assert statuses[-1].headers["retry-after"] == "1"
    assert len(desk.kept()) == kept
    state = desk.inbox._spool.state
    assert (state.offered, dict(state.reasons)) == (40, {"spool_full": 40 - kept})
    assert desk.inbox.trouble is None  # full, and fit to say so


RULES = Rules.parse(
    """
version: 1
redact:
  - {json: "$.instances[*][0]", side: request, action: mask}
  - {header: x-request-id, action: hmac}
""",
    b"0123456789abcdef",
)


@pytest.mark.parametrize("options", [{"rules": RULES}])
def test_rules_hide_here_as_they_do_behind_the_tap(desk: Desk) -> None:
    secret = b'{"instances":[["hunter2",2.8]]}'
    desk.post(body=secret, headers=ASKED | {"ce-metadata": '{"X-Request-Id":["hunter2"]}'})
    desk.post(body=secret, headers=ASKED | {"ce-type": "hunter2"})
    desk.post(body=b"hunter2", headers={"content-type": "application/cloudevents+json"})
    kept = desk.kept()
    assert [topic for topic, _, _ in kept] == ["", "dead-letters", "dead-letters"]
    assert b"hunter2" not in repr(kept).encode()
    assert kept[1][1]["servelens_withheld"] == b"true"
    assert b"2.8" in kept[0][2]
    for path in (desk.folder).iterdir():
        assert b"hunter2" not in path.read_bytes(), path


@pytest.mark.parametrize("options", [{"rules": RULES}])
def test_a_label_goes_by_the_id_its_prediction_goes_by(desk: Desk) -> None:
    label = orjson.dumps({"namespace": "shop", "inferenceservice": "risk", "requestid": "hunter2", "value": 1})
    assert desk.post(headers=ASKED | {"ce-metadata": '{"X-Request-Id":["hunter2"]}'}).status_code == 202
    assert desk.post("/labels", label).status_code == 202
    topic, headers, value = desk.kept()[1]
    assert topic == "labels"
    assert labels.decode(list(headers.items()), value).requestid == desk.exchanges()[0].requestid
    assert b"hunter2" not in repr(desk.kept()).encode()


@pytest.mark.parametrize(
    "options", [{"rules": Rules.parse("version: 1\nredact: [{header: x-request-id, action: drop}]")}]
)
def test_a_label_by_an_id_no_prediction_carries_is_refused(desk: Desk) -> None:
    label = {"namespace": "shop", "inferenceservice": "risk", "value": 1}
    refused = desk.post("/labels", orjson.dumps(label | {"requestid": "hunter2"}))
    assert (refused.status_code, "give the exchangeid" in refused.text) == (400, True)
    assert desk.post("/labels", orjson.dumps(label | {"exchangeid": "0198"})).status_code == 202


def test_what_could_not_be_written_is_looked_at_again_though_nobody_posts(desk: Desk) -> None:
    assert desk.post().status_code == 202
    desk.inbox.trouble = "the volume was full"
    until(lambda: desk.inbox.trouble is None, "well again")
    assert len(desk.kept()) == 1


@pytest.mark.parametrize("options", [{"rules": Rules.parse("version: 1\nlog: false")}])
def test_the_kill_switch_keeps_nothing_and_counts_it(desk: Desk) -> None:
    assert desk.post().status_code == 202
    assert desk.post(headers={}).status_code == 400
    assert desk.kept() == []
    assert dict(desk.inbox._spool.state.reasons) == {"not_logged": 2}

from dataclasses import replace

import pytest
from tap_end import exchange

from logger import capture
from logger.intake import MAX_FRAMES, Intake
from logger.segment import Row, unpack_headers
from logger.state import State
from servelens.contract.events import Exchange, LogMode
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import decode

IDENTITY = ModelIdentity("shop", "iris")


def begun(state: State, mode: LogMode = "exchange", record_limit: int = 1 << 20) -> Intake:
    intake = Intake(IDENTITY, mode, record_limit)
    intake.begin(state)
    return intake


def read(row: Row) -> Exchange:
    found = decode(unpack_headers(row.headers), row.value)
    assert isinstance(found, Exchange)
    return found


def test_a_frame_becomes_a_row_that_says_whose_it_is_and_where_it_stands() -> None:
    intake = begun(State(tapid="t", seq=41))
    sent = exchange("/v1/models/iris:predict", requestid="r-1")
    intake.take("tap", 1, capture.encode(sent))
    (row,) = intake.batch.rows
    assert (row.seq, row.exchanges, row.key.decode()) == (42, 1, sent.exchangeid)
    assert row.timestamp_ms == sent.arrived_us // 1000
    found = read(row)
    identity = ModelIdentity("shop", "iris", "predictor", "iris")
    assert replace(found, sources=()) == replace(sent, identity=identity, tapid="t", seq=42)


def test_frames_at_or_below_the_last_committed_are_skipped() -> None:
    intake = begun(State(tapid="t", streams={"tap": 2}))
    for number in (1, 2, 3, 3, 2):
        intake.take("tap", number, capture.encode(exchange()))
    assert len(intake.batch.rows) == 1
    assert intake.batch.frames == {"tap": 3}
    assert intake.batch.missing == 0


def test_a_hole_in_the_numbers_is_counted_as_missing() -> None:
    intake = begun(State(tapid="t", streams={"tap": 2}))
    intake.take("tap", 7, capture.encode(exchange()))
    assert (intake.batch.missing, intake.batch.frames) == (4, {"tap": 7})


def test_streams_number_their_frames_each_for_itself() -> None:
    intake = begun(State(tapid="t"))
    for stream in ("a", "b"):
        intake.take(stream, 1, capture.encode(exchange()))
    assert [row.seq for row in intake.batch.rows] == [1, 2]
    assert intake.batch.frames == {"a": 1, "b": 1}


@pytest.mark.parametrize(("mode", "per_exchange"), [("exchange", 1), ("all", 2), ("request", 1), ("response", 1)])
def test_each_log_mode_marks_the_last_row_of_an_exchange(mode: LogMode, per_exchange: int) -> None:
    intake = begun(State(tapid="t"), mode)
    for number in (1, 2):
        intake.take("tap", number, capture.encode(exchange()))
    assert [row.seq for row in intake.batch.rows] == list(range(1, 2 * per_exchange + 1))
    assert [row.exchanges for row in intake.batch.rows] == ([0] * (per_exchange - 1) + [1]) * 2
    assert [read(row).seq for row in intake.batch.rows] == [row.seq for row in intake.batch.rows]
    assert intake.batch.exchanges == 2


def test_what_is_not_logged_is_counted_and_takes_no_row_number() -> None:
    intake = begun(State(tapid="t"))
    intake.take("tap", 1, capture.encode(exchange("/metrics", method="GET")))
    intake.take("tap", 2, b"\xff\xff\xff\xff not a frame")
    intake.take("tap", 3, capture.encode(exchange()))
    assert intake.batch.reasons == {"filtered": 1, "unparsable": 1}
    assert [row.seq for row in intake.batch.rows] == [1]
    assert intake.batch.frames == {"tap": 3}


def test_a_row_over_the_limit_loses_its_larger_body_first_and_keeps_all_else() -> None:
    intake = begun(State(tapid="t"), record_limit=4096)
    sent = exchange(body=b"x" * 5000)
    intake.take("tap", 1, capture.encode(sent))
    found = read(intake.batch.rows[0])
    assert found.request is not None
    assert found.response is not None
    assert (found.request.body, found.request.truncated, found.request.size) == (b"", True, 5000)
    assert (found.response.body, found.response.truncated) == (b'{"outputs": []}', False)
    assert (found.path, found.status, found.exchangeid) == (sent.path, sent.status, sent.exchangeid)


def test_both_bodies_go_where_each_alone_is_too_large() -> None:
    intake = begun(State(tapid="t"), record_limit=4096)
    large = exchange(body=b"x" * 5000)
    assert large.response is not None
    sent = replace(large, response=replace(large.response, body=b"y" * 6000, size=6000))
    intake.take("tap", 1, capture.encode(sent))
    found = read(intake.batch.rows[0])
    assert found.request is not None
    assert found.response is not None
    assert found.request.body == found.response.body == b""
    assert found.request.truncated
    assert found.response.truncated
    assert (found.request.size, found.response.size) == (5000, 6000)
    assert intake.batch.rows[0].size <= 4096


def test_a_batch_is_full_by_frames_even_if_none_is_logged() -> None:
    intake = begun(State(tapid="t"), "none")
    for number in range(1, MAX_FRAMES + 1):
        assert not intake.full
        intake.take("tap", number, capture.encode(exchange()))
    assert intake.full
    assert intake.batch.reasons == {"not_logged": MAX_FRAMES}


def test_beginning_anew_forgets_what_was_not_committed() -> None:
    intake = begun(State(tapid="t"))
    intake.take("tap", 1, capture.encode(exchange()))
    intake.begin(State(tapid="u"))
    intake.take("tap", 1, capture.encode(exchange()))
    assert [row.seq for row in intake.batch.rows] == [1]
    assert read(intake.batch.rows[0]).tapid == "u"

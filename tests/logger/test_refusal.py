from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumberError,
)
from tap_end import exchange

from logger.refusal import is_refusal, marker
from servelens.contract.events import Accounting, Exchange, LogMode
from servelens.contract.identity import ModelIdentity
from servelens.contract.records import accounting_record, decode, encode


def marked(mode: LogMode) -> list[Exchange]:
    sent = exchange(body=b"x" * 100)
    found = []
    for record in encode(sent, mode, 1):
        headers = marker(record.headers, record.value)
        assert headers is not None
        read = decode(headers, b"")
        assert isinstance(read, Exchange)
        assert read.exchangeid == sent.exchangeid
        found.append(read)
    return found


def test_a_marker_tells_of_both_bodies_that_they_are_cut_and_how_long_they_were() -> None:
    (found,) = marked("exchange")
    assert found.request is not None
    assert found.response is not None
    assert (found.request.body, found.request.truncated, found.request.size) == (b"", True, 100)
    assert (found.response.body, found.response.truncated, found.response.size) == (b"", True, 15)


def test_a_split_event_s_marker_tells_of_its_own_half() -> None:
    request, response = marked("all")
    assert request.request is not None
    assert request.request.truncated
    assert response.response is not None
    assert response.response.truncated
    assert request.response is None
    assert response.request is None


def test_a_body_that_was_not_there_is_not_called_truncated() -> None:
    (record,) = encode(exchange(body=b""), "exchange", 1)
    headers = dict(marker(record.headers, record.value) or ())
    assert "ce_requesttruncated" not in headers
    assert headers["ce_responsetruncated"] == b"true"


def test_of_an_accounting_event_nothing_can_be_left_out() -> None:
    record = accounting_record(Accounting("t", 1, ModelIdentity("n", "i"), 0, 1, 5, {}))
    assert marker(record.headers, record.value) is None


def test_only_errors_that_would_come_again_are_refusals() -> None:
    for error in (MessageSizeTooLargeError(), InvalidRecordError(), KafkaError("part of a batch")):
        assert is_refusal(error)
    for other in (KafkaTimeoutError(), NotLeaderForPartitionError(), OutOfOrderSequenceNumberError(), OSError()):
        assert not is_refusal(other)

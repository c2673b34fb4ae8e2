"""Labels: their JSON, their record, and that one is the other."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.contract.errors import PayloadError, TooLarge
from servelens.contract.labels import MAX_LABELS, Label, decode, label_record, read_body

NOW = 1_800_000_000_123_456
ONE = {"namespace": "shop", "inferenceservice": "risk", "requestid": "r-1", "value": 1}


def read(*labels: object) -> tuple[Label, ...]:
    return read_body(orjson.dumps(list(labels)), NOW)


def test_one_and_many_and_both_kinds_of_id() -> None:
    (alone,) = read_body(orjson.dumps(ONE), NOW)
    assert (alone.join_key, alone.values, alone.time_us) == ("shop/risk/r:r-1", (1,), NOW)
    own = {"namespace": "shop", "inferenceservice": "risk", "exchangeid": "0198", "values": ["good", None, 0.5, True]}
    first, second = read(ONE, own | {"time": "2026-11-25T10:00:00+01:00", "id": "l-7"})
    assert first == alone
    assert (second.join_key, second.values, second.id) == ("shop/risk/x:0198", ("good", None, 0.5, True), "l-7")
    assert second.time_us == 1_795_597_200_000_000


def test_the_same_label_twice_has_one_id_and_another_value_another() -> None:
    first, again = read(ONE, ONE)
    (other,) = read(ONE | {"value": 0})
    assert first.id == again.id != other.id
    assert read_body(orjson.dumps(ONE), NOW + 1)[0].id == first.id


texts = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=20)
values = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), texts)


@given(texts, texts, texts, st.lists(values, min_size=1, max_size=5), st.booleans())
def test_a_record_read_back_is_the_label(
    namespace: str, service: str, known: str, found: list[object], own: bool
) -> None:
    body = {"namespace": namespace, "inferenceservice": service, "values": found}
    body |= {"exchangeid": known} if own else {"requestid": known + "/2"}
    (label,) = read(body)
    record = label_record(label)
    assert decode(record.headers, record.value) == label
    assert (record.key.decode(), record.timestamp_ms) == (label.join_key, NOW // 1000)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"namespace": None}, "[0].namespace"),
        ({"namespace": "a/b"}, "[0].namespace"),
        ({"inferenceservice": 7}, "[0].inferenceservice"),
        ({"exchangeid": "x"}, "[0].exchangeid"),
        ({"requestid": "white space"}, "[0].requestid"),
        ({"requestid": 7}, "[0].requestid"),
        ({"requestid": "x" * 200}, "[0].requestid"),
        ({"values": [1]}, "[0].value"),
        ({"value": {"a": 1}}, "[0].value"),
        ({"value": "x" * 300}, "[0].value"),
        ({"time": "yesterday"}, "[0].time"),
        ({"time": "2026-11-25T10:00:00"}, "[0].time"),
        ({"lable": 1}, "[0].lable"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(PayloadError) as caught:
        read(ONE | change)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"7", b"[]", b"[7]", b'"x"'])
def test_what_is_no_label_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read_body(body, NOW)


def test_too_many_are_too_many() -> None:
    with pytest.raises(TooLarge):
        read(*[ONE] * (MAX_LABELS + 1))


@pytest.mark.parametrize("value", [None, b"", b"[]", b'{"values": 7}', b"{}"])
def test_a_record_that_is_none_is_refused(value: bytes | None) -> None:
    headers = label_record(read(ONE)[0]).headers
    with pytest.raises(PayloadError):
        decode(headers, value)
    with pytest.raises(PayloadError):
        decode((), b'{"values": [1]}')

"""Ids, times, settings, topics and the metric catalogue: the small values two rooms share."""

import random
import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from servelens.contract import settings, times
from servelens.contract.errors import ConfigError, PayloadError
from servelens.contract.identity import (
    ModelIdentity,
    bridged_exchange_id,
    clean_request_id,
    digest,
    new_exchange_id,
)
from servelens.contract.metrics import CATALOGUE, Instruments
from servelens.contract.topics import group_topics, shared_topics


def test_exchange_ids_are_uuid7_and_sort_by_time() -> None:
    rng = random.Random(1)
    ids = [new_exchange_id(lambda now=now: now, rng.getrandbits) for now in range(1_786_000_000_000, 1_786_000_000_050)]
    assert ids == sorted(ids)
    assert {UUID(one).version for one in ids} == {7}
    assert {UUID(one).variant for one in ids} == {"specified in RFC 4122"}
    assert UUID(ids[0]).int >> 80 == 1_786_000_000_000


def test_a_bridged_id_is_the_same_for_whoever_computes_it() -> None:
    assert bridged_exchange_id("default", "iris", "predictor", "e-1") == "ab4c5c4b-f9f7-524a-a50c-4a741db84602"


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        ("abc-1", "abc-1"),
        ("", None),
        (None, None),
        ("a b", None),
        ("é", None),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
    ],
)
def test_only_visible_ascii_of_bounded_length_is_a_request_id(given_id: str | None, kept: str | None) -> None:
    assert clean_request_id(given_id) == kept


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_digests_of_different_parts_differ(left: list[str], right: list[str]) -> None:
    assert (digest(*left) == digest(*right)) == (left == right)


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_survive(unix_us: int) -> None:
    assert times.unix_us(times.rfc3339(unix_us)) == unix_us


def test_foreign_times_are_read() -> None:
    assert times.unix_us("1970-01-01T01:00:00.000001999+01:00") == 1
    with pytest.raises(PayloadError, match="offset"):
        times.unix_us("1970-01-01T01:00:00")


def test_event_time_is_held_between_its_bounds() -> None:
    day, now = 86_400_000_000, 1_786_000_000_000_000
    assert times.clamp_event_time(now - 2 * day, now, day) == now - day
    assert times.clamp_event_time(now + day, now, day) == now + 60_000_000
    assert times.clamp_event_time(now - 5, now, day) == now - 5


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("1.5m", 90), ("24h", 86_400), ("30d", 2_592_000)]
)
def test_durations(text: str, seconds: float) -> None:
    assert settings.duration(text, "--x") == seconds


@pytest.mark.parametrize("text", ["10", "s", "-1s", "1w", "١s x", ""])
def test_a_wrong_duration_names_the_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--slot"):
        settings.duration(text, "--slot")


def test_sizes_and_addresses() -> None:
    assert settings.size("512MiB", "--x") == 512 << 20
    assert settings.address("[::1]:80", "--x") == ("[::1]", 80)
    for wrong in ("80", "host:", "host:99999"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            settings.address(wrong, "--listen")


def test_an_unknown_variable_or_key_is_an_error_with_a_suggestion() -> None:
    known = ["SERVELENS__LOGGER_LISTEN"]
    settings.check_environment({"SERVELENS_PORT": "tcp://10.0.0.1", "SERVELENS__LOGGER_LISTEN": "x"}, known)
    with pytest.raises(ConfigError, match="SERVELENS__LOGGER_LISTEN"):
        settings.check_environment({"SERVELENS__LOGGER_LISTN": "x"}, known)
    with pytest.raises(ConfigError, match="listen"):
        settings.check_file("lisen: 1", "f.yaml", ["listen"])


def test_every_metric_can_be_made_and_has_known_words() -> None:
    registry = CollectorRegistry()
    made = Instruments(registry)
    for name, metric in CATALOGUE.items():
        assert re.fullmatch(r"(servelens|kserve_logger)_[a-z_]+", name)
        assert (metric.kind == "counter") == name.endswith("_total")
        assert metric.help.endswith(".")
        instrument = made[name]
        (instrument.labels(**dict.fromkeys(metric.labels, "x")) if metric.labels else instrument)
    text = generate_latest(registry).decode()
    assert all(f"# TYPE {name} " in text for name in CATALOGUE)


def test_a_metric_outside_the_catalogue_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        Instruments(CollectorRegistry())["servelens_unheard_of_total"]


def test_payload_and_pane_topics_have_the_same_partitions() -> None:
    specs = {spec.name: spec for spec in (*shared_topics("p", 7), *group_topics("p", 7, "g"))}
    assert specs["p.payloads"].partitions == specs["p.panes.g"].partitions == 7
    assert specs["p.lease.g"].partitions == specs["p.state.g"].partitions == 1
    assert specs["p.state.g"].settings["cleanup.policy"] == "compact"


def test_an_identity_says_its_five_parts() -> None:
    identity = ModelIdentity.from_mapping({"namespace": "n", "inferenceservice": "i"})
    assert str(identity) == "n/i/predictor//"
    assert identity.labels()["component"] == "predictor"

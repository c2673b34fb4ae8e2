"""The Kafka clients and the topics, on the embedded broker and on Apache Kafka alike."""

import gc

import pytest

from servelens.contract.errors import BrokerError, ConfigError
from servelens.contract.topics import TopicSpec, group_topics, shared_topics
from servelens.io import topics
from servelens.io.kafka import consumer, end_of, partition_count, producer, read_all, topic_ids
from servelens.io.kafka_settings import KafkaSettings, as_arguments


def test_topics_are_created_once_and_then_fit(any_kafka: KafkaSettings, prefix: str) -> None:
    specs = (*shared_topics(prefix, 3), *group_topics(prefix, 3, "g"))
    assert topics.create(any_kafka, specs) == [spec.name for spec in specs]
    assert topics.create(any_kafka, specs) == []
    findings = topics.check(any_kafka, specs)
    assert {finding.found for finding in findings} <= {"ok", "unknown"}
    assert [f.found for f in findings if f.aspect == "partitions"] == ["ok"] * len(specs)


def test_what_does_not_fit_is_found(any_kafka: KafkaSettings, prefix: str) -> None:
    topics.create(any_kafka, [TopicSpec(f"{prefix}.payloads", 2)])
    found = {(f.topic, f.aspect): f.found for f in topics.check(any_kafka, shared_topics(prefix, 3))}
    assert found[f"{prefix}.payloads", "partitions"] == "wrong"
    assert found[f"{prefix}.verdicts", "topic"] == "missing"


def test_every_record_is_read_however_it_was_batched(any_kafka: KafkaSettings, prefix: str) -> None:
    topics.create(any_kafka, [TopicSpec(prefix, 1)])
    assert read_all(any_kafka, prefix, 0) == []
    assert end_of(any_kafka, prefix, 0) == 0
    client = producer(any_kafka, linger_ms=50)
    for number in range(100):
        client.send(prefix, value=str(number).encode(), partition=0)
    client.flush()
    client.close()
    assert [record.value for record in read_all(any_kafka, prefix, 0)] == [str(n).encode() for n in range(100)]
    assert end_of(any_kafka, prefix, 0) == 100
    assert len(read_all(any_kafka, prefix, 0, start=90)) == 10


def test_a_topic_made_anew_has_another_id(any_kafka: KafkaSettings, prefix: str) -> None:
    names = [f"{prefix}.a", f"{prefix}.b"]
    topics.create(any_kafka, [TopicSpec(name, 1) for name in names])
    assert len(set(topic_ids(any_kafka, names).values())) == 2
    assert topic_ids(any_kafka, [*names, "there-is-none"]).keys() == set(names)
    client = consumer(any_kafka)
    assert partition_count(client, names[0]) == 1
    client.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # kafka-python leaves a socket behind
def test_nobody_there_is_a_broker_error_that_names_the_flag() -> None:
    with pytest.raises(BrokerError, match="--kafka"):
        producer(KafkaSettings("127.0.0.1:1", bootstrap_timeout_ms=500))
    gc.collect()


def test_wrong_security_settings_name_their_flag() -> None:
    with pytest.raises(ConfigError, match="--kafka-security"):
        KafkaSettings("x:1", security_protocol="TLS").options()
    with pytest.raises(ConfigError, match="--kafka-sasl-mechanism"):
        KafkaSettings("x:1", security_protocol="SASL_SSL").options()


def test_settings_reach_a_child_as_arguments_without_the_secret() -> None:
    settings = KafkaSettings("x:1", "SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u")
    assert as_arguments(settings)[:4] == ["--kafka", "x:1", "--kafka-security", "SASL_SSL"]

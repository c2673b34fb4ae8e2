"""TLS, client certificates and every SASL mechanism against Apache Kafka, with secrets in files."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import START, wait_for_kafka
from kafka.errors import KafkaError

from servelens.contract.errors import BrokerError
from servelens.contract.topics import TopicSpec
from servelens.io import topics
from servelens.io.embedded import free_port
from servelens.io.kafka import producer, read_all
from servelens.io.kafka_settings import KafkaSettings, as_arguments

pytestmark = pytest.mark.apache

USER, PASSWORD = "logger", "the-password"
PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
"""  # noqa: E501  a property is one line


@dataclass(frozen=True)
class Secured:
    """A broker with one listener a kind, and the folder of every secret."""

    folder: Path
    tls: KafkaSettings
    sasl: KafkaSettings


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


def _certificates(folder: Path) -> None:
    key = ("-newkey", "rsa:2048", "-nodes")
    _openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name in ("server", "client"):
        _openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signing)
    (folder / "server.pem").write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())


def token(seconds: int = 600) -> str:
    """An unsecured JWT (RFC 7515 appendix A.5), as Kafka takes it by default."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": USER, "iat": now, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if not all(map(shutil.which, ("java", "mvn", "openssl"))):
        pytest.skip("Apache Kafka with TLS needs a JDK, Maven and openssl")
    folder = tmp_path_factory.mktemp("secured")
    _certificates(folder)
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "token").write_text(token())
    plain, tls, sasl, controller = (free_port() for _ in range(4))
    text = PROPERTIES.format(
        plain=plain, tls=tls, sasl=sasl, controller=controller, folder=folder, user=USER, password=PASSWORD
    )
    (folder / "more.properties").write_text(text)
    users = [
        word
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for word in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
    ]
    command = [str(START), str(plain), str(controller), str(folder / "kafka"), str(folder / "more.properties"), *users]
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_kafka(f"127.0.0.1:{plain}", process)
        ca = folder / "ca.pem"
        yield Secured(
            folder,
            KafkaSettings(
                f"127.0.0.1:{tls}", "SSL", ca, folder / "client.crt", folder / "client.key", bootstrap_timeout_ms=8000
            ),
            KafkaSettings(f"127.0.0.1:{sasl}", "SASL_SSL", ca, bootstrap_timeout_ms=8000),
        )
    finally:
        process.kill()
        process.wait()


def _as(secured: Secured, mechanism: str) -> KafkaSettings:
    if mechanism == "OAUTHBEARER":
        return replace(secured.sasl, sasl_mechanism=mechanism, sasl_token_file=secured.folder / "token")
    return replace(
        secured.sasl, sasl_mechanism=mechanism, sasl_username=USER, sasl_password_file=secured.folder / "password"
    )


def _through(settings: KafkaSettings, topic: str) -> list[bytes]:
    topics.create(settings, [TopicSpec(topic, 1)])
    client = producer(settings)
    client.send(topic, value=b"one", partition=0).get(20)
    client.close()
    return [record.value for record in read_all(settings, topic, 0)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_each_mechanism_gets_through(secured: Secured, prefix: str, mechanism: str) -> None:
    assert _through(_as(secured, mechanism), prefix) == [b"one"]


def test_a_client_certificate_gets_through_and_none_does_not(secured: Secured, prefix: str) -> None:
    assert _through(secured.tls, prefix) == [b"one"]
    with pytest.raises((BrokerError, KafkaError)):
        _through(replace(secured.tls, cert_file=None, key_file=None, bootstrap_timeout_ms=3000), prefix)


def test_a_broker_of_another_authority_is_not_spoken_to(secured: Secured, prefix: str, tmp_path: Path) -> None:
    _certificates(tmp_path)
    with pytest.raises((BrokerError, KafkaError)):
        _through(replace(_as(secured, "PLAIN"), ca_file=tmp_path / "ca.pem", bootstrap_timeout_ms=3000), prefix)


def test_a_wrong_password_is_told_without_it(secured: Secured, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not-the-password")
    settings = replace(_as(secured, "SCRAM-SHA-256"), sasl_password_file=tmp_path / "wrong", bootstrap_timeout_ms=3000)
    with pytest.raises((BrokerError, KafkaError)) as failure:
        _through(settings, prefix)
    assert "not-the-password" not in str(failure.value)
    assert "not-the-password" not in " ".join(as_arguments(settings))


def test_a_token_is_read_anew_for_each_connection(secured: Secured, prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(seconds=-60))
    settings = replace(_as(secured, "OAUTHBEARER"), sasl_token_file=file, bootstrap_timeout_ms=3000)
    with pytest.raises((BrokerError, KafkaError)):
        _through(settings, prefix)
    file.write_text(token())
    with closing(producer(settings)) as client:
        topics.create(settings, [TopicSpec(prefix, 1)])
        assert client.send(prefix, value=b"one", partition=0).get(20).offset == 0

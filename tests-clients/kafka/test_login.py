"""Who is let in: anonymous clients of this machine, users with their password, and nobody with a wrong one."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient

import clients
import raw
from conftest import until


@pytest.fixture
def login(server):
    """librdkafka's settings of a login."""
    if not server.broker:
        pytest.skip("only the users of a broker of our own are known")

    def settings(password, mechanism="PLAIN"):
        return {
            "bootstrap.servers": server.bootstrap, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism,
            "sasl.username": "guest", "sasl.password": password, "log_level": 2,
        }

    return settings


def test_the_right_password(server, login, topic, group):
    name, reports = topic(), []
    producer = Producer(login("guest"))
    producer.produce(name, b"x", on_delivery=lambda error, message: reports.append((error, message.offset())))
    producer.flush(15)
    assert reports == [(None, 0)]
    assert [one.value() for one in clients.read_all(server, name, group, 1)] == [b"x"]


@pytest.mark.parametrize("password, mechanism", [("wrong", "PLAIN"), ("", "PLAIN"), ("guest", "SCRAM-SHA-256")])
def test_what_is_refused(login, password, mechanism):
    errors = []
    client = AdminClient({**login(password or " ", mechanism), "error_cb": errors.append})
    with pytest.raises(KafkaException):
        client.list_topics(timeout=3)
    until(lambda: client.poll(0.05) is not None and errors, what="an error")
    assert {error.code() for error in errors} & {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}


def test_kafka_python_logs_in(server, login):
    settings = {"bootstrap_servers": [server.bootstrap], "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    with KafkaAdminClient(**settings, sasl_plain_username="guest", sasl_plain_password="guest") as client:
        assert client.describe_cluster()["cluster_id"]


def test_a_wrong_password_is_told_and_the_connection_ends(login, wire):
    fields = wire.ask(raw.SASL_HANDSHAKE, 1, raw.text("PLAIN"))
    assert fields.i16() == raw.NONE and "PLAIN" in fields.array(fields.text)
    fields = wire.ask(raw.SASL_AUTHENTICATE, 1, raw.data(b"\0guest\0wrong"))
    assert fields.i16() == 58 and fields.text()
    assert wire.is_closed()


def test_another_mechanism_is_told_what_there_is(login, wire):
    fields = wire.ask(raw.SASL_HANDSHAKE, 1, raw.text("GSSAPI"))
    assert fields.i16() == 33 and "PLAIN" in fields.array(fields.text)

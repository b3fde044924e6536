"""Where Kafka's clients are told to connect: the address they came in on, or the configured one.

In: a forwarded port, as containers and tunnels have them. Out: what clients find behind it.
"""

import os
import socket
import threading

import pytest
from confluent_kafka.admin import AdminClient

import clients
from broker_process import Broker
from conftest import LISTEN, Server

pytestmark = pytest.mark.skipif("WAYSTATION_KAFKA_URL" in os.environ, reason="starts the broker itself")


class Forwarded:
    """A port whose connections are passed on to another one."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def to(self, address):
        threading.Thread(target=self._accept, args=(address,), daemon=True).start()

    def _accept(self, address):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(address)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # Either end went.


def told(address):
    """The only broker that the metadata names."""
    (broker,) = AdminClient({"bootstrap.servers": address, "log_level": 2}).list_topics(timeout=10).brokers.values()
    return f"{broker.host}:{broker.port}"


@pytest.fixture
def forwarded():
    port = Forwarded()
    yield port
    port.listener.close()


def test_clients_are_told_where_they_came_in(tmp_path):
    listen = ("kafka://127.0.0.1:0", "kafka://127.0.0.2:0", *LISTEN[1:])
    with Broker(tmp_path / "data", listen=listen) as broker:
        address = f"{broker.kafka[0]}:{broker.kafka[1]}"
        assert address.startswith("127.0.0.2") and told(address) == address
        assert broker.stop() == 0


def test_clients_behind_a_forwarded_port(tmp_path, forwarded):
    config = tmp_path / "waystation.toml"
    config.write_text(f'kafka_advertised = "localhost:{forwarded.port}"\n')
    with Broker(tmp_path / "data", listen=LISTEN, arguments=("--config", str(config))) as broker:
        forwarded.to(broker.kafka)
        address = f"localhost:{forwarded.port}"
        assert told(address) == address
        there = Server(("localhost", forwarded.port), broker=broker)
        there.create("forwarded")
        clients.send(there, "forwarded", [{"value": b"x", "partition": 0}])
        (record,) = clients.read_all(there, "forwarded", "group", 1)
        assert record.value() == b"x"
        assert broker.stop() == 0

"""kcat: produce, consume, list, query by time, as operators type it."""

import json
import shutil
import subprocess

import pytest

from conftest import until

pytestmark = pytest.mark.skipif(not shutil.which("kcat"), reason="kcat is not installed")


@pytest.fixture
def kcat(server):
    """Runs kcat; gives what it prints."""

    def run(*arguments, given=b"", expect=0):
        done = subprocess.run(["kcat", "-b", server.bootstrap, *arguments], input=given, capture_output=True, timeout=30)
        assert done.returncode == expect, done.stderr.decode()
        return done.stdout

    return run


def test_produce_and_consume(kcat, names):
    topic = names.topic()  # Created by being produced to.
    kcat("-P", "-t", topic, given=b"one\ntwo\nthree\n")
    assert kcat("-C", "-t", topic, "-e", "-q") == b"one\ntwo\nthree\n"
    assert kcat("-C", "-t", topic, "-e", "-q", "-o", "-1") == b"three\n"
    assert kcat("-C", "-t", topic, "-q", "-o", "1", "-c", "1") == b"two\n"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed(kcat, topic, codec):
    name, lines = topic(), b"".join(b"line %d\n" % number for number in range(2000))
    kcat("-P", "-t", name, "-z", codec, given=lines)
    assert kcat("-C", "-t", name, "-e", "-q") == lines


def test_keys_headers_and_nothing(kcat, topic):
    name = topic()
    kcat("-P", "-t", name, "-K", ":", "-H", "name=value", given=b"key:value\n")
    kcat("-P", "-t", name, "-K", ":", "-Z", given=b"gone:\n")
    first, second = (json.loads(line) for line in kcat("-C", "-t", name, "-e", "-q", "-J").splitlines())
    assert (first["key"], first["payload"], first["headers"], first["offset"]) == ("key", "value", ["name", "value"], 0)
    assert (second["key"], second["payload"], second["offset"]) == ("gone", None, 1)


def test_a_group(kcat, topic, group):
    name = topic(2)
    kcat("-P", "-t", name, "-p", "0", given=b"a\n")
    kcat("-P", "-t", name, "-p", "1", given=b"b\n")
    arguments = ("-q", "-e", "-X", "auto.offset.reset=earliest", "-G", group, name)
    assert sorted(kcat(*arguments).split()) == [b"a", b"b"]
    kcat("-P", "-t", name, "-p", "1", given=b"c\n")
    assert kcat(*arguments) == b"c\n"


def test_list(kcat, server, topic):
    name = topic(3)
    listed = json.loads(kcat("-L", "-J"))
    assert [broker["name"] for broker in listed["brokers"]] == [server.bootstrap]
    (found,) = [one for one in listed["topics"] if one["topic"] == name]
    assert [one["partition"] for one in found["partitions"]] == [0, 1, 2]
    assert name in kcat("-L", "-t", name).decode()


def test_query(kcat, topic):
    name = topic()
    kcat("-P", "-t", name, given=b"one\ntwo\n")
    until(lambda: kcat("-Q", "-t", f"{name}:0:-1") == f"{name} [0] offset 2\n".encode(), what="the end")
    assert kcat("-Q", "-t", f"{name}:0:-2") == f"{name} [0] offset 0\n".encode()
    assert kcat("-Q", "-t", f"{name}:0:1") == f"{name} [0] offset 0\n".encode()
    assert kcat("-Q", "-t", f"{name}:0:99999999999999") in (f"{name} [0] offset {at}\n".encode() for at in (-1, 2))

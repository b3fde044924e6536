"""The README does what it says, and says the same in both languages.

In: README.md and README.zh-CN.md. The programs of its first minutes, of AMQP and of Kafka, are run as they are written
there, on the default ports; what is typed for kcat needs kcat.
"""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from broker_process import ROOT, Broker
from test_hello import default_broker, http, read_until  # noqa: F401 (a fixture)

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))


def blocks(text, language):
    """The code of that language, in order, without comments."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s*#.*", "", block) for of, block in found if of == language]


def typed(text):
    """The lines for the shell that call kcat, each with what its comment says it prints; those of one block together."""
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    split = [[re.split(r"\s+# ", line) for line in block.splitlines()] for block in found if "kcat" in block]
    return [[(line[0], line[1] if len(line) > 1 else None) for line in block] for block in split]


def shape(text):
    """What kind each line begins: headings by depth, list items, table rows with their cells."""
    kinds, in_code = [], False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        if in_code or line.startswith("```"):
            continue
        if line.startswith("#"):
            kinds.append(line.split()[0])
        elif line.startswith("* "):
            kinds.append("item")
        elif line.startswith("|"):
            kinds.append(("row", line.count("|")))
    return kinds


def names(text):
    """Everything in the text that is written as code, but for the code itself."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return sorted(set(re.findall(r"`([^`]+)`", prose)))


def test_both_languages_have_the_same_parts_code_and_names():
    assert shape(ENGLISH) == shape(CHINESE)
    for language in ("sh", "python", ""):
        assert blocks(ENGLISH, language) == blocks(CHINESE, language)
    assert names(ENGLISH) == names(CHINESE)
    numbers = [sorted(re.findall(r"\d[\d ]*\d|\d", text)) for text in (ENGLISH, CHINESE)]
    assert numbers[0] == numbers[1]


@pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts the broker itself")
def test_the_first_minutes_are_as_they_are_written(default_broker, tmp_path):  # noqa: F811
    receive, send, orders = blocks(ENGLISH, "python")[:3]
    programs = {"receive.py": receive, "send.py": send}
    programs["orders.py"] = send.rsplit("connection.close()", 1)[0] + orders
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    run = [sys.executable, "-u"]
    subprocess.run([*run, tmp_path / "send.py"], check=True, timeout=20)
    receiver = subprocess.Popen([*run, tmp_path / "receive.py"], stdout=subprocess.PIPE, text=True)
    try:
        read_until(receiver, " [x] Received b'Hello World!'")
    finally:
        receiver.kill()
        receiver.wait()
    subprocess.run([*run, tmp_path / "orders.py"], check=True, timeout=20)
    status, ready = http(default_broker, "/health/ready")
    assert (status, ready) == (200, "ready\n")
    assert 'waystation_queue_ready{vhost="/",queue="orders"} 1.0' in http(default_broker, "/metrics")[1]


@pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts the broker itself")
def test_kafka_in_five_minutes_is_as_it_is_written(default_broker, tmp_path):  # noqa: F811
    consume, produce, group = blocks(ENGLISH, "python")[3:6]
    programs = {"consume.py": consume, "produce.py": produce, "group.py": consume.split("\n", 1)[0] + "\n" + group}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    run = [sys.executable, "-u"]
    reader = subprocess.Popen([*run, tmp_path / "consume.py"], stdout=subprocess.PIPE, text=True)
    try:
        end, sent = time.monotonic() + 40, 0
        os.set_blocking(reader.stdout.fileno(), False)
        while not (line := reader.stdout.readline()):  # It begins with what comes next: somebody has to go on sending.
            assert time.monotonic() < end and reader.poll() is None, f"nothing came, {sent} were sent"
            subprocess.run([*run, tmp_path / "produce.py"], check=True, timeout=20)
            sent += 1
        assert "topic='test'" in line and "value=b'Hello, World!'" in line
    finally:
        reader.kill()
        reader.wait()
    member = subprocess.Popen([*run, tmp_path / "group.py"], stdout=subprocess.PIPE, text=True)
    try:
        read_until(member, "0 0 b'Hello, World!'", 30)
    finally:
        member.kill()
        member.wait()


def as_typed(line, printed):
    """Types one line into a shell; what its comment says is what it prints."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if printed:
        assert done.stdout == printed + "\n", line
    return done.stdout


@pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts the broker itself")
@pytest.mark.skipif(not shutil.which("kcat"), reason="kcat is not installed")
def test_what_is_typed_for_kcat_and_one_log_of_two_protocols(default_broker, tmp_path):  # noqa: F811
    alone, shared = typed(ENGLISH)
    assert [printed for _, printed in alone + shared] == [None, "0 42 order 1", None, "0 42 from AMQP", None]
    seen = [as_typed(*line) for line in alone]
    assert 'topic "orders-log" with 1 partitions' in seen[-1]
    write, read = blocks(ENGLISH, "python")[6:8]
    (tmp_path / "write.py").write_text(write)
    (tmp_path / "read.py").write_text(write.split("channel.queue_declare", 1)[0] + read)
    subprocess.run([sys.executable, tmp_path / "write.py"], check=True, timeout=20)
    [as_typed(*line) for line in shared]
    reader = subprocess.Popen([sys.executable, "-u", tmp_path / "read.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert [reader.stdout.readline() for _ in range(2)] == ["0 b'42' b'from AMQP'\n", "1 b'42' b'from Kafka'\n"]
    finally:
        reader.kill()
        reader.wait()

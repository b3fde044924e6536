"""The README does what it says, and says the same in both languages.

In: README.md and README.zh-CN.md. The programs of its first minutes are run as they are written there, on the default
ports.
"""

import os
import re
import subprocess
import sys

import pytest

from broker_process import ROOT, Broker
from test_hello import default_broker, http, read_until  # noqa: F401 (a fixture)

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))


def blocks(text, language):
    """The code of that language, in order, without comments."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s*#.*", "", block) for of, block in found if of == language]


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

"""Starts, kills and stops a broker of our own.

In: the path of the built binary, a data directory, the listen addresses.
Out: a running process whose bound addresses were read from its one ready line.
Never: attaches to a broker that somebody else started.
"""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY = re.compile(r"waystation \S+ ready: (?P<addresses>.*) data=(?P<data>.*)$")
ADDRESS = re.compile(r"(?P<scheme>[a-z]+)://(?P<host>[^:/\s]+):(?P<port>\d+)")


def binary():
    """The broker under test: WAYSTATION_BINARY, or the release build of this tree."""
    return os.environ.get("WAYSTATION_BINARY", str(ROOT / "target" / "release" / "waystation"))


class BrokerDied(Exception):
    """The process ended, or did not become ready in time; the text carries its log."""


class Broker:
    """One broker process. `amqp`, `kafka` and `http` are (host, port) once it is ready, where it listens there."""

    def __init__(self, data, listen=("amqp://127.0.0.1:0", "http://127.0.0.1:0"), arguments=(), cwd=None):
        command = [binary(), "serve"]
        if data is not None:
            command += ["--data-dir", str(data)]
        for address in listen:
            command += ["--listen", address]
        self.command = command + list(arguments)
        self.cwd = cwd
        self.log = []
        self.amqp = None
        self.kafka = None
        self.http = None
        self.data = None
        self.process = None
        self._ready = threading.Event()

    def spawn(self):
        """Starts the process without waiting for it."""
        self._ready.clear()
        self.process = subprocess.Popen(
            self.command, cwd=self.cwd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        threading.Thread(target=self._read_log, args=(self.process,), daemon=True).start()
        return self

    def start(self, timeout=30.0):
        """Starts the process and waits for its ready line."""
        self.spawn()
        end = time.monotonic() + timeout
        while not self._ready.wait(0.05):
            if self.process.poll() is not None:
                raise BrokerDied(f"exit status {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                self.kill()
                raise BrokerDied(f"no ready line within {timeout} s:\n{self.tail()}")
        return self

    def _read_log(self, process):
        for line in process.stderr:
            line = line.rstrip("\n")
            self.log.append(line)
            found = READY.search(line)
            if found:
                for address in ADDRESS.finditer(found["addresses"]):
                    setattr(self, address["scheme"], (address["host"], int(address["port"])))
                self.data = found["data"]
                self._ready.set()

    def tail(self, lines=40):
        """The last lines of its log."""
        return "\n".join(self.log[-lines:])

    def alive(self):
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def resident_bytes(self):
        """Memory the process holds now."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise BrokerDied("no VmRSS")

    def kill(self):
        """kill -9."""
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout=40.0):
        """SIGTERM; the exit status. The broker promises to end within thirty seconds, whatever its clients do."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerDied(f"did not stop within {timeout} s of SIGTERM:\n{self.tail()}") from None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.alive():
            self.kill()

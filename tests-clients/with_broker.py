"""Runs a command against a fresh broker: python with_broker.py COMMAND ARGUMENT…

In: the built broker and a command. Out: the command's exit status; WAYSTATION_AMQP_URL tells it where the broker is.
A broker that dies meanwhile, or does not stop cleanly, is a failure too.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from broker_process import Broker


def main():
    if os.environ.get("WAYSTATION_AMQP_URL"):
        return subprocess.run(sys.argv[1:]).returncode
    with tempfile.TemporaryDirectory(prefix="waystation-with-") as data, Broker(pathlib.Path(data, "data")) as broker:
        url = f"amqp://guest:guest@{broker.amqp[0]}:{broker.amqp[1]}/%2F"
        status = subprocess.run(sys.argv[1:], env={**os.environ, "WAYSTATION_AMQP_URL": url}).returncode
        if status == 0 and (not broker.alive() or broker.stop() != 0):
            print(f"the broker did not survive:\n{broker.tail()}", file=sys.stderr)
            return 1
        return status


if __name__ == "__main__":
    sys.exit(main())

"""Where Apache Kafka's own clients are: a JVM and the jars of kafka-tools.

In: WAYSTATION_KAFKA_JARS (a folder of jars), or a folder made with Maven. Out: a command line, or why there is none.
Never: takes another version than the pinned one.
"""

import os
import pathlib
import shutil
import subprocess

VERSION = "4.0.0"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>waystation</groupId><artifactId>kafka-clients-of-java</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>
"""


class Missing(Exception):
    """Java's clients cannot be had here; the text says why."""


def jars(place):
    """A folder with the jars; made with Maven in `place` when WAYSTATION_KAFKA_JARS names none."""
    given = os.environ.get("WAYSTATION_KAFKA_JARS")
    folder = pathlib.Path(given) if given else pathlib.Path(place) / "jars"
    if list(folder.glob(f"kafka-tools-{VERSION}.jar")):
        return folder
    if given:
        raise Missing(f"no kafka-tools-{VERSION}.jar in {given}")
    if not shutil.which("mvn"):
        raise Missing("Maven is not installed")
    pathlib.Path(place).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(place) / "pom.xml").write_text(POM)
    copy = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    made = subprocess.run(copy, cwd=place, capture_output=True, text=True, timeout=240)
    if made.returncode:
        raise Missing(f"Maven has no kafka-tools {VERSION} here: {(made.stdout + made.stderr)[-300:]}")
    return folder


def command(place, tool):
    """The beginning of the command line of one of Kafka's tools."""
    if not shutil.which("java"):
        raise Missing("no JVM is installed")
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars(place)}/*", f"org.apache.kafka.tools.{tool}"]


if __name__ == "__main__":
    import sys

    try:
        print(jars(sys.argv[1]))
    except (Missing, subprocess.TimeoutExpired) as error:
        print(error)
        sys.exit(1)

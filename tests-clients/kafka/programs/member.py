"""One member of a group as a process of its own: says what it takes, one line per record, and commits what it said.

    python member.py BOOTSTRAP TOPIC GROUP
"""

import sys

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition


def main():
    bootstrap, topic, group = sys.argv[1:]
    consumer = KafkaConsumer(
        topic, bootstrap_servers=[bootstrap], group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=6000, heartbeat_interval_ms=500,
    )
    shared = None
    while True:
        polled = consumer.poll(timeout_ms=200, max_records=50)
        now = sorted(place.partition for place in consumer.assignment())
        if now != shared:
            shared = now
            print("assigned", *now, flush=True)
        for place, records in polled.items():
            for record in records:
                print("record", place.partition, record.offset, record.value.decode(), flush=True)
            upto = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            try:
                consumer.commit({TopicPartition(topic, place.partition): upto})
            except Exception as error:  # The others moved on; what was not committed comes to its new owner.
                print("uncommitted", type(error).__name__, flush=True)


if __name__ == "__main__":
    main()

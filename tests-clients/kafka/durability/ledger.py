"""What Kafka clients know of their records, and what a log may therefore hold.

In: what was sent, what was acknowledged and where, what was committed, what readers saw. Out: complaints, one line
each; an empty list means that the broker kept its word.
Never: talks to a broker. A record is (producer, number); each producer counts for itself and each partition.

    acknowledged at (partition, offset)   is there, there, from now on, and nowhere else
    sent, not acknowledged                is there once or not at all
    a place that was read once            holds the same record for ever
    offsets of a partition                follow one another without a gap, in the order of each producer
    a commit that was answered            is what the group finds, or a later one; it never goes back
"""

import threading


class Ledger:
    """Shared by all clients of one run."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = {}
        self.acked = {}
        self.seen = {}
        self.taken = set()
        self.committed = {}
        self.complaints = []

    def complain(self, text):
        if len(self.complaints) < 20:
            self.complaints.append(text)

    def on_send(self, producer, number):
        with self.lock:
            self.sent[producer] = number

    def on_ack(self, place, record):
        with self.lock:
            if self.acked.setdefault(place, record) != record:
                self.complain(f"{place} was acknowledged for {self.acked[place]} and for {record}")

    def on_taken(self, place, record, after):
        """A member of the group got a record; `after` is the offset it had before, or None at the start."""
        with self.lock:
            if after is not None and place[1] != after + 1:
                self.complain(f"a member read {place} after offset {after}")
            self._known(place, record)
            self.taken.add(place)

    def on_committed(self, partition, offset):
        """A commit was answered: the owner of the partition is to go on there."""
        with self.lock:
            self.committed[partition] = max(offset, self.committed.get(partition, -1))

    def on_found_committed(self, partition, offset):
        """What the group's offset is after a restart, while no commit is under way."""
        with self.lock:
            promised = self.committed.get(partition)
            if promised is not None and offset < promised:
                self.complain(f"the committed offset of {partition} went back from {promised} to {offset}")

    def _known(self, place, record):
        if self.seen.setdefault(place, record) != record:
            self.complain(f"{place} held {self.seen[place]} and now holds {record}")
        if place in self.acked and self.acked[place] != record:
            self.complain(f"{place} was acknowledged for {self.acked[place]} and holds {record}")
        producer, number = record
        if number > self.sent.get(producer, -1):
            self.complain(f"{record} at {place} was never sent")

    def known(self):
        """What must be there from now on: places that were acknowledged, and places that were read."""
        with self.lock:
            return dict(self.acked), list(self.seen)

    def audit(self, logs, known):
        """Compares whole logs, {partition: [(offset, record)]}, with what was `known` before they were read."""
        acked, seen = known
        with self.lock:
            where = {}
            for partition, records in logs.items():
                self._audit_partition(partition, records, where)
            lost = [place for place in acked if place[1] >= len(logs.get(place[0], ()))]
            for place in sorted(lost)[:10]:
                self.complain(f"{acked[place]} was acknowledged at {place} and is lost ({len(lost)} in all)")
            beyond = [place for place in seen if place[1] >= len(logs.get(place[0], ()))]
            if beyond and not lost:
                self.complain(f"{min(beyond)} was read and is gone ({len(beyond)} in all)")

    def _audit_partition(self, partition, records, where):
        last = {}
        for at, (offset, record) in enumerate(records):
            if offset != at:
                self.complain(f"partition {partition} has {offset} where {at} follows")
                return
            self._known((partition, offset), record)
            producer, number = record
            if record in where:
                self.complain(f"{record} is at {where[record]} and at {(partition, offset)}")
            where[record] = (partition, offset)
            if number <= last.get(producer, -1):
                self.complain(f"{record} comes after {last[producer]} of the same producer in partition {partition}")
            last[producer] = number

    def left_over(self, logs):
        """What is in the logs and no member of the group ever took."""
        with self.lock:
            return [(partition, offset) for partition, records in logs.items() for offset, _ in records
                    if (partition, offset) not in self.taken]

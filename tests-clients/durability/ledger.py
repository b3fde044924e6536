"""What clients know about their messages, and what a broker may therefore answer after a crash.

In: what was sent, confirmed, handed out, acknowledged, and when an acknowledgement became certain.
Out: complaints, one line each; an empty list means that the broker kept its word.
Never: talks to a broker. Names of messages are (queue, publisher, number).

A message is in one of these states, as far as a client can know:

    sent -> confirmed            it exists, exactly once
    sent, crash, not seen        it never comes
    handed out                   every later delivery says redelivered=true
    acknowledged, not certain    after a crash it may be there or not; before one it does not return
    acknowledged, certain        it never returns
"""

import threading


class Ledger:
    """Shared by all clients of one run."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = set()
        self.confirmed = set()
        self.handed_out = set()
        self.acked = set()
        self.gone = set()
        self.complaints = []
        self.fresh, self.again = 0, 0

    def complain(self, text):
        if len(self.complaints) < 20:
            self.complaints.append(text)

    def on_send(self, messages):
        with self.lock:
            self.sent.update(messages)

    def on_confirm(self, messages):
        with self.lock:
            self.confirmed.update(messages)

    def on_delivery(self, message, redelivered):
        with self.lock:
            if message not in self.sent:
                self.complain(f"{message} was never sent")
            if message in self.gone:
                self.complain(f"{message} returned after it was settled for certain, or after it was found lost")
            if message in self.acked:
                self.complain(f"{message} returned after its acknowledgement, without a crash between")
            if message in self.handed_out and not redelivered:
                self.complain(f"{message} came with redelivered=false and had been handed out before")
            self.handed_out.add(message)
            self.again += redelivered
            self.fresh += not redelivered

    def on_ack(self, messages):
        """An acknowledgement is about to be sent."""
        with self.lock:
            self.acked.update(messages)

    def on_certain(self, messages):
        """A later request of the same channel was answered: the acknowledgements are durable."""
        with self.lock:
            self.gone.update(messages)
            self.acked.difference_update(messages)

    def on_crash(self):
        """Acknowledgements that are not certain may have been lost; gives back which."""
        with self.lock:
            doubtful, self.acked = self.acked, set()
            return doubtful

    def audit(self, found, doubtful):
        """Compares everything that is there, in order per queue, with what must be and may be there."""
        seen = {}
        for queue, messages in found.items():
            last = {}
            for message in messages:
                seen[message] = seen.get(message, 0) + 1
                _, publisher, number = message
                if number <= last.get(publisher, -1):
                    self.complain(f"{message} comes after {last[publisher]} of the same publisher")
                last[publisher] = number
        for message, times in seen.items():
            if times > 1:
                self.complain(f"{message} is there {times} times")
        lost = [one for one in self.confirmed - self.gone - doubtful if one not in seen]
        for message in sorted(lost)[:10]:
            self.complain(f"{message} was confirmed and is lost ({len(lost)} in all)")
        # What is not there now must never appear again; what is there exists from now on.
        self.gone.update(one for one in self.sent if one not in seen)
        self.confirmed.update(seen)

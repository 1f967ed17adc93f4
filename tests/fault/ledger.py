"""What was sent, what was answered 200, what arrived: and whether these three agree.

The promises, by the names that violations() uses:
  lost        an event that was answered 200 neither arrived nor is dead
  phantom     something arrived that was never sent, or not with these bytes on this topic
  twice alive an event was answered 200 with "duplicate":false twice
  dead too    a dead event arrived (an event of one topic is one or the other)
  dead        an event is dead in a run in which none may be
  duplicates  more arrived twice than could have been in flight when something broke
  order       an event arrived for the first time behind one that was sent only after it had been answered
  status      a good request got an answer that it must not get
"""

import threading
import time


class Entry:
    __slots__ = ("topic", "payload", "sent_at", "accepted_at", "stored", "arrivals", "reason", "may_die")

    def __init__(self, topic, payload, may_die):
        self.topic, self.payload, self.may_die = topic, payload, may_die
        self.sent_at, self.accepted_at, self.stored, self.arrivals, self.reason = time.monotonic(), None, 0, 0, None


class Ledger:
    def __init__(self):
        self._lock = threading.Lock()
        self.entries, self._arrived, self._noted = {}, [], []
        self.accepted_count = self.arrived_count = self.duplicate_count = self.dead_count = 0
        self.allowance = 0  # of duplicates
        self._newest_sent, self._disorder = 0.0, []
        self._open = set()  # answered 200, neither arrived nor dead

    # --- what happens, from any thread ---

    def sent(self, id, topic, payload, may_die=False):
        """Before its first attempt."""
        with self._lock:
            assert id not in self.entries, id
            self.entries[id] = Entry(topic, payload, may_die)

    def accepted(self, id, duplicate):
        now = time.monotonic()
        with self._lock:
            entry = self.entries[id]
            entry.stored += not duplicate
            if entry.accepted_at is None:
                entry.accepted_at = now
                self.accepted_count += 1
                if not entry.arrivals and entry.reason is None:
                    self._open.add(id)

    def arrived(self, id, topic, payload):
        with self._lock:
            entry = self.entries.get(id)
            if entry is None or entry.topic != topic or entry.payload != payload:
                self._noted.append(f"phantom: {id!r} on {topic!r} with {payload[:200]!r}"
                                   + (f", sent as {entry.payload[:200]!r} for {entry.topic!r}" if entry else ""))
                return
            entry.arrivals += 1
            if entry.arrivals > 1:
                self.duplicate_count += 1
                return
            self.arrived_count += 1
            self._open.discard(id)
            if entry.accepted_at is not None and entry.accepted_at < self._newest_sent:
                self._disorder.append(id)
            self._newest_sent = max(self._newest_sent, entry.sent_at)

    def died(self, id, reason):
        with self._lock:
            entry = self.entries.get(id)
            if entry is None:
                self._noted.append(f"phantom: {id!r} is dead and was never sent")
            elif entry.reason is None:
                entry.reason = reason
                self.dead_count += 1
                self._open.discard(id)

    def broke(self, allowance):
        """Something broke while at most so many events were in flight."""
        with self._lock:
            self.allowance += allowance

    def note(self, violation):
        with self._lock:
            self._noted.append(violation)

    # --- questions ---

    def is_accepted(self, id):
        with self._lock:
            return self.entries[id].accepted_at is not None

    def open_count(self):
        """How many are on their way."""
        with self._lock:
            return len(self._open)

    def accepted_ids(self):
        with self._lock:
            return {id for id, entry in self.entries.items() if entry.accepted_at is not None}

    def noted(self):
        with self._lock:
            return list(self._noted)

    def violations(self, ordered=True, deduplicates=True):
        """At the end, when nothing is on its way any more."""
        with self._lock:
            found = list(self._noted)
            for id, entry in self.entries.items():
                if entry.accepted_at is not None and not entry.arrivals and entry.reason is None:
                    found.append(f"lost: {id} was answered 200")
                if deduplicates and entry.stored > 1:
                    found.append(f"twice alive: {id} was stored {entry.stored} times")
                if entry.reason is not None and entry.arrivals:
                    found.append(f"dead too: {id} arrived and is dead: {entry.reason}")
                if entry.reason is not None and not entry.may_die:
                    found.append(f"dead: {id}: {entry.reason}")
            if self.duplicate_count > self.allowance:
                found.append(f"duplicates: {self.duplicate_count}, but at most {self.allowance} were in flight at the breaks")
            if ordered:
                found += [f"order: {id} arrived behind one sent after its answer" for id in self._disorder]
            return found

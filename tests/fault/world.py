"""A small world to break: a broker, a bridge, a sender that behaves like MeowFlow, a subscriber that misses nothing, and the
ledger in which they meet."""

import collections
import json
import os
import random
import re
import socket
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))

import harness  # noqa: E402
import mqtt_peer  # noqa: E402
from ledger import Ledger  # noqa: E402
from proxy import Proxy  # noqa: E402

WINDOW = 128  # mqtt.inflight by default
UNSAVED_S = 1.5  # journal.h, J4: the cursor is saved within a second; and some slack for this machine
STALL_S = float(os.environ.get("MEOWBRIDGE_FAULT_STALL", "90"))  # nothing moves for so long: it will not move any more
SANITIZED = b"__asan_init" in open(harness.BINARY, "rb").read() or b"__tsan_init" in open(harness.BINARY, "rb").read()


class Violation(AssertionError):
    """A promise is broken."""


class Skip(Exception):
    """This cannot be tried here, for the reason it gives."""


def make_payload(rng, size=None):
    """JSON as nobody would print it again: big numbers, escapes, odd spacing."""
    scalars = ["152066840347062275", "1.50", "-0", "1e2", "1E+400", "0.1000000000000000055511151231257827", "true", "null",
               '"\\u55b5\\/\\ud83d\\ude00"', '"喵 \\" \\\\ \\u0000"', '""', '"\\ud800"', "[ ]", "{ }", '[1 ,2,\t3 ]']
    space = lambda: rng.choice(["", "", " ", "\t", "\r\n  "])  # noqa: E731
    members = []
    for _ in range(rng.randint(0, 6)):
        members.append(f'{space()}"{rng.choice("abc")}{rng.randint(0, 9)}"{space()}:{space()}{rng.choice(scalars)}{space()}')
    if size:
        members.append(f'"fill":"{"x" * size}"')
    return ("{" + ",".join(members) + space() + "}").encode()


class Sender:
    """MeowFlow: signs, pushes, and pushes again what is not 2xx, with the same id. Several connections, each in a thread."""

    ALLOWED = {200, 503}

    def __init__(self, world, port, connections=4, rate=400, names=None, sizes=None, allowed=None, may_die=None, pauses=(0.01, 0.2)):
        self.world, self.port, self.rate, self.sizes, self.pauses = world, port, rate, sizes or [None], pauses
        self.names = names or ["workflowTask.completed", "workflowTask.failed", "a.b.c", "single"]
        self._deck, self._deck_lock = [], threading.Lock()
        self.allowed, self.may_die = self.ALLOWED | (allowed or set()), may_die or (lambda name, payload: False)
        self.statuses, self.clock_offset_s = collections.Counter(), lambda: 0.0
        self._stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(n, connections), daemon=True) for n in range(connections)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self._stopping.set()
        for thread in self.threads:
            thread.join(harness.DEADLINE)
            assert not thread.is_alive(), "a request hangs"

    def _name(self, rng):
        """Each of the names once before any comes again."""
        with self._deck_lock:
            if not self._deck:
                self._deck = rng.sample(self.names, len(self.names))
            return self._deck.pop()

    def change_names(self, *names):
        with self._deck_lock:
            self.names, self._deck = names, []

    def _run(self, number, connections):
        rng = random.Random(f"{self.world.seed} {number}")
        connection, ledger, previous = None, self.world.ledger, None
        interval, due = connections / self.rate, time.monotonic()
        while not self._stopping.is_set():
            if previous and rng.random() < 0.03:  # MeowFlow did not hear our answer
                id, body_of, host = previous
            else:
                id, name = self.world.next_id(), self._name(rng)
                payload = make_payload(rng, rng.choice(self.sizes))
                ledger.sent(id, "meowflow/" + name.replace(".", "/"), payload, self.may_die(name, payload))
                body_of = (lambda id=id, name=name, payload=payload: harness.event(
                    payload=payload, id=id, event=name, pushTime=f"2026-11-24T0{rng.randint(0, 9)}:00:00Z"))
            previous = (id, body_of, None)
            while not self._stopping.is_set():
                connection, accepted = self._push(connection, id, body_of())
                if accepted:
                    break
                self._stopping.wait(rng.uniform(*self.pauses))
            due = max(due + interval, time.monotonic() - 0.5)
            self._stopping.wait(max(0.0, due - time.monotonic()))
        if connection:
            connection.close()

    def push(self, name, payload):
        """One event more, until it is answered 200. From any thread."""
        id, connection, accepted = self.world.next_id(), None, False
        self.world.ledger.sent(id, "meowflow/" + name.replace(".", "/"), payload, self.may_die(name, payload))
        while not accepted:
            connection, accepted = self._push(connection, id, harness.event(payload=payload, id=id, event=name))
        connection.close()

    def _push(self, connection, id, body):
        host = f"127.0.0.1:{self.port}"
        stamp = int((time.time() + self.clock_offset_s()) * 1000)
        head = "".join(f"{k}: {v}\r\n" for k, v in harness.sign(body, host, timestamp=stamp).items())
        request = f"POST /webhook HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=harness.DEADLINE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request.encode() + body)
            status, keeps, answer = self._read(connection)
        except TimeoutError:
            self.world.ledger.note(f"status: no answer within {harness.DEADLINE} s to {id}")
            status, keeps = "timeout", False
        except (OSError, ValueError):
            status, keeps = "no answer", False
        self.statuses[status] += 1
        if not keeps and connection:
            connection.close()
            connection = None
        if status == 200:
            self.world.ledger.accepted(id, json.loads(answer)["data"]["duplicate"])
        elif isinstance(status, int) and status not in self.allowed:
            self.world.ledger.note(f"status: {status} {answer!r} to {id}: {body[:300]!r}")
        return connection, status == 200

    @staticmethod
    def _read(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                raise ValueError("closed")
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head).group(1))
        while len(body) < length:
            part = connection.recv(65536)
            if not part:
                raise ValueError("closed")
            body += part
        return int(head.split(b" ", 2)[1]), not re.search(rb"(?i)\r\nconnection: *close", head), body


class Watcher(threading.Thread):
    """A persistent QoS 1 session that tells the ledger of each message. It confirms what it has told."""

    MARK = "meowflow/the/end"

    def __init__(self, world, port, client_id="watcher", username=None, password=None):
        super().__init__(daemon=True)
        self.world, self.port, self.client_id, self.login = world, port, client_id, (username, password)
        self.granted, self.marks, self.stopping, self.socket = 0, 0, False, None
        self.arrivals = collections.deque(maxlen=200000)
        self.start()
        self.wait_granted(0)

    def wait_granted(self, before):
        """Until it has subscribed on a connection newer than the before-th."""
        harness.wait_until(lambda: self.granted > before, "the watcher's subscription")

    def run(self):
        while not self.stopping:
            try:
                self._session()
            except OSError:
                pass
            if not self.stopping:
                time.sleep(0.03)

    def _session(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=harness.DEADLINE) as s:
            self.socket = s
            s.settimeout(None)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            s.sendall(mqtt_peer.connect_packet(self.client_id, 600, username=self.login[0], password=self.login[1]))
            packets = mqtt_peer.Packets()
            while part := s.recv(1 << 18):
                answers = b"".join(self._take(first, body) for first, body in packets.feed(part))
                if answers:
                    s.sendall(answers)

    def _take(self, first, body):
        kind = first >> 4
        if kind == mqtt_peer.CONNACK:
            return mqtt_peer.subscribe_packet(1, ["meowflow/#"])
        if kind == mqtt_peer.SUBACK:
            self.granted += 1
        if kind != mqtt_peer.PUBLISH:
            return b""
        publish = mqtt_peer.Publish(first, body)
        if publish.topic == self.MARK:
            self.marks += 1
        else:
            self.world.ledger.arrived(publish.property("id"), publish.topic, publish.payload)
            self.arrivals.append(time.monotonic())
        return mqtt_peer.puback_packet(publish.mid) if publish.qos else b""

    def catch_up(self):
        """Returns when all that the broker had before is in the ledger."""
        before = self.marks
        self.socket.sendall(mqtt_peer.publish_packet(self.MARK, b"", mid=9))
        harness.wait_until(lambda: self.marks > before, "the watcher to catch up")

    def close(self):
        self.stopping = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass


class World:
    """Everything of one round. scale: about 1 for a short run, larger for more of the same."""

    def __init__(self, folder, seed, scale=1.0):
        self.folder, self.seed, self.scale = str(folder), seed, scale
        self.rng, self.ledger, self.counts = random.Random(seed), Ledger(), collections.Counter()
        self.bridge, self.sender, self.watchers, self._closers, self._kills = None, None, [], [], []
        self._ids = iter(range(152066840347062275 + random.Random(seed).randrange(10 ** 15), 1 << 62))
        self._id_lock = threading.Lock()
        os.makedirs(self.folder, exist_ok=True)

    def next_id(self):
        with self._id_lock:
            return str(next(self._ids))

    def path(self, name):
        return os.path.join(self.folder, name)

    def times(self, low, high):
        """How often to do something, by the round's scale."""
        return max(1, round(self.rng.randint(low, high) * self.scale))

    # --- making ---

    def start_broker(self, *lines, name="broker", **arguments):
        broker = harness.Broker(self.path(name), "max_inflight_messages 0", *lines, **arguments).start()
        self._closers.append(broker.stop)
        return broker

    def start_proxy(self, broker):
        proxy = Proxy(broker.port)
        self._closers.append(proxy.close)
        return proxy

    def start_peer(self, peer):
        self._closers.append(peer.close)
        return peer

    def start_watcher(self, broker, **arguments):
        watcher = Watcher(self, broker.port, **arguments)
        self.watchers.append(watcher)
        self._closers.insert(0, watcher.close)
        return watcher

    def start_bridge(self, *ports, config=None, start=True, more_env=None):
        """ports: of the brokers, in the order of mqtt.url. It listens on the same port over all its lives."""
        self.port = harness.free_port()
        self.bridge = harness.Bridge(self.path("bridge"), config={
            "http": {"listen": f"127.0.0.1:{self.port}"}, "log": {"level": "info"},
            "mqtt": {"url": [f"mqtt://127.0.0.1:{port}" for port in ports], "keepalive": "5s"}}, start=False)
        self.bridge.env.update(more_env or {})
        self.bridge.configure(config or {})
        if start:
            self.bridge.start()
        return self.bridge

    def start_sender(self, **arguments):
        self.sender = Sender(self, self.port, **arguments)
        return self.sender

    # --- load ---

    def accept(self, low, high=None, deadline=None):
        """Goes on when so many more events have been answered 200; at a random moment after that."""
        count = self.rng.randint(low, high or low)
        target = self.ledger.accepted_count + count
        harness.wait_until(lambda: self.ledger.accepted_count >= target or self.bridge.process.poll() is not None,
                           f"{count} events to be answered 200 (statuses: {dict(self.sender.statuses)})", deadline or STALL_S)
        self.check_alive()
        time.sleep(self.rng.uniform(0, 0.02))

    def online(self):
        """Until the bridge is connected to a broker, as far as it knows."""
        def is_online():
            log = self.bridge.log()
            return log.count("connected to the broker") > log.count("lost the connection to the broker")

        harness.wait_until(is_online, "the bridge to be connected", STALL_S)

    def refused(self, deadline=None):
        """Until a request is answered 503."""
        before = self.sender.statuses[503]
        harness.wait_until(lambda: self.sender.statuses[503] > before, "a 503", deadline or STALL_S)

    def hold(self, low, high):
        """The trouble lasts for a random time."""
        time.sleep(self.rng.uniform(low, high))

    # --- breaking ---

    def link_broke(self, times=1, what="cuts"):
        self.counts[what] += 1
        self.ledger.broke(WINDOW * times)

    def kill_bridge(self):
        self.counts["kills"] += 1
        self.ledger.broke(WINDOW)
        self._kills.append([time.monotonic(), None])
        self.bridge.kill()

    def restart_bridge(self, wait=True):
        for kill in self._kills:
            kill[1] = kill[1] or time.monotonic()
        self.bridge.start(wait)

    # --- judging ---

    def check_alive(self):
        status = self.bridge.process.poll()
        if status is not None:
            raise Violation(f"the bridge ended by itself with status {status}:\n{self.bridge.log()[-3000:]}")

    def journal(self, sql):
        path = self.bridge.config["journal"]["path"]
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def note_dead(self):
        if not isinstance(self.bridge.config["journal"], dict):
            return
        for reason, body in self.journal("SELECT reason, body FROM dead"):
            self.ledger.died(json.loads(body)["id"], reason)

    def settle(self):
        """Until nothing is on its way any more; a violation if nothing moves for too long."""
        last, moved = None, time.monotonic()
        while self.ledger.open_count():
            self.check_alive()
            self.note_dead()
            now = (self.ledger.open_count(), self.ledger.arrived_count + self.ledger.duplicate_count)
            if now != last:
                last, moved = now, time.monotonic()
            if time.monotonic() - moved > STALL_S:
                raise Violation(f"{now[0]} events that were answered 200 do not arrive for {STALL_S} s:\n{self.bridge.log()[-3000:]}")
            time.sleep(0.05)

    def finish(self, ordered=True, deduplicates=True, integrity=True):
        """Ends the round and checks every promise."""
        if self.sender:
            self.sender.stop()
        self.settle()
        self.check_alive()
        began = time.monotonic()
        status = self.bridge.stop(deadline=60)
        if status != 0:
            raise Violation(f"SIGTERM ended the bridge with {status}:\n{self.bridge.log()[-3000:]}")
        if time.monotonic() - began > 30:
            raise Violation("stopping took more than 30 s")
        for watcher in self.watchers:
            watcher.catch_up()
        self.note_dead()
        self.check_log()
        if integrity and isinstance(self.bridge.config["journal"], dict):
            (answer,), = self.journal("PRAGMA integrity_check")
            if answer != "ok":
                raise Violation(f"the journal is damaged: {answer}")
        self._allow_for_kills()
        found = self.ledger.violations(ordered, deduplicates)
        if found:
            raise Violation(f"{len(found)} violations:\n" + "\n".join(found[:20]))

    def check_log(self):
        with open(self.bridge.log_path, errors="replace") as f:
            log = f.read()
        for text in ("Sanitizer", "runtime error", "bug:", "Assertion"):
            if text in log:
                raise Violation(f"{text!r} in the bridge's log:\n{log[log.index(text) - 500:][:6000]}")

    def _allow_for_kills(self):
        """What was published since the cursor was saved last is published again."""
        for killed, started in self._kills:
            until = (started or time.monotonic()) + 0.5
            self.ledger.broke(sum(killed - UNSAVED_S <= at <= until for watcher in self.watchers for at in list(watcher.arrivals)))

    def tally(self):
        """The round's counts for the table."""
        return collections.Counter({
            "accepted": self.ledger.accepted_count, "arrived": self.ledger.arrived_count, "duplicates": self.ledger.duplicate_count,
            "dead": self.ledger.dead_count, **self.counts})

    def close(self):
        if self.sender:
            self.sender._stopping.set()
        if self.bridge and self.bridge.process and self.bridge.process.poll() is None:
            self.bridge.kill()
        for close in self._closers:
            try:
                close()
            except Exception as trouble:  # whatever it is, the other ones are closed, too
                print(f"closing: {trouble!r}", file=sys.stderr)

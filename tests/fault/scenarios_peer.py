"""A broker of our own, for what Mosquitto will not do."""

import itertools
import random
import threading
import time

import harness
import mqtt_peer
from mqtt_peer import PUBLISH, Publish, ScriptedBroker, puback_packet, varint
from registry import scenario
from world import Violation

UNHEARD_AND_DONE = set(range(0x80))
PASSING = {0x88, 0x89, 0x8b, 0x8d, 0x8e, 0x91, 0x92, 0x93, 0x96, 0x97, 0x98, 0x9c, 0x9d, 0x9f, 0xa0}
DOUBTFUL = {0x80, 0x83} | set(range(0xa3, 0x100))


class Peer(ScriptedBroker):
    """A good broker that tells the ledger what it has taken. Others are made of it."""

    def __init__(self, world):
        self.world = world
        super().__init__()

    def take(self, connection, publish, code=0):
        """It has the message, and says so."""
        self.world.ledger.arrived(publish.property("id"), publish.topic, publish.payload)
        connection.sendall(puback_packet(publish.mid, code))

    def event(self, connection, publish):
        self.take(connection, publish)
        return True


def begin(world, peer, **sender):
    """The peer, a bridge at it, and load."""
    world.start_peer(peer)
    world.start_bridge(peer.port, config=sender.pop("config", None), more_env=sender.pop("env", None))
    world.start_sender(**sender)
    return peer


# --- reason codes ---


class Judge(Peer):
    """Answers an event of code/NN with that code: a passing or a doubtful refusal some times, and then 0."""

    def __init__(self, world):
        super().__init__(world)
        self.attempts, self.most = {}, 3

    def event(self, connection, publish):
        code, id = int(publish.topic.rsplit("/", 1)[1]), publish.property("id")
        with self.lock:
            self.attempts[id] = self.attempts.get(id, 0) + 1
            attempt = self.attempts[id]
        refuses = code in PASSING | DOUBTFUL and attempt <= self.most
        if code >= 0x80 and (refuses or code not in PASSING | DOUBTFUL):
            self.world.counts["refusals"] += 1
            connection.sendall(puback_packet(publish.mid, code))
        else:
            self.take(connection, publish, code if code < 0x80 else 0)
        return True


@scenario("peer")
def every_reason_code(world):
    """PUBACK with each reason code: published, tried again, or dead, and the line moves on."""
    judge = Judge(world)
    judge.most = world.rng.randint(1, 3)
    names = [f"code.{code}" for code in range(256)]
    begin(world, judge, names=names, rate=1000, connections=8,
          may_die=lambda name, payload: int(name[5:]) >= 0x80 and int(name[5:]) not in PASSING | DOUBTFUL)
    world.accept(400 if world.scale <= 1 else 1500)
    world.finish(ordered=False)
    for entry in world.ledger.entries.values():
        code = int(entry.topic.rsplit("/", 1)[1])
        if entry.accepted_at and entry.may_die and f"0x{code:02x}" not in (entry.reason or ""):
            raise Violation(f"refused with 0x{code:02x} and {entry.reason or 'not dead'}")


@scenario("peer", in_short=False)
def a_reason_code_for_ever(world):
    """An error that never ends and does not explain itself makes its event dead, no other one, and does not stop the line."""
    judge = Judge(world)
    judge.most = 10 ** 9
    code = world.rng.choice(sorted(DOUBTFUL))
    begin(world, judge, names=["code.0"], may_die=lambda name, payload: name != "code.0")
    world.accept(10, 50)
    world.sender.push(f"code.{code}", b"{}")
    world.accept(50)
    world.finish(ordered=False)
    for entry in world.ledger.entries.values():
        if entry.may_die and entry.accepted_at and f"0x{code:02x}" not in (entry.reason or ""):
            raise Violation(f"refused with 0x{code:02x} for ever and {entry.reason or 'not dead'}")


class Doorkeeper(Peer):
    """Refuses connections with the reason codes of a list, one each, and is a good broker after those."""

    def __init__(self, world):
        self.refusals = []
        super().__init__(world)

    def handle(self, connection, first, body):
        if first >> 4 == mqtt_peer.CONNECT:
            with self.lock:
                code = self.refusals.pop(0) if self.refusals else None
            if code is not None:
                self.world.counts["refusals"] += 1
                connection.sendall(mqtt_peer.packet(0x20, bytes([0, code, 0])))
                return False
        return super().handle(connection, first, body)


@scenario("peer")
def refused_with_each_reason_code(world):
    """CONNACK with each reason code: nothing is lost or dead for it, and the bridge tries until it is let in."""
    keeper = begin(world, Doorkeeper(world), rate=100, connections=2)
    codes = list(range(0x80, 0x100))
    world.rng.shuffle(codes)
    for code in codes[:world.times(10, 20)]:
        world.accept(1, 3)
        keeper.refusals = [code]
        world.bridge.stop(deadline=30)  # a new life, so that no backoff of the last refusal is waited for
        world.restart_bridge()
        world.link_broke()
        harness.wait_until(lambda: not keeper.refusals, "the bridge to be refused", 60)
        before = world.ledger.arrived_count
        harness.wait_until(lambda: world.ledger.arrived_count > before, f"events to flow after the refusal 0x{code:02x}", 60)
    world.finish()


# --- order of acknowledgements ---


class Shuffler(Peer):
    """Takes messages as they come and confirms them in any order, a little later."""

    def serve(self, connection, number):
        rng, lock, waiting = random.Random(f"{self.world.seed} {number}"), threading.Lock(), []
        over = threading.Event()

        def confirm():
            while not over.wait(rng.uniform(0.001, 0.02)):
                with lock:
                    rng.shuffle(waiting)
                    count = rng.randint(0, len(waiting))
                    some = waiting[:count]
                    del waiting[:count]
                try:
                    connection.sendall(b"".join(puback_packet(mid) for mid in some))
                except OSError:
                    return

        threading.Thread(target=confirm, daemon=True).start()
        try:
            for first, body in self.packets(connection):
                publish = Publish(first, body) if first >> 4 == PUBLISH else None
                if publish and publish.topic.startswith("meowflow/"):
                    self.world.ledger.arrived(publish.property("id"), publish.topic, publish.payload)
                    with lock:
                        waiting.append(publish.mid)
                elif not self.handle(connection, first, body):
                    return
        finally:
            over.set()


@scenario("peer")
def acknowledged_out_of_order(world):
    """PUBACKs in any order, and the connection cut in between."""
    peer = begin(world, Shuffler(world), rate=2000, connections=8)
    for _ in range(world.times(1, 3)):
        world.accept(50, 400)
        if world.rng.random() < 0.7:
            peer.hang_up()
            world.link_broke()
    world.accept(10)
    world.finish()


# --- cut at each byte ---


class Cutter(Peer):
    """The next connection ends after so many bytes of one direction; then, until an event was taken, connections are good."""

    def __init__(self, world):
        self.cut_in = self.cut_out = None
        super().__init__(world)

    def serve(self, connection, number):
        with self.lock:
            cut_in, cut_out, self.cut_in, self.cut_out = self.cut_in, self.cut_out, None, None
        packets, got, out = mqtt_peer.Packets(), 0, _Counted(connection, cut_out)
        while True:
            part = connection.recv(65536 if cut_in is None else max(1, cut_in - got))
            got += len(part)
            for first, body in packets.feed(part):
                if not self.handle(out, first, body):
                    return
            if not part or (cut_in is not None and got >= cut_in) or out.is_over:
                return


class _Counted:
    """Sends only the first so many bytes."""

    def __init__(self, connection, left):
        self.connection, self.left, self.is_over = connection, left, False

    def sendall(self, data):
        if self.left is not None:
            data = data[:self.left]
            self.left -= len(data)
            self.is_over = self.left == 0
        self.connection.sendall(data)


@scenario("peer")
def cut_at_each_byte(world):
    """The connection is dropped after each count of bytes, one direction or the other."""
    cutter = Cutter(world)
    begin(world, cutter, connections=2, rate=200)
    first = world.rng.randrange(0, 700)
    for step in range(world.times(5, 7)):
        world.accept(1, 5)
        count = first + step * world.rng.choice([1, 1, 1, 7])
        with cutter.lock:
            if world.rng.random() < 0.6:
                cutter.cut_in = count % 700 + 1
            else:
                cutter.cut_out = count % 40 + 1
        # A new life, so that no backoff of the last cut is waited for.
        world.bridge.stop(deadline=30)
        world.restart_bridge()
        world.link_broke()
        before = world.ledger.arrived_count
        harness.wait_until(lambda: world.ledger.arrived_count > before, "events to flow again", 60)
    world.finish()


class CountingCutter(Cutter):
    """Says how many connections were cut."""

    def __init__(self, world):
        self.cuts = 0
        super().__init__(world)

    def serve(self, connection, number):
        with self.lock:
            cuts = self.cut_in is not None or self.cut_out is not None
        super().serve(connection, number)
        with self.lock:
            self.cuts += cuts


@scenario("peer")
def cut_after_every_byte(world):
    """The connection is dropped after every byte of an exchange from CONNECT to the event's PUBACK: of both directions, one after the
    other from a random first one on, in steps; with --scale 16 in steps of one."""
    peer = begin(world, CountingCutter(world), connections=1, rate=20)
    world.accept(1)
    step = max(1, round(16 / world.scale))
    plan = [("cut_in", n) for n in range(world.rng.randrange(step) + 1, 800, step)]  # over 700 bytes: two events
    plan += [("cut_out", n) for n in range(world.rng.randrange(max(1, step // 8)) + 1, 14, max(1, step // 8))]  # CONNACK, two PUBACKs
    for done, (direction, count) in enumerate(plan):
        world.bridge.stop(deadline=30)
        with peer.lock:
            setattr(peer, direction, count)
            before = peer.cuts
        world.restart_bridge(wait=False)
        harness.wait_until(lambda: peer.cuts > before, f"the cut after {count} bytes ({direction})", 60)
        world.link_broke(what="cuts in the exchange")
        if done % 10 == 9:
            arrived = world.ledger.arrived_count
            harness.wait_until(lambda: world.ledger.arrived_count > arrived, "events to flow again", 60)
    world.finish()


# --- hostile ---


# An attack must not confirm what it has not taken: a broker that lies is believed. So no acknowledgement here has an identifier that an
# event can have, and no CONNACK asks for QoS 0 or for packets smaller than our events.


def flood(connection, data, seconds=0.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(data)


ATTACKS = {
    "garbage": lambda s, rng: s.sendall(rng.randbytes(rng.randint(1, 5000))),
    "absurd remaining length": lambda s, rng: s.sendall(bytes([rng.randrange(256)]) + b"\xff\xff\xff\x7f" + rng.randbytes(100)),
    "remaining length of five bytes": lambda s, rng: s.sendall(bytes([rng.randrange(256)]) + b"\xff\xff\xff\xff\x01"),
    "length promised and never sent": lambda s, rng: (s.sendall(b"\x30\xff\xff\xff\x7f"), flood(s, bytes(65536), 1.0)),
    "unsolicited acknowledgements": lambda s, rng: s.sendall(b"".join(
        puback_packet(rng.randrange(60000, 65536).to_bytes(2, "big"), rng.randrange(256), rng.choice([4, 5, 6, 7])) for _ in range(500))),
    "acknowledgements of identifier 0": lambda s, rng: s.sendall(b"".join(puback_packet(b"\0\0", 0, kind) for kind in (4, 5, 6, 7))),
    "a CONNACK flood": lambda s, rng: flood(s, b"\x20\x03\x00\x00\x00" * 100),
    "a PINGRESP flood": lambda s, rng: flood(s, b"\xd0\x00" * 1000),
    "a PINGREQ flood": lambda s, rng: flood(s, b"\xc0\x00" * 1000),
    "publications": lambda s, rng: flood(s, b"".join(mqtt_peer.publish_packet("x" * rng.randint(0, 9), rng.randbytes(9), n, n % 3)
                                                    for n in range(1, 200))),
    "publication one byte short": lambda s, rng: s.sendall(b"\x32" + varint(4) + b"\0\1x\0"),
    "publication of nothing": lambda s, rng: s.sendall(bytes([0x30 | rng.randrange(16), rng.randrange(3)]) + rng.randbytes(2)),
    "publication with bad properties": lambda s, rng: s.sendall(mqtt_peer.packet(0x32, b"\0\1x\0\1" + bytes_of_properties(rng))),
    "PUBACK with properties": lambda s, rng: s.sendall(mqtt_peer.packet(0x40, b"\0\1\0" + bytes_of_properties(rng))),
    "PUBREC with properties": lambda s, rng: s.sendall(mqtt_peer.packet(0x50, b"\0\1\0" + bytes_of_properties(rng))),
    "PUBREL with properties": lambda s, rng: s.sendall(mqtt_peer.packet(0x62, b"\0\1\0" + bytes_of_properties(rng))),
    "SUBACK": lambda s, rng: s.sendall(mqtt_peer.packet(0x90, b"\0\1" + bytes_of_properties(rng) + rng.randbytes(3))),
    "UNSUBACK": lambda s, rng: s.sendall(mqtt_peer.packet(0xb0, b"\0\1" + bytes_of_properties(rng))),
    "DISCONNECT with properties": lambda s, rng: s.sendall(mqtt_peer.packet(0xe0, bytes([rng.randrange(256)]) + bytes_of_properties(rng))),
    "AUTH": lambda s, rng: s.sendall(mqtt_peer.packet(0xf0, bytes([rng.randrange(256)]) + bytes_of_properties(rng))),
    "packets of a client": lambda s, rng: s.sendall(mqtt_peer.connect_packet("you") + mqtt_peer.subscribe_packet(1, ["#"])),
    "empty packets of all kinds": lambda s, rng: s.sendall(b"".join(bytes([first, 0]) for first in rng.sample(range(256), 256))),
    "one random packet": lambda s, rng: s.sendall(mqtt_peer.packet(rng.randrange(256), rng.randbytes(rng.randint(0, 40)))),
    "nothing at all": lambda s, rng: None,
}


def bytes_of_properties(rng):
    """Unknown ones, cut ones, ones of a wrong type, ones given twice, a length that lies."""
    value = rng.randbytes(rng.randint(0, 12))
    body = rng.choice([
        bytes([rng.randrange(256)]) + value, b"\x1f" + mqtt_peer.text("why") * 2, b"\x1f\xff\xff" + value, b"\x26\0\1a\0\1b" * 20,
        b"\x26\0\1a\0", b"\x7f" + value, b"\x21\0\0", b"\x21\0\0" * 2, b"\x27\0\0\0\0", b"\x12\0\0", b"\x24\xff", b""])
    return varint(max(0, len(body) + rng.choice([0, 0, 0, -1, 1, 300]))) + body


CONNACKS = [
    lambda rng: b"\x20\x03\x00\x00\x00",
    lambda rng: mqtt_peer.packet(0x20, b"\0\0" + bytes_of_properties(rng)),
    lambda rng: mqtt_peer.packet(0x20, rng.randbytes(rng.randint(0, 40))),
    lambda rng: b"\x20\x03\x00" + bytes([rng.randrange(256)]) + b"\x00",
    lambda rng: b"\x20\x02\x00\x00",
    lambda rng: mqtt_peer.packet(0x20, b"\1\0\x06\x21\0\1\x27\0\0"),
    lambda rng: b"\x20\xff\xff\xff\x7f",
    lambda rng: mqtt_peer.packet(0x20, b"\0\0\x03\x21" + bytes([0, rng.randrange(3)])),
    lambda rng: mqtt_peer.packet(0x20, b"\0\0\x05\x27" + rng.choice([0, 100000, 2 ** 32 - 1]).to_bytes(4, "big")),
    lambda rng: mqtt_peer.packet(0x20, b"\0\0\x02\x24" + bytes([rng.choice([1, 2, 255])])),
    lambda rng: mqtt_peer.packet(0x20, b"\0\0\x03\x13" + rng.randrange(3).to_bytes(2, "big")),
]


class Hostile(Peer):
    """Attacks on the next connections, and is a good broker on those after them."""

    def __init__(self, world):
        self.left, self.said = 0, []
        super().__init__(world)

    def serve(self, connection, number):
        with self.lock:
            attacks = self.left > 0
            self.left -= attacks
        if not attacks:
            super().serve(connection, number)
            return
        rng = random.Random(f"{self.world.seed} {number}")
        name = rng.choice(sorted(ATTACKS))
        when = rng.choice(["before CONNACK", "after CONNACK", "after CONNACK", "with events", "with events"])
        connack = rng.choice(CONNACKS)(rng) if rng.random() < 0.4 else CONNACKS[0](rng)
        with self.lock:
            self.said.append(f"{name}, {when}, CONNACK {connack.hex()}")
        self.world.counts["attacks"] += 1
        connection.settimeout(3)
        try:
            self.attack(connection, rng, name, when, connack)
        except TimeoutError:
            pass

    def attack(self, connection, rng, name, when, connack):
        if when == "before CONNACK":
            ATTACKS[name](connection, rng)
            connection.sendall(connack)
        taken, wanted = 0, rng.randint(1, 4)
        for first, body in self.packets(connection):
            if first >> 4 == mqtt_peer.CONNECT:
                if when != "before CONNACK":
                    connection.sendall(connack)
                if when == "after CONNACK":
                    ATTACKS[name](connection, rng)
            elif first >> 4 == PUBLISH:
                publish = Publish(first, body)
                if publish.topic.startswith("meowflow/"):
                    taken += 1
                    if taken == wanted:
                        ATTACKS[name](connection, rng)
                        continue
                    self.take(connection, publish)
                else:
                    connection.sendall(puback_packet(publish.mid))


@scenario("peer")
def hostile(world):
    """Malformed and absurd packets at any time: the bridge lives, loses nothing, and comes back to a broker that is good."""
    peer = Hostile(world)
    with open(world.path("leaks"), "w") as f:
        f.write("leak:libmosquitto\n")  # bridge/ports/mqtt_guard.c says why
    begin(world, peer, connections=2, rate=100, config={}, env={"LSAN_OPTIONS": f"suppressions={world.path('leaks')}"})
    for _ in range(world.times(2, 3)):
        world.accept(1, 20)
        with peer.lock:
            peer.left = world.rng.randint(1, 2)  # after three the event would be to blame (contract 5)
        world.bridge.stop(deadline=30)  # a new life, without backoff
        world.restart_bridge()
        world.ledger.broke(4 * 128)

        def has_got_over_it():
            if world.bridge.process.poll() is not None:
                raise Violation(f"the bridge died ({world.bridge.process.returncode}) of one of {peer.said}:\n{world.bridge.log()[-3000:]}")
            return peer.left == 0

        harness.wait_until(has_got_over_it, f"the attacks to pass ({peer.said})", 120)
        before = world.ledger.arrived_count
        harness.wait_until(lambda: has_got_over_it() and world.ledger.arrived_count > before,
                           f"events to flow again after {peer.said}", 120)
    world.finish(ordered=False)


# --- without a journal ---


class Moody(Peer):
    """Confirms, refuses, keeps silent, hangs up: by chance."""

    def __init__(self, world):
        self.confirmed = set()
        self.counter = itertools.count()
        super().__init__(world)

    def event(self, connection, publish):
        rng, id = random.Random(f"{self.world.seed} {next(self.counter)}"), publish.property("id")
        mood = rng.random()
        if mood < 0.05:
            connection.sendall(puback_packet(publish.mid, rng.choice([0x80, 0x87, 0x97, 0x99])))
            self.world.counts["refusals"] += 1
        elif mood < 0.055:
            self.world.link_broke()
            return False
        elif mood < 0.06:
            self.world.counts["stalls"] += 1
        else:
            with self.lock:
                self.confirmed.add(id)  # before the bridge can know
            self.take(connection, publish)
        return True


@scenario("peer")
def without_a_journal(world):
    """"journal": false: 200 is never said for what the broker has not confirmed."""
    peer = begin(world, Moody(world), connections=16, rate=500, config={"journal": False, "mqtt": {"client_id": "memory"}})
    accepted = world.ledger.accepted

    def check(id, duplicate):
        if id not in peer.confirmed:
            world.ledger.note(f"lost: {id} was answered 200 and the broker had not confirmed it")
        accepted(id, duplicate)

    world.ledger.accepted = check
    for _ in range(world.times(1, 2)):
        world.accept(50, 300)
        if world.rng.random() < 0.4:
            world.kill_bridge()
            world.restart_bridge()
        else:
            peer.hang_up()
            world.link_broke()
    world.accept(50)
    world.ledger.broke(10 ** 9)  # what was refused or in doubt is pushed again by MeowFlow, and nothing remembers it
    world.finish(ordered=False, deduplicates=False)

"""What happens to the broker and to the way there."""

import os
import signal
import socket
import subprocess

import harness
import mqtt_peer
from proxy import DOWN, UP
from registry import scenario
from world import Violation, make_payload


def set_up(world, *lines, config=None, **sender):
    broker = world.start_broker(*lines)
    proxy = world.start_proxy(broker)
    watcher = world.start_watcher(broker)
    world.start_bridge(proxy.port, config=config)
    world.bridge.connected()
    world.start_sender(**sender)
    return broker, proxy, watcher


def lost(world, before):
    harness.wait_until(lambda: world.bridge.log().count("lost the connection to the broker") > before, "the bridge to notice", 60)


@scenario("broker")
def broker_killed_and_restarted(world):
    """SIGKILL and SIGTERM. The bridge is let in again when the subscriber is there: what a broker forgets is not promised."""
    broker, proxy, watcher = set_up(world)
    for _ in range(world.times(1, 3)):
        world.accept(1, 150)
        granted = watcher.granted
        broker.stop(world.rng.choice([signal.SIGKILL, signal.SIGTERM]))
        world.link_broke(what="broker kills")
        proxy.shut()
        world.hold(0, 0.8)
        broker.start()
        watcher.wait_granted(granted)
        proxy.open()
    world.accept(1)
    world.finish()


@scenario("broker")
def broker_frozen(world):
    """SIGSTOP, until the bridge has noticed or not."""
    broker, _, _ = set_up(world)
    for _ in range(world.times(1, 2)):
        world.online()
        world.accept(1, 150)
        before = world.bridge.log().count("lost the connection to the broker")
        broker.signal(signal.SIGSTOP)
        world.link_broke(times=3, what="stalls")
        if world.rng.random() < 0.5:
            lost(world, before)
        world.hold(0, 1)
        world.accept(10)  # the ingress does not care
        broker.signal(signal.SIGCONT)
    world.finish()


@scenario("broker")
def cut_off_without_a_fin(world):
    """All packets of the connection are lost, in both directions."""
    _, proxy, _ = set_up(world)
    for _ in range(world.times(1, 2)):
        world.online()
        world.accept(1, 150)
        before = world.bridge.log().count("lost the connection to the broker")
        proxy.swallow(UP, DOWN)
        world.link_broke()
        lost(world, before)
        world.accept(10)
    world.finish()


@scenario("broker")
def half_open(world):
    """Packets are swallowed in one direction, also of new connections for a while."""
    _, proxy, _ = set_up(world)
    for _ in range(world.times(1, 2)):
        world.online()
        world.accept(1, 150)
        before = world.bridge.log().count("lost the connection to the broker")
        direction = world.rng.choice([UP, DOWN])
        proxy.swallow(direction, new=world.rng.random() < 0.3)
        world.link_broke(times=2)
        lost(world, before)
        world.hold(0, 1)
        proxy.swallow(new=False)
        world.accept(10)
    proxy.cut()
    world.link_broke()
    world.finish()


@scenario("broker")
def connections_cut(world):
    """Closed and reset at random moments."""
    _, proxy, _ = set_up(world, rate=1000, connections=8)
    for _ in range(world.times(2, 4)):
        world.accept(1, 150)
        # Something arrives in between: cut three times over the same event, it would be to blame (contract: dead, with that reason).
        before = world.ledger.arrived_count
        harness.wait_until(lambda: proxy.count() > 0 and world.ledger.arrived_count > before, "events to flow", 60)
        proxy.cut(reset=world.rng.random() < 0.5)
        world.link_broke()
    world.accept(1)
    world.finish()


@scenario("broker")
def slow(world):
    """1 kB/s for a while, with large events on the way."""
    _, proxy, _ = set_up(world, sizes=[None, None, 3000])
    world.accept(1, 100)
    proxy.rate = 1000
    world.counts["stalls"] += 1
    world.link_broke(times=4)  # it may give the connection up, or not
    world.accept(50, 150)
    world.hold(1, 3 * max(1, world.scale))
    proxy.rate = None
    world.finish()


@scenario("broker")
def receive_maximum_1(world):
    """The broker takes one message at a time."""
    set_up(world, "max_inflight_messages 1")
    world.accept(100, 200)
    world.finish()
    if world.ledger.duplicate_count:
        raise Violation("duplicates, and nothing failed")


def take_all_places(broker):
    """Connections until the broker takes no more."""
    hogs = []
    while True:
        hog = socket.create_connection(("127.0.0.1", broker.port), timeout=harness.DEADLINE)
        hogs.append(hog)
        try:
            hog.sendall(mqtt_peer.connect_packet(f"hog{len(hogs)}", clean=True))
            if not hog.recv(100):
                return hogs
        except ConnectionError:
            return hogs


@scenario("broker")
def full(world):
    """The broker has all the connections that it takes: the bridge waits for a place."""
    broker, proxy, watcher = set_up(world, "max_connections 5")
    for _ in range(world.times(1, 2)):
        world.online()
        world.accept(1, 100)
        before = world.bridge.log().count("lost the connection to the broker")
        proxy.shut()
        world.link_broke()
        lost(world, before)
        hogs = take_all_places(broker)
        proxy.open()
        world.counts["full"] += 1
        world.accept(20, 100)
        world.hold(0.2, 1)
        if world.ledger.open_count() == 0:
            raise Violation("the broker was not full")
        for hog in hogs:
            hog.close()
        world.accept(1, 20)
    world.finish()


@scenario("broker")
def packet_too_large(world):
    """Packets over the broker's limit, told in CONNACK or not: they are dead, the others arrive."""
    told = world.rng.random() < 0.5
    if not told:
        world.ledger.broke(3000)  # three connections for each
    broker = world.start_broker(f"{'max_packet_size' if told else 'message_size_limit'} 5000")
    world.start_watcher(broker)
    world.start_bridge(broker.port)
    world.bridge.connected()
    if told:
        world.start_sender(sizes=[None, 10, 6000], may_die=lambda name, payload: len(payload) > 4000)
        world.accept(50, 200)
        world.finish()
    else:
        world.start_sender(connections=1, may_die=lambda name, payload: len(payload) > 4000)
        world.accept(5, 50)
        world.sender.push("large", make_payload(world.rng, 6000))
        world.accept(5, 50)
        world.finish()
    over = sum(entry.reason is not None for entry in world.ledger.entries.values())
    if not over:
        raise Violation("nothing died of its size")


def passwords(world):
    folder = world.path("broker")
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/acl", "w") as f:
        f.write("user meowbridge\ntopic write meowflow/#\ntopic write meowbridge/#\ntopic deny meowflow/forbidden/#\n"
                "user reader\ntopic readwrite #\n")
    open(f"{folder}/passwords", "w").close()
    for user in ("meowbridge", "reader"):
        subprocess.run(["mosquitto_passwd", "-b", f"{folder}/passwords", user, f"{user}-password"], check=True)
    os.chmod(f"{folder}/passwords", 0o600)
    return world.start_broker(f"acl_file {folder}/acl", f"password_file {folder}/passwords", anonymous=False)


def write_password(world, password):
    with open(world.path("password"), "w") as f:
        f.write(password + "\n")
    os.chmod(world.path("password"), 0o600)


@scenario("broker")
def acl(world):
    """Some topics are forbidden: those events are dead with 0x87, the others arrive."""
    broker = passwords(world)
    world.start_watcher(broker, username="reader", password="reader-password")
    write_password(world, "meowbridge-password")
    world.start_bridge(broker.port, config={"mqtt": {"username": "meowbridge", "password_file": world.path("password")}})
    world.bridge.connected()
    world.start_sender(names=["a.b", "forbidden.c", "d", "e"], may_die=lambda name, payload: name == "forbidden.c")
    world.accept(50, 100)
    world.sender.stop()
    world.settle()
    for _ in range(world.bridge.log().count("lost the connection to the broker")):  # Mosquitto closes the connection after each refusal
        world.link_broke()
    world.finish()
    for entry in world.ledger.entries.values():
        if entry.topic.startswith("meowflow/forbidden") and entry.accepted_at and "0x87" not in (entry.reason or ""):
            raise Violation(f"a forbidden event is {entry.reason or 'alive'}")


@scenario("broker")
def wrong_password(world):
    """Refused until the password is right; nothing is lost meanwhile."""
    broker = passwords(world)
    world.start_watcher(broker, username="reader", password="reader-password")
    write_password(world, "wrong")
    world.start_bridge(broker.port, config={"mqtt": {"username": "meowbridge", "password_file": world.path("password")}})
    world.start_sender()
    for _ in range(world.times(1, 2)):
        world.accept(1, 100)
        world.bridge.wait_log("refused")
        write_password(world, "meowbridge-password")
        world.bridge.reload()
        world.bridge.connected()
        world.accept(1, 100)
        write_password(world, "wrong")
        world.bridge.reload()
        world.ledger.broke(256)
        broker.stop(signal.SIGTERM)
        granted = world.watchers[0].granted
        world.counts["broker kills"] += 1
        harness.wait_until(lambda: "lost the connection to the broker" in world.bridge.log(), "the bridge to notice", 60)
        broker.start()
        world.watchers[0].wait_granted(granted)
        write_password(world, "meowbridge-password")
        world.bridge.reload()
    world.finish()


@scenario("broker")
def another_of_the_list(world):
    """The first of two brokers goes away, and the second one; what one has got the other need not."""
    brokers = [world.start_broker(name=name) for name in ("first", "second")]
    for broker in brokers:
        world.start_watcher(broker)
    proxies = [world.start_proxy(broker) for broker in brokers]
    world.start_bridge(*[proxy.port for proxy in proxies])
    world.bridge.connected()
    world.start_sender()
    for _ in range(world.times(2, 4)):
        world.accept(1, 100)
        away = world.rng.choice(proxies)
        away.shut()
        world.link_broke()
        world.accept(1, 100)
        away.open()
    world.finish(ordered=False)  # across two brokers there is none to be seen


@scenario("broker", in_short=False)
def everything_at_once(world):
    """Kills, cuts, stalls and restarts of everything, in any order."""
    broker, proxy, watcher = set_up(world, connections=8, sizes=[None, None, 3000])

    def kill():
        world.kill_bridge()
        world.restart_bridge()

    def terminate():
        world.counts["terminations"] += 1
        if world.bridge.stop(deadline=30) != 0:
            raise Violation(f"it did not stop well:\n{world.bridge.log()[-2000:]}")
        world.restart_bridge()
        world.link_broke()

    def cut():
        proxy.cut(reset=world.rng.random() < 0.5)
        world.link_broke()

    def swallow():
        proxy.swallow(*world.rng.choice([(UP,), (DOWN,), (UP, DOWN)]))
        world.link_broke(times=2)

    def slow_down():
        proxy.rate = world.rng.choice([1000, 20000, None])
        world.link_broke()

    def stall(process):
        world.counts["stalls"] += 1
        world.link_broke(times=2)
        process.send_signal(signal.SIGSTOP)
        world.hold(0, 1.5)
        process.send_signal(signal.SIGCONT)

    def restart_broker():
        granted = watcher.granted
        broker.stop(world.rng.choice([signal.SIGKILL, signal.SIGTERM]))
        world.link_broke(what="broker kills")
        proxy.shut()
        world.hold(0, 0.5)
        broker.start()
        watcher.wait_granted(granted)
        proxy.open()

    troubles = [kill, kill, terminate, cut, cut, swallow, slow_down, restart_broker, lambda: stall(world.bridge.process),
                lambda: stall(broker.process)]
    for _ in range(world.times(4, 8)):
        world.accept(1, 60)
        before = world.ledger.arrived_count
        harness.wait_until(lambda: proxy.rate or world.ledger.arrived_count > before, "events to flow", 90)
        world.rng.choice(troubles)()
    proxy.rate = None
    proxy.swallow()
    world.accept(10)
    world.finish()

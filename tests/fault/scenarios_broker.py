"""What happens to the broker and to the way there."""

import os
import signal
import subprocess

import harness
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
    harness.wait_until(lambda: world.bridge.log().count("lost the connection") > before, "the bridge to notice", 60)


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
        before = world.bridge.log().count("lost the connection")
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
        before = world.bridge.log().count("lost the connection")
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
        before = world.bridge.log().count("lost the connection")
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
        harness.wait_until(lambda: proxy.count() > 0, "the connection", 60)
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
    for _ in range(world.bridge.log().count("lost the connection")):  # Mosquitto closes the connection after each refusal
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
        harness.wait_until(lambda: "lost the connection" in world.bridge.log(), "the bridge to notice", 60)
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

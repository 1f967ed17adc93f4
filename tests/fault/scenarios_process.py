"""What happens to the bridge itself."""

import os
import resource
import signal
import socket

import harness
from registry import scenario
from world import SANITIZED, Skip, Violation


def set_up(world, **sender):
    broker = world.start_broker()
    world.start_watcher(broker)
    world.start_bridge(broker.port)
    world.bridge.connected()
    world.start_sender(**sender)
    return broker


@scenario("process")
def nothing_fails(world):
    """A run in which nothing fails: everything once, in order."""
    set_up(world, connections=8, rate=1000)
    world.accept(300, 1000)
    world.finish()
    if world.ledger.duplicate_count:
        raise Violation(f"{world.ledger.duplicate_count} duplicates, and nothing failed")


@scenario("process")
def bridge_killed(world):
    """SIGKILL under load, also twice in a row and while it recovers."""
    set_up(world)
    for _ in range(world.times(2, 4)):
        world.accept(1, 150)
        world.kill_bridge()
        while world.rng.random() < 0.5:
            world.restart_bridge(wait=False)
            world.hold(0, 0.3 if SANITIZED else 0.06)
            world.kill_bridge()
        world.restart_bridge()
    world.accept(1)
    world.finish()


@scenario("process")
def bridge_killed_with_a_backlog(world):
    """SIGKILL while a backlog is published to a broker that has come back."""
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port, config={"mqtt": {"max_rate": 2000}})
    world.start_sender(connections=8, rate=1500)
    for _ in range(world.times(1, 2)):
        proxy.shut()
        world.link_broke()
        world.accept(200, 800)
        proxy.open()
        harness.wait_until(lambda: proxy.count() > 0, "the bridge to come back")
        world.hold(0, 0.3)
        world.kill_bridge()
        world.restart_bridge()
        world.accept(1)
    world.finish()


@scenario("process")
def bridge_killed_again_and_again_while_it_recovers(world):
    """SIGKILL at any moment of each start on a long log, a dozen times running, with webhooks coming all the while."""
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port)
    world.start_sender(connections=8, rate=1500, sizes=[None, 2000])
    for _ in range(world.times(1, 2)):
        proxy.shut()
        world.link_broke()
        world.accept(300, 800)
        world.kill_bridge()
        for _ in range(world.rng.randint(6, 12)):
            world.restart_bridge(wait=False)
            world.hold(0, 0.5 if SANITIZED else 0.08)
            world.kill_bridge()
            world.counts["kills while starting"] += 1
        proxy.open()
        world.restart_bridge()
        world.accept(1)
    world.finish()


@scenario("process")
def bridge_stopped_and_continued(world):
    """SIGSTOP for seconds."""
    set_up(world)
    for _ in range(world.times(1, 2)):
        world.accept(1, 150)
        world.bridge.process.send_signal(signal.SIGSTOP)
        world.counts["stalls"] += 1
        world.ledger.broke(128)  # the broker may have given it up
        world.hold(0.2, 2 + 4 * (world.scale > 1))
        world.bridge.process.send_signal(signal.SIGCONT)
    world.accept(50)
    world.finish()


@scenario("process")
def sigterm_under_load(world):
    """SIGTERM under load: what it has taken is answered and kept, and nothing comes twice."""
    set_up(world, connections=8, rate=1000)
    for _ in range(world.times(2, 3)):
        world.accept(1, 200)
        status = world.bridge.stop(deadline=30)
        world.counts["terminations"] += 1
        if status != 0:
            raise Violation(f"SIGTERM ended it with {status}:\n{world.bridge.log()[-2000:]}")
        world.restart_bridge()
        world.bridge.connected()
    world.accept(1)
    world.finish()
    if world.ledger.duplicate_count:
        raise Violation(f"{world.ledger.duplicate_count} duplicates, and nothing was in doubt")


@scenario("process")
def out_of_descriptors(world):
    """RLIMIT_NOFILE is used up, and the broker goes away meanwhile."""
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port)
    world.bridge.connected()
    world.start_sender()
    pid = world.bridge.process.pid
    for _ in range(world.times(1, 2)):
        world.accept(1, 100)
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + world.rng.randint(0, 6), before[1]))
        hogs = []
        for _ in range(12):
            hog = socket.socket()
            hog.settimeout(0.2)
            try:
                hog.connect(("127.0.0.1", world.port))
            except OSError:
                pass
            hogs.append(hog)
        world.counts["limits"] += 1
        if world.rng.random() < 0.7:
            proxy.cut(reset=world.rng.random() < 0.5)
            world.link_broke()
        world.hold(0.2, 1.0)
        for hog in hogs:
            hog.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        world.accept(20)
    world.finish()


@scenario("process")
def out_of_memory(world):
    """RLIMIT_AS and RLIMIT_DATA leave little or nothing: requests get 503, the bridge lives on."""
    if SANITIZED:
        raise Skip("a sanitizer's shadow memory does not fit under RLIMIT_AS")
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port)
    world.bridge.connected()
    world.start_sender(connections=24, sizes=[None, 10_000, 100_000, 100_000, 200_000, 700_000], rate=300)
    pid = world.bridge.process.pid
    for _ in range(world.times(1, 3)):
        world.accept(1, 60)
        with open(f"/proc/{pid}/status") as f:
            used = {line.split()[0]: int(line.split()[1]) * 1024 for line in f if line.startswith(("VmSize:", "VmData:"))}
        more = world.rng.choice([0, 0, 0, 1 << 16, 1 << 18, 1 << 20])
        resource.prlimit(pid, resource.RLIMIT_AS, (used["VmSize:"] + more, -1))
        resource.prlimit(pid, resource.RLIMIT_DATA, (used["VmData:"] + more, -1))  # the heaps of threads grow within RLIMIT_AS
        world.counts["limits"] += 1
        world.hold(0, 1)
        if world.rng.random() < 0.5:
            proxy.cut()
            world.link_broke()
        world.hold(0.5, 1.5)
        resource.prlimit(pid, resource.RLIMIT_AS, (-1, -1))
        resource.prlimit(pid, resource.RLIMIT_DATA, (-1, -1))
        world.ledger.broke(128)  # it may have had to give the connection up
        world.accept(20)
    world.finish()

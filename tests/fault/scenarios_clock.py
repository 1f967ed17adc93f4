"""What happens to the machine's clock."""

import mmap
import os
import struct
import subprocess

import harness
from registry import scenario
from world import Skip, Violation

MINUTE, HOUR, DAY = 60, 3600, 86400


class Clock:
    """The wall clock of the bridge, as far off as wanted."""

    def __init__(self, world):
        if b"__tsan_init" in open(harness.BINARY, "rb").read():
            raise Skip("ThreadSanitizer wants no other library before it")
        shim = os.environ.get("MEOWBRIDGE_CLOCK_SHIM")
        if not shim:
            shim = world.path("clock_shim.so")
            source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clock_shim.c")
            try:
                subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", shim, source], check=True, capture_output=True)
            except OSError:
                raise Skip("there is no compiler for the shim that shifts the clock")
        path = world.path("clock")
        with open(path, "wb") as f:
            f.write(bytes(8))
        with open(path, "r+b") as f:
            self._map = mmap.mmap(f.fileno(), 8)
        self.env = {"LD_PRELOAD": shim, "MEOWBRIDGE_CLOCK_FILE": path,
                    "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + " verify_asan_link_order=0"}
        self.offset_s = 0.0

    def set(self, seconds):
        self.offset_s = seconds
        self._map[:] = struct.pack("=q", round(seconds * 1000))


def set_up(world, config=None, **sender):
    clock = Clock(world)
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port, config=config, more_env=clock.env)
    world.bridge.connected()
    world.start_sender(allowed={403}, **sender)
    return clock, proxy


def step(world):
    return world.rng.choice([-1, 1]) * world.rng.choice([world.rng.uniform(0, 4 * MINUTE), 6 * MINUTE, HOUR, DAY, 8 * DAY, 400 * DAY])


@scenario("clock")
def clock_steps(world):
    """The clock steps back and forth by minutes and days, the sender's with it or not; also over a restart."""
    clock, proxy = set_up(world)
    world.sender.clock_offset_s = lambda: clock.offset_s  # both clocks are set by the same hand
    for _ in range(world.times(3, 5)):
        world.accept(1, 80)
        clock.set(step(world))
        world.counts["clock steps"] += 1
        if world.rng.random() < 0.3:
            world.kill_bridge()
            world.restart_bridge()
        world.accept(1, 80)
        if world.rng.random() < 0.5:
            clock.set(0)
            world.counts["clock steps"] += 1
    clock.set(0)
    world.accept(1)
    world.finish()


@scenario("clock")
def clock_is_wrong(world):
    """The bridge's clock alone is wrong: 403 beyond five minutes, and all is well when it is right again."""
    clock, _ = set_up(world)
    for _ in range(world.times(1, 3)):
        world.accept(1, 80)
        clock.set(world.rng.choice([-1, 1]) * world.rng.uniform(0, 4.5 * MINUTE))
        world.accept(1, 80)
        clock.set(world.rng.choice([-1, 1]) * world.rng.choice([6 * MINUTE, HOUR, 8 * DAY]))
        world.counts["clock steps"] += 2
        before = world.sender.statuses[403]
        harness.wait_until(lambda: world.sender.statuses[403] > before + 5, "refusals", 60)
        accepted = world.ledger.accepted_count
        world.hold(0, 0.3)
        if world.ledger.accepted_count > accepted + 4:  # what was under way
            raise Violation("events are accepted whose timestamp is more than five minutes off")
        clock.set(0)
    world.accept(50)
    world.finish()


@scenario("clock")
def pending_events_outlast_retention(world):
    """Events wait for a broker while the clock steps on by more than the retention, over restarts: all arrive."""
    clock, proxy = set_up(world, config={"journal": {"retention": "1d"}})
    world.sender.clock_offset_s = lambda: clock.offset_s
    world.accept(1, 50)
    proxy.shut()
    world.link_broke()
    world.accept(20, 100)
    for _ in range(world.times(1, 2)):
        clock.set(clock.offset_s + world.rng.uniform(1, 40) * DAY)
        world.counts["clock steps"] += 1
        if world.rng.random() < 0.7:
            world.kill_bridge()
            world.restart_bridge()
        world.accept(10)
    proxy.open()
    world.accept(1)
    world.ledger.broke(100)
    world.finish(deduplicates=False)  # a day has passed

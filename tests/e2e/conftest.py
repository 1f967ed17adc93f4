import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import harness  # noqa: E402


@pytest.fixture
def broker(tmp_path):
    broker = harness.Broker(tmp_path / "broker").start()
    yield broker
    broker.stop()


@pytest.fixture
def bridges(tmp_path):
    """A maker of bridges that are stopped at the end, whatever happens; a sanitizer's report fails the test."""
    made = []

    def make(broker=None, folder="bridge", **arguments):
        bridge = harness.Bridge(tmp_path / folder, broker, **arguments)
        made.append(bridge)
        return bridge

    yield make
    for bridge in made:
        status = bridge.stop()
        log = open(bridge.log_path, errors="replace").read() if os.path.exists(bridge.log_path) else ""
        assert "Sanitizer" not in log and "bug:" not in log and "runtime error" not in log, log[-20000:]
        assert status in (None, 0, -9), f"exit status {status}\n{log[-3000:]}"


@pytest.fixture
def subscribers():
    made = []

    def make(port, *filters, **arguments):
        subscriber = harness.Subscriber(port, *filters, **arguments)
        made.append(subscriber)
        return subscriber

    yield make
    for subscriber in made:
        subscriber.close()

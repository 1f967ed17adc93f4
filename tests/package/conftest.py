import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import harness  # noqa: E402


@pytest.fixture
def broker(tmp_path):
    broker = harness.Broker(tmp_path / "broker").start()
    yield broker
    broker.stop()

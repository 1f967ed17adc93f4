"""docs/consumers.md: the Node.js consumer, as it stands there, with MQTT.js of npm."""

import os

import documents
from conftest import bridges, broker  # noqa: F401
from consumer_story import Consumer, live, read_ledger


def test_the_node_consumer_takes_each_event_once(tmp_path, bridges, broker):  # noqa: F811
    os.symlink(os.path.join(documents.NPM, "node_modules"), tmp_path / "node_modules")
    (tmp_path / "consumer.mjs").write_text(documents.block("docs/consumers.md", "consumer.mjs"))
    ledger = tmp_path / "ledger"
    ledger.write_text('{"key":"torn')  # of a crash: not an event, and no reason to fail
    consumer = Consumer(["node", tmp_path / "consumer.mjs", f"mqtt://127.0.0.1:{broker.port}", ledger], tmp_path / "consumer.log")
    live(consumer, lambda: read_ledger(ledger), broker, bridges)

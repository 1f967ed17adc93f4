"""docs/consumers.md: the commands, the Python consumer and the configurations in it, as they stand there, against the real bridge and Mosquitto."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys

import documents
import jinja2
import pytest
from conftest import bridges, broker, subscribers  # noqa: F401
from consumer_story import PAYLOAD, Consumer, live
from harness import DEADLINE, Broker, event, wait_until

PAGE = "docs/consumers.md"


def block(name):
    return documents.block(PAGE, name)


def config(name):
    return json.loads(documents.without_comments(block(name)))


def command(name, port, **replace):
    """A command line of the page, for this test's broker."""
    words = shlex.split(block(name))
    known = {"broker": "127.0.0.1", "1883": str(port), "…": "password", **replace}
    assert {"broker", "1883", "…"} <= set(words)
    return [known.get(word, word) for word in words]


def shell(words, *more):
    done = subprocess.run([*words, *more], capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_consumer_takes_each_event_once(tmp_path, bridges, broker):  # noqa: F811
    (tmp_path / "consumer.py").write_text(block("consumer.py"))
    path = tmp_path / "tasks.db"
    consumer = Consumer([sys.executable, tmp_path / "consumer.py", "127.0.0.1", str(broker.port), path], tmp_path / "consumer.log")

    def effects():
        with sqlite3.connect(path) as db:
            return db.execute("SELECT task, payload FROM tasks ORDER BY rowid").fetchall()

    live(consumer, effects, broker, bridges)


def test_mosquitto_sub_gets_what_came_while_it_was_away_byte_for_byte(bridges, broker):  # noqa: F811
    words = command("mosquitto_sub", broker.port)
    shell(words, "-E")
    bridge = bridges(broker)
    assert bridge.post(event(payload=PAYLOAD, id="987")).status == 200
    topic, properties, payload = shell(words, "-C", "1").split(b"\n", 2)
    assert topic == b"meowflow/workflowTask/completed"
    assert {b"id:987", b"source:https://meowflow.com.cn/apps/12345"} <= set(properties.split(b" "))
    assert payload == PAYLOAD + b"\n"
    # %J is what the page warns of
    shell(words, "-E")
    assert bridge.post(event(payload=b'{"id":152066840347062275}')).status == 200
    assert b"152066840347062275" not in shell([*words[:-1], "%J"], "-C", "1")


@pytest.mark.parametrize("limit, kept", [("max_queued_messages 1000", 1000), ("max_queued_messages 0", 1300)])
def test_mosquitto_keeps_a_thousand_messages_for_who_is_away_unless_told_otherwise(tmp_path, bridges, limit, kept):  # noqa: F811
    assert "max_queued_messages 0" in documents.read("conf/mosquitto/mosquitto.conf")
    broker = Broker(tmp_path / "small", limit).start()  # noqa: F811
    try:
        words = command("mosquitto_sub", broker.port)
        shell(words, "-E")
        bridge = bridges(broker, config={"log": {"level": "info"}})
        bridge.send("--count", 1300, "--connections", 16)
        wait_until(lambda: b'"pending":0' in bridge.get("/api/status").body.replace(b" ", b""), "all of it published")
        words = [*words[:-1], "%p"]
        got = shell(words, "-C", str(kept)).splitlines()
        assert len(set(got)) == kept
        assert bridge.post(event(payload=b'"behind them"')).status == 200
        # It leaves at its last message, perhaps before the PUBACK of that: one or the other may come again, and nothing else.
        after = next(line for line in iter(lambda: shell(words, "-C", "1").strip(), None) if line not in got)
        assert after == b'"behind them"'
    finally:
        broker.stop()


def test_two_workers_share_the_events(bridges, broker):  # noqa: F811
    first, second = command("share", broker.port), command("share", broker.port, worker1="worker2")
    for words in (first, second):
        shell(words, "-E")
    bridge = bridges(broker).connected()
    readers = [subprocess.Popen([*words, "-C", "5"], stdout=subprocess.PIPE) for words in (first, second)]
    try:
        log = lambda: open(broker.log).read()  # noqa: E731
        wait_until(lambda: all(log().count(f"Sending CONNACK to {name}") == 2 for name in ("worker1", "worker2")), "both workers")
        for i in range(10):
            assert bridge.post(event(payload=b"%d" % i)).status == 200
        got = [reader.communicate(timeout=DEADLINE)[0].split() for reader in readers]
        assert sorted(got[0] + got[1]) == [b"%d" % i for i in range(10)]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_the_last_state_is_there_at_once_and_events_are_not_retained(bridges, broker, subscribers):  # noqa: F811
    away = subscribers(broker.port, "#", client_id="before")
    bridge = bridges(broker, config=config("last.json"))
    for payload in (b'{"n":1}', b'{"n":2}'):
        assert bridge.post(event(payload=payload)).status == 200
    wait_until(lambda: sum(m.topic.startswith("meow") and b'"n"' in m.payload for m in away.messages) == 4, "four messages")
    late = subscribers(broker.port, "meowflow/#", "meowflow-last/#", client_id="late")
    (message,) = late.wait(1)
    assert (message.topic, message.payload, message.retain) == ("meowflow-last/workflowTask/completed", b'{"n":2}', True)


def test_devices_on_mqtt_3_get_the_id_and_the_untouched_payload(bridges, broker, subscribers):  # noqa: F811
    device = subscribers(broker.port, "devices/workflowTask/completed", version=3)
    bridge = bridges(broker, config=config("devices.json"))
    assert bridge.post(event(payload=PAYLOAD, id="987")).status == 200
    (message,) = device.wait(1)
    assert b'"data":' + PAYLOAD in message.payload.replace(b'"data": ', b'"data":')
    assert json.loads(message.payload)["id"] == "987"
    (sketch,) = [text for _, language, text in documents.blocks(PAGE) if language == "cpp"]
    assert f'TOPIC[] = "{message.topic}"' in sketch and sketch.count("{") == sketch.count("}")


def test_home_assistant_is_told_of_topics_that_are_and_an_id_that_is_whole(tmp_path, bridges, broker, subscribers):  # noqa: F811
    discovery = json.loads(block("discovery.json"))
    (tmp_path / "discovery.json").write_text(block("discovery.json"))
    words = command("discovery.sh", broker.port)
    subprocess.run(words, cwd=tmp_path, check=True, timeout=DEADLINE)
    bridge = bridges(broker, config=config("home-assistant.json")).connected()
    payload = b'{"id":152066840347062275,"viewStatus":"\\"done\\"","totalPrice":"1.50"}'
    seen = subscribers(broker.port, "#")
    assert bridge.post(event(payload=payload)).status == 200
    wait_until(lambda: any(m.topic.startswith("meowflow/") for m in seen.messages), "the event")
    messages = {m.topic: m for m in seen.messages}
    (found,) = [t for t in messages if t.startswith("homeassistant/")]
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", found) and messages[found].retain
    assert json.loads(messages[found].payload) == discovery

    task, online = discovery["cmps"]["task"], discovery["cmps"]["bridge"]
    status = messages[online["state_topic"]]
    assert (status.payload.decode(), status.retain) == (online["payload_on"], True) and task["availability_topic"] == online["state_topic"]
    message = messages[task["state_topic"]]
    assert (message.payload, message.retain) == (payload, False)
    assert render(task, message.payload) == {"event_type": "completed", "task": "152066840347062275", "status": '"done"', "total_price": "1.50"}
    assert render(task, b'{"id":999999999999999999}') == {"event_type": "completed", "task": "999999999999999999", "status": None,
                                                            "total_price": None}
    assert render(task, payload)["event_type"] in task["event_types"]


def render(entity, payload):
    """As Home Assistant does: value_json is the parsed payload, to_json its own filter; what comes out must be JSON."""
    environment = jinja2.Environment()
    environment.filters["to_json"] = json.dumps
    return json.loads(environment.from_string(entity["value_template"]).render(value_json=json.loads(payload)))


DEBIAN = """pid_file {folder}/mosquitto.pid
persistence true
persistence_location {folder}/
log_dest file {folder}/said.log
include_dir {folder}/conf.d
user root
"""


def test_the_brokers_configuration_works_where_it_says_that_it_belongs_beside_debians_own(tmp_path, bridges):  # noqa: F811
    """Mosquitto takes a second persistence_location, and some others, for a mistake, and does not start."""
    (tmp_path / "conf.d").mkdir()
    ours = documents.read("conf/mosquitto/mosquitto.conf").replace("/etc/mosquitto/meowbridge.acl", os.path.join(documents.ROOT, "conf/mosquitto/acl"))
    for user in ("meowbridge", "consumer"):
        (tmp_path / "passwords").touch()
        subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "passwords"), user, f"{user}-password"], check=True)
    (tmp_path / "bridge-password").write_text("meowbridge-password\n")
    broker = Broker(tmp_path)  # noqa: F811
    ours = ours.replace("/etc/mosquitto/meowbridge.passwords", str(tmp_path / "passwords")).replace("listener 1883", f"listener {broker.port}")
    (tmp_path / "conf.d/meowbridge.conf").write_text(ours)
    with open(broker.config, "w") as f:
        f.write(DEBIAN.format(folder=tmp_path))
    broker.start()
    try:
        bridge = bridges(broker, config={"mqtt": {"username": "meowbridge", "password_file": str(tmp_path / "bridge-password")}}).connected()
        words = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-u", "consumer", "-P", "consumer-password", "-i", "c", "-c", "-q", "1",
                 "-t", "meowflow/#"]
        subprocess.run([*words, "-E"], check=True, timeout=30)
        assert bridge.post(event(payload=b'"through"')).status == 200
        assert subprocess.run([*words, "-C", "1"], check=True, timeout=30, capture_output=True).stdout == b'"through"\n'
    finally:
        broker.stop()

"""contract.md 1: route, healthcheck, events, show and replay, beside a running bridge and without one."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

import harness
from harness import event, free_port, run, wait_until

SECRET = {"MEOWBRIDGE_SECRET": harness.SECRET}


# --- route ---


def test_route_shows_what_is_then_published(bridges, broker, subscribers, tmp_path):
    routes = [{"event": "*.completed", "topics": ["done/{event}/{id}", "app/{appId}"], "qos": 2},
              {"event": "*", "topics": ["all"], "body": "cloudevent", "expiry": "1h"},
              {"event": "other", "topics": ["none"]}]
    bridge = bridges(broker, config={"routes": routes})
    subscriber = subscribers(broker.port, "#")
    body = event(objectId="o 猫")
    done = run("route", "-c", bridge.config_path, stdin=body)
    assert done.returncode == 0, done.stderr
    assert bridge.post(body).status == 200
    subscriber.wait(4)  # and the status topic
    blocks = [b.splitlines() for b in done.stdout.decode().split("\n\n")]
    assert "3 messages over MQTT 5" in blocks[0][0] and json.loads(body)["id"] in blocks[0][0]
    arrived = {m.topic: m for m in subscriber.messages if not m.topic.startswith("meowbridge/")}
    assert len(arrived) == 3 and [b[0] for b in blocks[1:]] == [f"done/workflowTask/completed/{json.loads(body)['id']}", "app/12345", "all"]
    for lines in blocks[1:]:
        message = arrived[lines[0]]
        said = f"QoS {message.qos}, not retained, {len(message.payload)} bytes of {message.content_type}"
        assert lines[1].strip().startswith(said), lines
        assert [tuple(line.split(None, 1)) for line in lines[2:]] == message.properties
    assert "expires after 3600 s" in blocks[3][1]


def test_route_needs_no_secret_and_sends_nothing(tmp_path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"mqtt": {"url": "mqtt://127.0.0.1:1", "version": 3}, "apps": [{"secret_file": "/nowhere"}]}))
    (tmp_path / "body").write_bytes(event())
    done = run("route", "-c", config, tmp_path / "body")
    assert done.returncode == 0 and "MQTT 3.1.1" in done.stdout and "specversion" not in done.stdout
    assert "meowflow/workflowTask/completed" in done.stdout


@pytest.mark.parametrize("body,said", [(b"{}", "400: member id is missing"), (b"nonsense", "400: the body is not JSON"),
                                       (event(event="b"), "no route matches; it is kept as dead")])
def test_route_says_why_a_body_becomes_nothing(body, said, tmp_path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"routes": [{"event": "a", "topics": ["t"]}]}))
    done = run("route", "-c", config, stdin=body)
    assert done.returncode == 1 and said in done.stderr.decode() and not done.stdout


def test_route_prints_nothing_that_a_terminal_would_obey():
    done = run("route", stdin=event(id="\x1b[31m\x9b1", event="a\rb"))
    assert done.returncode == 0 and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", done.stdout)


# --- healthcheck ---


@pytest.mark.parametrize("listen", ["127.0.0.1:{port}", "0.0.0.0:{port}", "[::]:{port}", "unix:{folder}/admin.sock"])
def test_healthcheck_is_0_while_the_bridge_runs_and_1_otherwise(listen, bridges, broker, tmp_path):
    (tmp_path / "token").write_text("t0ken\n")
    listen = listen.format(port=free_port(), folder=tmp_path)
    bridge = bridges(broker, config={"admin": {"listen": listen, "token_file": str(tmp_path / "token")}})
    done = run("healthcheck", "-c", bridge.config_path)
    assert done.returncode == 0, done.stderr
    bridge.stop()
    done = run("healthcheck", "-c", bridge.config_path)
    assert done.returncode == 1 and "does not answer" in done.stderr


def test_healthcheck_gives_a_frozen_bridge_up(bridges, broker):
    bridge = bridges(broker, config={"admin": {"listen": f"127.0.0.1:{free_port()}"}})
    bridge.process.send_signal(signal.SIGSTOP)
    done = run("healthcheck", "-c", bridge.config_path)
    bridge.process.send_signal(signal.SIGCONT)
    assert done.returncode == 1 and "time" in done.stderr

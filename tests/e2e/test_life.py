"""contract.md 2 (SIGHUP, SIGTERM) and 4: starting, reloading, stopping, dying."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time

import harness
from harness import event, run, wait_until
from mqtt_peer import PUBLISH, Publish, ScriptedBroker


class Load(threading.Thread):
    """Pushes events over and over until stopped; knows which were answered 200."""

    def __init__(self, bridge, secret=None):
        super().__init__()
        self.bridge, self.secret = bridge, secret
        self.accepted, self.statuses, self.errors = set(), {}, 0
        self.stopping = threading.Event()
        self.start()

    def run(self):
        connection = None
        while not self.stopping.is_set():
            body = event()
            try:
                connection = connection or self.bridge.connection()
                answer = self.bridge.post(body, connection=connection, secret=self.secret)
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                if answer.status == 200:
                    self.accepted.add(json.loads(body)["id"])
            except (OSError, harness.http.client.HTTPException):
                self.errors += 1
                connection = None
                time.sleep(0.01)  # the listener may be away: do not spin

    def finish(self):
        self.stopping.set()
        self.join()
        return self.accepted


def ids(subscriber):
    return [m.property("id") for m in list(subscriber.messages)]


def test_zero_configuration_works_with_a_secret_alone(tmp_path):
    done = run("check", env={"MEOWBRIDGE_SECRET": "x"}, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["mqtt"]["url"] in ("mqtt://127.0.0.1:1883", ["mqtt://127.0.0.1:1883"])
    missing = run("serve", cwd=tmp_path)
    assert missing.returncode == 2 and "MEOWBRIDGE_SECRET" in missing.stderr


def test_a_reload_changes_secrets_apps_and_routes_and_drops_no_request(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = bridges(broker, env={}, config={"apps": [{"secret": harness.SECRET}], "mqtt": {"status_topic": ""}})
    loads = [Load(bridge) for _ in range(4)]
    for i in range(5):
        bridge.configure({"apps": [{"secret": f"secret-{i}", "previous_secret_file": old_secret(bridge)},
                                   {"path": "/two", "secret": "two"}],
                          "routes": [{"topics": [f"r{i}/{{event}}"]}]})
        bridge.reload()
    assert bridge.post(event(), secret="secret-4").status == 200
    assert bridge.post(event(), secret="secret-3").status == 403
    assert bridge.post(event(), path="/two", secret="two").status == 200
    accepted = set().union(*(load.finish() for load in loads))
    assert all(set(load.statuses) == {200} and load.errors == 0 for load in loads), [(x.statuses, x.errors) for x in loads]
    wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    assert "r4/workflowTask/completed" in {m.topic for m in subscriber.messages}


def old_secret(bridge):
    path = os.path.join(bridge.folder, "old-secret")
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as f:
        f.write(harness.SECRET + "\n")
    return path


def test_a_bad_file_is_refused_whole_and_the_running_configuration_stays(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"secret": harness.SECRET}]})
    bridge.configure({"apps": [{"secret": "new"}], "http": {"thread": 2}})
    bridge.reload()
    assert "http.thread" in bridge.log() and "the configuration is not taken" in bridge.log()
    assert bridge.post(event()).status == 200
    assert bridge.post(event(), secret="new").status == 403


def test_either_secret_verifies_while_one_is_being_changed(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"secret": harness.SECRET}]})
    bridge.configure({"apps": [{"secret": "the new one", "previous_secret_file": old_secret(bridge)}]})
    bridge.reload()
    assert "INFO configuration read again apps=1 routes=1\n" in bridge.log()  # the default route
    assert bridge.post(event(), secret="the new one").status == 200
    assert bridge.post(event(), secret=harness.SECRET).status == 200
    bridge.configure({"apps": [{"secret": "the new one"}]})
    bridge.reload()
    assert bridge.post(event(), secret="the new one").status == 200
    assert bridge.post(event(), secret=harness.SECRET).status == 403


def test_sigterm_under_load_answers_what_it_took_and_loses_nothing(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"log": {"level": "info"}})
    loads = [Load(bridge) for _ in range(16)]
    accepted = set()
    wait_until(lambda: sum(len(x.accepted) for x in loads) > 300, "some load")
    assert bridge.stop() == 0
    for load in loads:
        accepted |= load.finish()
        assert set(load.statuses) <= {200, 503}
    assert "stopped" in bridge.log()
    bridge.start()
    wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    assert len(ids(subscriber)) == len(set(ids(subscriber)))  # nothing was in doubt: no duplicates either


def test_a_body_that_becomes_whole_at_any_moment_of_a_stop_is_answered_or_cut_off(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = bridges(broker)
    bodies = [event() for _ in range(200)]
    waiting = []
    for body in bodies:
        connection = bridge.connection()
        connection.putrequest("POST", "/webhook", skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": bridge.host, "Content-Length": len(body), **harness.sign(body, bridge.host)}.items():
            connection.putheader(name, str(value))
        connection.endheaders(body[:-1])
        waiting.append(connection)
    assert bridge.post(event()).status == 200
    started = time.monotonic()
    bridge.process.send_signal(signal.SIGTERM)
    statuses = []
    for i, (connection, body) in enumerate(zip(waiting, bodies)):
        due = started + 2.9 + 0.8 * i / len(waiting)  # the stop waits 3 s for them, and is over half a second later
        time.sleep(max(0, due - time.monotonic()))
        try:
            connection.send(body[-1:])
            statuses.append(connection.getresponse().status)
        except (OSError, harness.http.client.HTTPException):
            statuses.append(None)
    assert bridge.stop() == 0
    assert set(statuses) <= {200, 503, None}
    bridge.start()
    accepted = {json.loads(body)["id"] for body, status in zip(bodies, statuses) if status == 200}
    wait_until(lambda: accepted <= set(ids(subscriber)), "all that was accepted")


def test_kill_9_under_load_again_and_again_loses_nothing(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"log": {"level": "info"}})
    accepted, rounds = set(), 5
    chance = random.Random(20261124)
    for _ in range(rounds):
        loads = [Load(bridge) for _ in range(8)]
        target = chance.randint(50, 400)
        wait_until(lambda: sum(len(x.accepted) for x in loads) > target, "some load")
        bridge.kill()
        for load in loads:
            accepted |= load.finish()
        bridge.start()
    wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    extra = len(ids(subscriber)) - len(set(ids(subscriber)))
    assert extra <= rounds * (128 + 8 * 40), extra  # published again: what was in flight or not yet recorded
    with sqlite3.connect(f"file:{bridge.config['journal']['path']}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_broker_going_and_coming_under_load_loses_nothing(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "persistence true", f"persistence_location {tmp_path}/broker/").start()
    try:
        subscriber = subscribers(broker.port)
        bridge = bridges(broker, config={"log": {"level": "info"}})
        loads = [Load(bridge) for _ in range(8)]
        for _ in range(3):
            before = sum(len(x.accepted) for x in loads)
            wait_until(lambda: sum(len(x.accepted) for x in loads) > before + 100, "some load")
            broker.stop()
            before = sum(len(x.accepted) for x in loads)
            wait_until(lambda: sum(len(x.accepted) for x in loads) > before + 100, "the ingress going on without a broker")
            broker.start()
        accepted = set().union(*(load.finish() for load in loads))
        assert all(set(load.statuses) == {200} for load in loads)
        wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event", 60)
    finally:
        broker.stop()


def test_stopping_with_the_broker_away_keeps_everything_for_the_next_start(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "persistence true", f"persistence_location {tmp_path}/broker/").start()
    try:
        subscriber = subscribers(broker.port)
        broker.stop()
        bridge = bridges(broker)
        bodies = [event() for _ in range(300)]
        connection = bridge.connection()
        assert {bridge.post(b, connection=connection).status for b in bodies} == {200}
        connection.close()
        started = time.monotonic()
        assert bridge.stop() == 0
        assert time.monotonic() - started < 10
        broker.start()
        bridge.start()
        subscriber.wait(300)
        assert ids(subscriber) == [json.loads(b)["id"] for b in bodies]
    finally:
        broker.stop()


def test_probes_answer_and_say_why_not(bridges, broker):
    bridge = bridges(broker)
    assert bridge.get("/livez").status == 200 and bridge.get("/readyz").status == 200
    assert bridge.get("/readyz", "HEAD").body == b""
    assert bridge.get("/readyz", "POST").status == 405
    assert bridge.get("/webhook").status == 404


def test_a_second_bridge_on_the_same_journal_is_refused(bridges, broker):
    bridge = bridges(broker)
    second = run("serve", "-c", bridge.config_path, env=bridge.env)
    assert second.returncode == 1
    assert str(bridge.process.pid) in second.stderr and "journal" in second.stderr


def test_a_journal_that_cannot_be_used_is_one_sentence_exit_1_and_untouched(tmp_path):
    cases = {"garbage": b"this is no database " * 100, "other": None, "newer": None}
    for name, content in cases.items():
        path = tmp_path / f"{name}.db"
        if content:
            path.write_bytes(content)
        else:
            with sqlite3.connect(path) as database:
                database.execute("create table t(x)")
        before = path.read_bytes()
        done = run("serve", env={"MEOWBRIDGE_SECRET": "x", "MEOWBRIDGE_JOURNAL_PATH": str(path), "MEOWBRIDGE_HTTP_LISTEN": "127.0.0.1:0",
                                 "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0"})
        assert done.returncode == 1 and str(path) in done.stderr, done.stderr
        assert path.read_bytes() == before
        assert sorted(p.name for p in tmp_path.glob(f"{name}.db*") if not p.name.endswith("lock")) == [f"{name}.db"]
    done = run("serve", env={"MEOWBRIDGE_SECRET": "x", "MEOWBRIDGE_JOURNAL_PATH": str(tmp_path / "no" / "such.db"),
                             "MEOWBRIDGE_HTTP_LISTEN": "127.0.0.1:0", "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0"})
    assert done.returncode == 1 and "no/such.db" in done.stderr


def test_an_address_in_use_is_said_in_one_sentence(bridges, broker, tmp_path):
    bridge = bridges(broker)
    done = run("serve", env={"MEOWBRIDGE_SECRET": "x", "MEOWBRIDGE_JOURNAL_PATH": str(tmp_path / "j.db"), "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0",
                             "MEOWBRIDGE_HTTP_LISTEN": f"127.0.0.1:{bridge.port}"})
    assert done.returncode == 1 and f"127.0.0.1:{bridge.port}" in done.stderr and "in use" in done.stderr


def test_no_secret_signature_or_payload_is_in_the_log_or_the_environment(bridges, broker):
    bridge = bridges(broker, config={"log": {"level": "info"}})
    body = event(payload=b'{"private":"do not tell"}')
    headers = harness.sign(body, bridge.host)
    assert bridge.post(body, headers=headers).status == 200
    assert bridge.post(body, secret="wrong").status == 403
    with open(f"/proc/{bridge.process.pid}/environ", "rb") as f:
        assert harness.SECRET.encode() not in f.read()
    with open(f"/proc/{bridge.process.pid}/limits") as f:
        assert [line.split()[4] for line in f if line.startswith("Max core")] == ["0"]
    bridge.stop()
    for text in (harness.SECRET, "do not tell", headers["X-Meowflow-Signature"]):
        assert text not in bridge.log()


def test_with_standard_error_closed_no_log_line_gets_into_another_file(broker, tmp_path):
    port = harness.free_port()
    env = {"PATH": os.environ["PATH"], "MEOWBRIDGE_SECRET": "x", "MEOWBRIDGE_HTTP_LISTEN": f"127.0.0.1:{port}",
           "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0", "MEOWBRIDGE_MQTT_URL": f"mqtt://127.0.0.1:{broker.port}"}
    folder = tmp_path / "closed"
    folder.mkdir()
    bridge = subprocess.Popen(["sh", "-c", 'exec "$0" serve 2>&-', harness.BINARY], env=env, cwd=folder)
    try:
        wait_until(lambda: harness.accepts(port), "the listener")
        written = {path.name for path in folder.iterdir() if b" INFO " in path.read_bytes()}
    finally:
        bridge.terminate()
        status = bridge.wait(harness.DEADLINE)
    assert status == 0 and not written


def test_json_logs_are_one_object_a_line(bridges, broker):
    bridge = bridges(broker, config={"log": {"format": "json"}}, wait=False)
    wait_until(lambda: '"message":"ready"' in bridge.log(), "the bridge")
    bridge.stop()
    lines = [json.loads(line) for line in bridge.log().splitlines()]
    assert {"time", "level", "message"} <= set(lines[0]) and lines[-1]["message"] == "stopped"


def test_json_logs_hold_no_secret_signature_or_payload_and_quote_what_comes_from_outside(bridges, broker):
    port = harness.free_port()
    bridge = bridges(broker, wait=False, config={"log": {"format": "json"}, "http": {"listen": f"127.0.0.1:{port}"},
                                                 "routes": [{"event": "none", "topics": ["t"]}]})
    wait_until(lambda: '"message":"ready"' in bridge.log(), "the bridge")
    connection, signatures = harness.http.client.HTTPConnection("127.0.0.1", port, timeout=harness.DEADLINE), []

    def post(body, secret=harness.SECRET):
        headers = harness.sign(body, f"127.0.0.1:{port}", secret=secret)
        signatures.append(headers["X-Meowflow-Signature"])
        return bridge.post(body, host=f"127.0.0.1:{port}", connection=connection, headers=headers).status

    body = event(payload=b'{"private":"do not tell"}', id='a"\n{')
    assert [post(body), post(body, "wrong"), post(body + b"x")] == [200, 403, 400]
    wait_until(lambda: "an event is dead" in bridge.log(), "the dead event")
    assert bridge.stop() == 0
    lines = [json.loads(line) for line in bridge.log().splitlines()]
    assert any(line["message"] == "an event is dead" and line["id"] == 'a"\n{' for line in lines)
    for text in (harness.SECRET, "do not tell", *signatures):
        assert text not in bridge.log()


def test_room_is_made_by_dropping_published_events_and_refused_when_there_is_none(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker").start()
    try:
        bridge = bridges(broker, config={"journal": {"max_size": "2MiB"}, "log": {"level": "info"}})
        bridge.connected()
        payload = b'"' + b"x" * 20_000 + b'"'
        connection = bridge.connection()
        for _ in range(300):  # three times the room
            wait_until(lambda: bridge.post(event(payload=payload), connection=connection).status == 200, "room")
        broker.stop()
        answers = [bridge.post(event(payload=payload), connection=connection) for _ in range(200)]
        full = [a for a in answers if a.status == 503]
        assert full and "full" in full[0].message and int(full[0].headers["Retry-After"]) >= 1
        assert bridge.get("/readyz").status == 503
        broker.start()
        wait_until(lambda: bridge.post(event(payload=payload), connection=connection).status == 200, "room after publishing")
        wait_until(lambda: bridge.get("/readyz").status == 200, "the bridge to be ready again")
        connection.close()
    finally:
        broker.stop()


def test_stopping_by_ctrl_c_works_like_sigterm(bridges, broker):
    bridge = bridges(broker)
    assert bridge.stop(signal.SIGINT) == 0


def test_a_reload_changes_the_log_level_and_a_bad_file_leaves_all_of_it(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = bridges(broker, env={}, config={"apps": [{"secret": harness.SECRET}], "mqtt": {"status_topic": ""},
                                             "routes": [{"topics": ["first"]}], "log": {"level": "info"}})
    bridge.configure({"apps": [{"secret": harness.SECRET}, {"path": "/two", "secret": "two"}], "log": {"level": "error"}})
    bridge.process.send_signal(signal.SIGHUP)
    wait_until(lambda: bridge.post(event(), path="/two", secret="two").status == 200, "the reload")
    load, good = Load(bridge), dict(bridge.config)
    wait_until(lambda: len(load.accepted) > 20, "some load")
    nothing = os.path.join(bridge.folder, "nothing")
    bad = [json.dumps({**good, "apps": [{"secret": "new"}], "routes": [{"topics": ["a/#"]}], "log": {"level": "info"}}),
           json.dumps({**good, "apps": [{"secret": "new", "path": "/new"}], "routes": [{"topics": ["second"]}], "http": {"thread": 2}}),
           json.dumps({**good, "routes": [{"topics": ["second"]}], "apps": [{"secret_file": nothing}]}),
           json.dumps({**good, "routes": [{"topics": ["second"]}], "log": {"level": "${NO_SUCH_VARIABLE_HERE}"}}), "{", "[]", ""]
    for text in bad:
        with open(bridge.config_path, "w") as f:
            f.write(text)
        before = bridge.log().count("the configuration has a mistake")
        bridge.reload()
        assert bridge.log().count("the configuration has a mistake") > before
    assert bridge.log().count("the configuration is not taken") == len(bad)
    os.remove(bridge.config_path)
    bridge.reload()
    assert bridge.log().count("the configuration is not taken") == len(bad) + 1
    assert bridge.post(event(), path="/new", secret="new").status == 404
    accepted = load.finish()
    assert set(load.statuses) == {200} and load.errors == 0
    wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    assert {m.topic for m in subscriber.messages} == {"first"}
    assert bridge.post(event(), path="/two", secret="two").status == 200
    assert bridge.stop() == 0
    assert "configuration read again" not in bridge.log() and "INFO stopped" not in bridge.log()  # "error" came, and stayed


class Silent(ScriptedBroker):
    """Confirms no event until it is told to; knows what the status topic said."""

    def __init__(self):
        self.confirming, self.status = False, []
        super().__init__(lambda count: 0)

    def handle(self, connection, first, body):
        if first >> 4 == PUBLISH and Publish(first, body).topic.startswith("meowbridge/"):
            self.status.append(Publish(first, body).payload)
        return super().handle(connection, first, body)

    def event(self, connection, publish):
        if self.confirming:
            return super().event(connection, publish)
        self.published.append(publish.topic)
        return True


def test_sigterm_waits_ten_seconds_for_pubacks_that_do_not_come_and_keeps_the_event(bridges):
    silent = Silent()
    bridge = bridges(silent)
    assert bridge.post(event(event="kept")).status == 200
    wait_until(lambda: silent.published == ["meowflow/kept"], "the message in flight")
    port = bridge.port
    started = time.monotonic()
    bridge.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not harness.accepts(port), "the listener to be closed")
    assert bridge.process.poll() is None and time.monotonic() - started < 5
    assert bridge.stop() == 0
    assert 5 < time.monotonic() - started < 11
    assert silent.status[-1] != b"offline"  # nothing was said that might not be so: the will speaks
    silent.confirming = True
    bridge.start()
    wait_until(lambda: silent.published == ["meowflow/kept"] * 2, "the event to come again")
    assert bridge.stop() == 0
    assert "published=1" in bridge.log() and silent.status[-1] == b"offline"
    silent.close()

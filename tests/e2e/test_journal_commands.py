"""contract.md 1: route, healthcheck, events, show and replay, beside a running bridge and without one."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


# --- events, show ---


def events(bridge, *arguments):
    done = run("events", "-c", bridge.config_path, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def states(bridge, *arguments):
    return [e["state"] for e in events(bridge, *arguments)]


ROUTES = [{"event": "good.*", "topics": ["meowflow/{event}"]}, {"event": "cloud.*", "topics": ["cloud"], "body": "cloudevent"}]


def filled(bridges, broker):
    """A bridge with four events: published, dead, published, dead."""
    bridge = bridges(broker, config={"routes": ROUTES}).connected()
    for number, name in enumerate(["good.one", "bad.one", "good.two", "bad.two"], 1):
        assert bridge.post(event(event=name, id=str(number), appId="7" if number == 3 else "12345")).status == 200
    wait_until(lambda: states(bridge) == ["published", "dead", "published", "dead"], "the cursor to be saved")
    return bridge


def test_events_are_listed_as_the_contract_has_them(bridges, broker):
    before = time.time()
    bridge = filled(bridges, broker)
    for runs in (True, False):
        listed = events(bridge)
        assert [e["seq"] for e in listed] == [1, 2, 3, 4]
        assert list(listed[0]) == ["seq", "id", "appId", "webhookId", "event", "objectId", "state", "receivedAt"]
        assert list(listed[1]) == [*listed[0], "reason"] and listed[1]["reason"] == "no route matches"
        assert {k: listed[2][k] for k in ("seq", "id", "appId", "webhookId", "event", "objectId", "state")} == {
            "seq": 3, "id": "3", "appId": "7", "webhookId": "1234567", "event": "good.two", "objectId": "task_123456", "state": "published"}
        received = time.strptime(listed[0]["receivedAt"][:19] + "Z", "%Y-%m-%dT%H:%M:%SZ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", listed[0]["receivedAt"])
        assert abs(time.mktime(received) - time.timezone - before) < 60
        if runs:
            bridge.stop()


def test_events_filter_and_page(bridges, broker):
    bridge = filled(bridges, broker)

    def seqs(*arguments):
        return [e["seq"] for e in events(bridge, *arguments)]

    assert seqs("--state", "dead") == [2, 4] and seqs("--state", "published") == [1, 3] and seqs("--state", "pending") == []
    assert seqs("--event", "good.*") == [1, 3] and seqs("--event", "bad.two") == [4] and seqs("--event", "*.one", "--state", "dead") == [2]
    assert seqs("--app", "7") == [3]
    assert seqs("--limit", 3) == [2, 3, 4] and seqs("--limit", 2, "--before", 3) == [1, 2]
    assert seqs("--since", "1h") == [1, 2, 3, 4] and seqs("--until", "1h") == []
    third = events(bridge)[2]["receivedAt"]
    assert 3 in seqs("--since", third) and 4 not in seqs("--until", third)
    assert seqs("--since", "2100-01-01T00:00:00Z") == []


def test_a_listing_fits_into_80_columns_and_its_columns_stand_still(bridges, broker):
    bridge = bridges(broker, config={"routes": [{"event": "a", "topics": ["t"]}]}).connected()
    bodies = [event(event="e" * 200, id="9" * 300), event(event="喵福禄" * 20), event(event="\x1b[2J\u009b", id="\x1b]0;x\x07"), event()]
    for body in bodies:
        assert bridge.post(body).status == 200
    wait_until(lambda: states(bridge).count("dead") == 4, "the events to be dead")
    done = run("events", "-c", bridge.config_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 2 * 4 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    width = [sum(2 if ord(c) > 0x2e7f else 1 for c in line) for line in lines]
    assert max(width) <= 80
    header = lines[0]
    assert header.split() == ["SEQ", "RECEIVED", "(UTC)", "STATE", "EVENT", "ID"]
    for line, name, identity in ((lines[1], "e" * 21 + "…", "9" * 17 + "…"), (lines[7], "workflowTask.completed", json.loads(bodies[3])["id"])):
        assert line[header.index("STATE"):].startswith("dead ") and line[header.index("EVENT"):].startswith(name)
        assert line[header.index("ID"):] == identity
    assert lines[2] == " " * 9 + "no route matches"


def test_a_reason_is_wrapped_and_not_cut(bridges, broker, tmp_path):
    broker.stop()
    topic = "meowflow/workflowTask/completed/" + "t" * 30
    (tmp_path / "acl").write_text("topic read #\ntopic write meowbridge/#\n")
    with open(broker.config, "a") as f:
        f.write(f"acl_file {tmp_path}/acl\n")
    broker.start()
    bridge = bridges(broker, config={"routes": [{"topics": [topic]}]}).connected()
    assert bridge.post(event()).status == 200
    wait_until(lambda: states(bridge) == ["dead"], "the event to be dead")
    reason, lines = events(bridge)[0]["reason"], run("events", "-c", bridge.config_path).stdout.splitlines()[2:]
    assert len(reason) > 71 and topic in reason and len(lines) > 1
    assert " ".join(line[9:] for line in lines) == reason
    assert all(len(line) <= 80 and line[:9].isspace() and line[9] != " " for line in lines)


def test_colour_is_for_a_terminal_only(bridges, broker):
    import pty

    bridge = filled(bridges, broker)
    assert "\033" not in run("events", "-c", bridge.config_path).stdout

    def on_terminal(**more):
        output = b""
        main, side = pty.openpty()
        process = subprocess.Popen([harness.BINARY, "events", "-c", bridge.config_path], stdout=side, stderr=side,
                                   env={**os.environ, "TERM": "xterm", **more})
        os.close(side)
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                break
            if not part:
                break
            output += part
        os.close(main)
        assert process.wait() == 0
        return output

    assert b"\033[31mdead" in on_terminal() and b"\033" not in on_terminal(NO_COLOR="1") and b"\033" not in on_terminal(TERM="dumb")


def test_looking_needs_no_secret_and_changes_nothing(bridges, broker):
    bridge = filled(bridges, broker)
    bridge.stop()
    del bridge.env["MEOWBRIDGE_SECRET"]
    path = bridge.config["journal"]["path"]
    before = os.stat(path), sorted(os.listdir(bridge.folder))
    assert len(events(bridge)) == 4
    assert run("show", "-c", bridge.config_path, 2).returncode == 0
    after = os.stat(path), sorted(os.listdir(bridge.folder))
    assert (before[0].st_mtime_ns, before[0].st_size, before[1]) == (after[0].st_mtime_ns, after[0].st_size, after[1])


def test_a_journal_that_is_not_there_is_named_and_not_made(tmp_path):
    for command in (["events"], ["show", 1], ["replay", 1], ["replay", "--state", "dead"]):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 1 and "meowbridge.db" in done.stderr and "journal.path" in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []
    (tmp_path / "c.json").write_text('{"journal": false}')
    for command in (["events"], ["show", 1], ["replay", 1]):
        done = run(*command, "-c", "c.json", cwd=tmp_path)
        assert done.returncode == 1 and "there is no journal" in done.stderr


def test_pending_events_are_listed_while_the_broker_is_away(bridges, broker):
    broker.stop()
    bridge = bridges(broker)
    for _ in range(3):
        assert bridge.post(event()).status == 200
    assert states(bridge) == ["pending"] * 3
    broker.start()
    wait_until(lambda: states(bridge) == ["published"] * 3, "the events to be published")


def test_show_shows_an_event_whole(bridges, broker):
    bridge = bridges(broker, config={"routes": ROUTES}).connected()
    body = event(b'{ "n" : 1.50,\n "id" : 152066840347062275 }', event="good.one", id="1", objectId="o/1")
    assert bridge.post(body, headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}).status == 200
    assert bridge.post(event(event="bad.one")).status == 200
    wait_until(lambda: states(bridge) == ["published", "dead"], "the cursor to be saved")
    done = run("show", "-c", bridge.config_path, 1)
    head, shown = done.stdout.split("\n\n", 1)
    fields = dict(line.split(None, 1) for line in head.splitlines())
    assert fields["seq"] == "1" and fields["state"] == "published" and fields["event"] == "good.one" and fields["objectId"] == "o/1"
    assert fields["topics"].startswith("meowflow/good/one (QoS 1, ") and fields["attempts"] == "1" and fields["body"] == f"{len(body)} bytes"
    assert fields["traceparent"].startswith("00-0af") and fields["pushTime"] == "2024-08-31T12:00:00Z" and "receivedAt" in fields
    assert shown.encode() == body + b"\n"
    only = run("show", "-c", bridge.config_path, "--body", 1, stdin=b"")
    assert only.stdout == body
    dead = run("show", "-c", bridge.config_path, 2).stdout
    assert re.search(r"^last error\s+no route matches$", dead, re.M) and re.search(r"^dead since\s+20", dead, re.M)
    whole = json.loads(run("show", "-c", bridge.config_path, "--json", 1).stdout)
    assert whole["body"].encode() == body and whole["payload"] == '{ "n" : 1.50,\n "id" : 152066840347062275 }'
    assert (whole["seq"], whole["state"], whole["attempts"], [m["topic"] for m in whole["messages"]]) == (1, "published", 1, ["meowflow/good/one"])
    whole = json.loads(run("show", "-c", bridge.config_path, "--json", 2).stdout)
    assert whole["reason"] == whole["unroutable"] == "no route matches" and whole["messages"] == [] and whole["diedAt"].startswith("20")
    missing = run("show", "-c", bridge.config_path, 3)
    assert missing.returncode == 1 and "event 3 is not in the journal" in missing.stderr


@pytest.mark.parametrize("arguments", [("events", "--state", "gone"), ("events", "--limit", "0"), ("events", "--since", "soon"), ("events", "x"),
                                       ("show",), ("show", "x"), ("show", "1", "2"), ("replay",), ("replay", "0"), ("replay", "--state", "published"),
                                       ("replay", "1", "--state", "dead"), ("replay", "--until", "1h"), ("replay", "--since", "x")])
def test_bad_usage_is_exit_2(arguments, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"meowbridge {arguments[0]}: ") and not done.stdout


# --- replay ---


def replay(bridge, *arguments):
    return run("replay", "-c", bridge.config_path, *arguments)


def test_a_replay_without_a_bridge_is_published_when_it_starts_and_marked(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = filled(bridges, broker)
    subscriber.wait(3)  # two events and the status
    bridge.stop()
    done = replay(bridge, 1, 2, 2)
    assert done.returncode == 0 and done.stdout.startswith("2 events are queued for publishing again; the bridge is not running"), done.stderr
    assert [(e["seq"], e["state"]) for e in events(bridge)] == [(1, "published"), (3, "published"), (4, "dead"), (5, "pending"), (6, "pending")]
    lines = run("events", "-c", bridge.config_path).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[0] == "5")
    assert " pending " in lines[at] and lines[at + 1] == " " * 9 + "replay of 1" and lines[at + 3] == " " * 9 + "replay of 2"
    assert sum("replay" in line for line in lines) == 2
    received = events(bridge)[0]["receivedAt"]
    assert f"a replay of 1\noriginal     received {received}\n" in run("show", "-c", bridge.config_path, 5).stdout
    bridge.configure({"routes": [{"event": "*", "topics": ["again/{event}"]}]})
    count = subscriber.count()
    bridge.start()
    messages = subscriber.wait(count + 3)[count:]
    again = [m for m in messages if m.topic.startswith("again/")]
    assert [(m.topic, m.property("id"), m.property("replay")) for m in again] == [("again/good/one", "1", "1"), ("again/bad/one", "2", "1")]
    assert bridge.post(event(id="1", event="good.one")).duplicate
    shown = run("show", "-c", bridge.config_path, 2).stdout
    assert "it was dead, and replayed as 6" in shown
    wait_until(lambda: "attempts     2; this is a replay of 2" in run("show", "-c", bridge.config_path, 6).stdout, "6 to be published")


def test_a_replay_that_fails_again_is_dead_again_and_a_structured_cloudevent_says_that_it_is_one(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "cloud")
    bridge = filled(bridges, broker)
    assert bridge.post(event(event="cloud.one")).status == 200
    subscriber.wait(1)
    wait_until(lambda: states(bridge)[-1] == "published", "the last event")
    bridge.stop()
    assert replay(bridge, "--since", "1h").returncode == 0
    bridge.start()
    message = subscriber.wait(2)[1]
    assert json.loads(message.payload)["replay"] == "1" and "replay" not in json.loads(subscriber.messages[0].payload)
    wait_until(lambda: states(bridge) == ["published"] * 4 + ["dead", "published", "dead", "published"], "the replays")
    assert [e["seq"] for e in events(bridge, "--state", "dead")] == [7, 9]


def test_the_expiry_of_a_replay_counts_from_the_replay(bridges, broker, subscribers):
    broker.stop()
    bridge = bridges(broker, config={"routes": [{"event": "*", "topics": ["t"], "expiry": "1s"}]})
    assert bridge.post(event()).status == 200
    accepted = time.monotonic()
    wait_until(lambda: time.monotonic() > accepted + 1.5, "the event to expire")
    broker.start()
    wait_until(lambda: states(bridge) == ["dead"], "the event to be dead")
    assert events(bridge)[0]["reason"] == "expired before it was published"
    subscriber = subscribers(broker.port, "t")  # a broker that restarts forgets who has subscribed
    bridge.stop()
    bridge.configure({"routes": [{"event": "*", "topics": ["t"], "expiry": "1h"}]})
    assert replay(bridge, "--state", "dead").returncode == 0
    bridge.start()
    assert subscriber.wait(1)[0].expiry > 3590
    wait_until(lambda: states(bridge) == ["published"], "the replay")


def dead_rows(bridge):
    journal = sqlite3.connect(f"file:{bridge.config['journal']['path']}?mode=ro", uri=True, timeout=10)
    try:
        return journal.execute("SELECT count(*) FROM dead").fetchone()[0]
    finally:
        journal.close()


def test_a_replay_that_is_killed_leaves_every_event_dead_or_pending_and_none_twice(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "saved")
    bridge = bridges(broker, config={"routes": [{"event": "good", "topics": ["t"]}], "log": {"level": "error"}}, wait=False)
    wait_until(lambda: run("events", "-c", bridge.config_path).returncode == 0, "the journal")
    bridge.stop()
    bridge.configure({"http": {"listen": f"127.0.0.1:{free_port()}"}})
    bridge.start(wait=False)
    url = f"http://{bridge.config['http']['listen']}/webhook"
    bridge.send("--count", 3000, "--connections", 16, "--event", "bad", url=url)
    wait_until(lambda: states(bridge, "--limit", 100000).count("dead") == 3000, "the events to be dead")
    bridge.stop()
    ids = {e["id"] for e in events(bridge, "--limit", 100000)}
    for _ in range(3):
        process = subprocess.Popen([harness.BINARY, "replay", "-c", bridge.config_path, "--state", "dead"], stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        left = dead_rows(bridge)
        wait_until(lambda: dead_rows(bridge) < left or process.poll() is not None, "the replay to be under way")
        process.kill()
        process.wait()
        listed = events(bridge, "--limit", 100000)
        assert {e["id"] for e in listed} == ids and len(listed) == 3000
        assert {e["state"] for e in listed} == {"dead", "pending"}
    assert replay(bridge, "--state", "dead").returncode == 0
    bridge.configure({"routes": [{"event": "*", "topics": ["saved"]}]})
    bridge.start(wait=False)
    messages = subscriber.wait(3000)
    assert {m.property("id") for m in messages} == ids


def test_what_cannot_be_replayed_is_named_and_the_rest_is(bridges, broker):
    bridge = filled(bridges, broker)
    broker.stop()
    assert bridge.post(event(event="good.three")).status == 200
    bridge.stop()
    done = replay(bridge, 1, 5, 99)
    assert done.returncode == 1 and done.stdout.startswith("1 event is queued")
    assert "event 5 is pending" in done.stderr and "event 99 is not in the journal" in done.stderr
    assert replay(bridge, 2).returncode == 0
    again = replay(bridge, 2)
    assert again.returncode == 1 and "was replayed already, as 7" in again.stderr and not again.stdout


def test_a_replay_of_nothing_is_done(bridges, broker):
    bridge = bridges(broker)
    bridge.stop()
    done = replay(bridge, "--state", "dead")
    assert done.returncode == 0 and done.stdout == "0 events are queued for publishing again\n"


class FakeAdmin(BaseHTTPRequestHandler):
    """Stands in for the bridge's admin listener, and keeps what it was asked."""

    requests, status, answer = [], 200, b'{"replayed": 2}'

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, self.headers.get("Content-Type"), self.headers.get("Authorization"), json.loads(body)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def fake_admin():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeAdmin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    FakeAdmin.requests, FakeAdmin.status, FakeAdmin.answer = [], 200, b'{"replayed": 2}'
    yield server
    server.shutdown()
    server.server_close()


def test_a_bridge_that_runs_is_asked_to_replay(bridges, broker, fake_admin, tmp_path):
    bridge = filled(bridges, broker)
    (tmp_path / "token").write_text("t0ken\n")
    config = {**bridge.config, "admin": {"listen": f"127.0.0.1:{fake_admin.server_port}", "token_file": str(tmp_path / "token")}}
    (tmp_path / "c.json").write_text(json.dumps(config))

    def ask(*arguments):
        return run("replay", "-c", tmp_path / "c.json", *arguments)

    done = ask(4, 1)
    assert done.returncode == 0 and done.stdout == "2 events are queued for publishing again\n", done.stderr
    assert FakeAdmin.requests == [("/api/replay", "application/json", "Bearer t0ken", {"seqs": [1, 4]})]
    assert ask("--state", "dead").returncode == 0 and FakeAdmin.requests[1][3] == {"state": "dead"}
    assert ask("--since", "2024-08-31T12:00:00Z", "--until", "2024-08-31T12:00:01.5Z").returncode == 0
    assert FakeAdmin.requests[2][3] == {"since": 1725105600000, "until": 1725105601500}
    FakeAdmin.answer = b'{"replayed": 1}'
    assert ask(1, 4).returncode == 1
    FakeAdmin.status, FakeAdmin.answer = 503, b'{"title": "x", "detail": "the journal is full"}'
    done = ask(1)
    assert done.returncode == 1 and "503" in done.stderr and "the journal is full" in done.stderr
    fake_admin.shutdown()
    fake_admin.server_close()
    done = ask(1)
    assert done.returncode == 1 and "another meowbridge (pid" in done.stderr and "cannot connect" in done.stderr


def test_published_events_go_soon_after_retention_though_nothing_else_comes_and_dead_ones_stay(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"routes": ROUTES, "journal": {"retention": "1s"}}).connected()
    assert [bridge.post(event(event=name)).status for name in ("good.one", "bad.one", "good.two")] == [200] * 3
    subscriber.wait(2)
    wait_until(lambda: states(bridge) == ["dead"], "the published ones to be deleted", 75)

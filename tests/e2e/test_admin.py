"""The admin listener: who may, what it says, and that each number moves for what it names."""

import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import threading
import time

import harness
from harness import DEADLINE, event, free_port, run, wait_until

PASSIVE = {"mqtt": {"url": "mqtt://127.0.0.1:1"}}


def ask(bridge, path, method="GET", body=None, headers=None, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", bridge.admin_port, timeout=DEADLINE)
    try:
        connection.putrequest(method, path, skip_host=host is not None, skip_accept_encoding=True)
        if host is not None:
            connection.putheader("Host", host)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return harness.Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def post(bridge, path, value, **headers):
    return ask(bridge, path, "POST", json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def status(bridge):
    answer = ask(bridge, "/api/status")
    assert answer.status == 200, answer.body
    return answer.json


SAMPLE = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')


def metrics(bridge):
    """Every sample as {"name{labels}": value}."""
    answer = ask(bridge, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().split("\n")
    assert lines.pop() == ""  # the last line ends, too
    samples = {}
    for line in lines:
        if not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            key = f"{name}{{{labels}}}" if labels else name
            assert key not in samples
            samples[key] = float(value)
    return samples


def moved(before, after):
    return {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0) and not k.startswith("process_")}


# --- metrics ---


def test_promtool_has_nothing_to_say_about_the_metrics(bridges, broker):
    bridge = bridges(broker).connected()
    assert bridge.post(event()).status == 200
    text = ask(bridge, "/metrics").body
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert checked.returncode == 0 and not checked.stdout and not checked.stderr, checked.stdout + checked.stderr


def test_every_series_is_there_before_anything_has_happened(bridges):
    bridge = bridges(config=PASSIVE)
    samples = metrics(bridge)
    for name in ('meowbridge_webhook_requests_total{code="200",outcome="accepted"}',
                 'meowbridge_webhook_requests_total{code="403",outcome="bad_signature"}',
                 'meowbridge_webhook_requests_total{code="503",outcome="unavailable"}',
                 "meowbridge_journal_commits_total", "meowbridge_journal_pending_events",
                 "meowbridge_journal_oldest_pending_timestamp_seconds", "meowbridge_journal_dead_events",
                 "meowbridge_mqtt_connected", "meowbridge_mqtt_connects_total", 'meowbridge_mqtt_disconnects_total{reason="closed"}',
                 "meowbridge_mqtt_published_total", "meowbridge_mqtt_unheard_total", "meowbridge_mqtt_inflight_messages",
                 'meowbridge_mqtt_refused_total{reason="not_authorized"}', "meowbridge_events_dead_total",
                 "meowbridge_event_delay_seconds_count", "meowbridge_webhook_request_duration_seconds_count",
                 "meowbridge_journal_commit_duration_seconds_count", "meowbridge_journal_commit_events_count",
                 'meowbridge_webhook_verified_total{app="*",secret="previous"}',
                 'meowbridge_webhook_previous_secret_used_timestamp_seconds{app="*"}'):
        assert samples[name] == 0, name
    assert samples['meowbridge_build_info{version="%s"}' % run("--version").stdout.split()[1]] == 1
    assert samples["meowbridge_journal_size_bytes"] > 0
    assert samples["process_resident_memory_bytes"] > 1 << 20
    assert samples["process_open_fds"] >= 5 and samples["process_max_fds"] > samples["process_open_fds"]
    assert abs(samples["process_start_time_seconds"] - time.time()) < 60
    first = samples["process_cpu_seconds_total"]
    wait_until(lambda: metrics(bridge)["process_cpu_seconds_total"] > first > 0, "CPU time to be spent")


def test_a_published_event_moves_what_it_should_and_nothing_else(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker).connected()
    body = event()
    before = metrics(bridge)
    assert bridge.post(body).status == 200
    subscriber.wait(1)
    wait_until(lambda: metrics(bridge)["meowbridge_events_published_total"] == 1, "the settling")
    after = metrics(bridge)
    changes = {k: v for k, v in moved(before, after).items() if "_bucket" not in k and "_sum" not in k}
    changes.pop("meowbridge_journal_size_bytes", None)
    assert changes == {
        'meowbridge_webhook_requests_total{code="200",outcome="accepted"}': 1,
        "meowbridge_webhook_request_duration_seconds_count": 1,
        "meowbridge_webhook_request_bytes_total": len(body),
        "meowbridge_journal_commits_total": 1,
        "meowbridge_journal_commit_duration_seconds_count": 1,
        "meowbridge_journal_commit_events_count": 1,
        "meowbridge_mqtt_published_total": 1,
        "meowbridge_events_published_total": 1,
        "meowbridge_event_delay_seconds_count": 1,
        'meowbridge_webhook_verified_total{app="*",secret="current"}': 1,
    }
    assert after["meowbridge_journal_commit_events_sum"] == 1
    assert 0 < after["meowbridge_webhook_request_duration_seconds_sum"] < 60
    assert bridge.post(body).duplicate
    assert moved(after, metrics(bridge))['meowbridge_webhook_requests_total{code="200",outcome="duplicate"}'] == 1


def test_each_refusal_is_counted_by_its_outcome(bridges):
    bridge = bridges(config={"http": {"max_body": "2KiB", "timeout": "1s"}, **PASSIVE})

    def answered(status, head):
        with socket.create_connection(("127.0.0.1", bridge.port)) as s:
            s.sendall(head)
            s.settimeout(DEADLINE)
            assert s.recv(4096).startswith(b"HTTP/1.1 %d" % status)

    steps = [
        ('code="403",outcome="bad_signature"', lambda: bridge.post(event(), secret="another")),
        ('code="403",outcome="bad_timestamp"', lambda: bridge.post(event(), timestamp=1725105600000)),
        ('code="400",outcome="malformed"', lambda: bridge.post(b"{")),
        ('code="404",outcome="unknown_path"', lambda: bridge.post(event(), path="/nowhere")),
        ('code="413",outcome="too_large"', lambda: bridge.post(event(payload=b'"%s"' % (b"x" * 4000)))),
        ('code="405",outcome="wrong_method"', lambda: answered(405, b"PUT /webhook HTTP/1.1\r\nHost: x\r\n\r\n")),
        ('code="408",outcome="too_slow"', lambda: answered(408, b"POST /webhook HTTP/1.1\r\nHost: x\r\n")),
        ('code="414",outcome="malformed"', lambda: answered(414, b"POST /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 20000))),
        ('code="431",outcome="malformed"', lambda: answered(431, b"POST / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 20000))),
        ('code="505",outcome="malformed"', lambda: answered(505, b"POST / HTTP/2.0\r\nHost: x\r\n\r\n")),
        ('code="400",outcome="malformed"', lambda: answered(400, b"POST / HTTP/1.1\r\n\r\n")),
    ]
    for labels, step in steps:
        before = metrics(bridge)
        step()
        name = "meowbridge_webhook_requests_total{%s}" % labels
        change = {k: v for k, v in moved(before, metrics(bridge)).items() if k.startswith("meowbridge_webhook_requests_total")}
        assert change == {name: 1}


def test_an_app_that_is_another_and_a_rate_limit_are_told_apart(bridges):
    apps = [{"id": "1", "secret": harness.SECRET, "rate_limit": 1}]
    bridge = bridges(config={"apps": apps, **PASSIVE})
    assert bridge.post(event(appId="2")).status == 403
    assert metrics(bridge)['meowbridge_webhook_requests_total{code="403",outcome="wrong_app"}'] == 1
    wait_until(lambda: bridge.post(event(appId="1")).status == 429, "the rate limit")
    assert metrics(bridge)['meowbridge_webhook_requests_total{code="429",outcome="rate_limited"}'] == 1


def test_which_of_two_secrets_verified_and_when_the_previous_one_last_did(bridges, tmp_path):
    old = tmp_path / "old"
    old.write_text("old-secret\n")
    old.chmod(0o600)
    apps = [{"id": "12345", "secret": harness.SECRET, "previous_secret_file": str(old)}]
    bridge = bridges(config={"apps": apps, **PASSIVE})
    assert bridge.post(event()).status == 200
    assert bridge.post(event(), secret="old-secret").status == 200
    samples = metrics(bridge)
    assert samples['meowbridge_webhook_verified_total{app="12345",secret="current"}'] == 1
    assert samples['meowbridge_webhook_verified_total{app="12345",secret="previous"}'] == 1
    assert abs(samples['meowbridge_webhook_previous_secret_used_timestamp_seconds{app="12345"}'] - time.time()) < 60


def test_what_waits_for_a_broker_is_seen_and_so_are_its_coming_and_going(bridges, broker):
    bridge = bridges(broker).connected()
    assert metrics(bridge)["meowbridge_mqtt_connected"] == 1
    broker.stop()
    wait_until(lambda: metrics(bridge)["meowbridge_mqtt_connected"] == 0, "the loss")
    wait_until(lambda: metrics(bridge)['meowbridge_mqtt_connect_failures_total{reason="unreachable"}'] > 0, "an attempt")
    assert sum(v for k, v in metrics(bridge).items() if k.startswith("meowbridge_mqtt_disconnects_total")) == 1
    begun = time.time()
    for _ in range(3):
        assert bridge.post(event()).status == 200
    samples = metrics(bridge)
    assert samples["meowbridge_journal_pending_events"] == 3
    assert begun - 1 < samples["meowbridge_journal_oldest_pending_timestamp_seconds"] < time.time() + 1
    said = status(bridge)
    assert said["ready"] and said["journal"]["pending"] == 3 and not said["broker"]["connected"] and said["broker"]["lastError"]
    assert bridge.stop() == 0
    bridge.start()  # the oldest one's age is known before anything is read from the journal
    assert abs(metrics(bridge)["meowbridge_journal_oldest_pending_timestamp_seconds"]
               - samples["meowbridge_journal_oldest_pending_timestamp_seconds"]) < 0.001
    broker.start()
    wait_until(lambda: metrics(bridge)["meowbridge_journal_pending_events"] == 0, "the settling")
    after = metrics(bridge)
    assert after["meowbridge_journal_oldest_pending_timestamp_seconds"] == 0
    assert after["meowbridge_mqtt_connects_total"] == 1
    assert after["meowbridge_event_delay_seconds_count"] == 3


def test_unheard_and_dead_events_are_counted_with_their_reason(bridges, broker):
    routes = [{"event": "heard.*", "topics": ["x/{event}"]}, {"event": "unheard.*", "topics": ["x/{event}"], "unheard": "dead"}]
    bridge = bridges(broker, config={"routes": routes}).connected()
    for name in ("heard.a", "unheard.a", "neither.a"):
        assert bridge.post(event(event=name)).status == 200
    wait_until(lambda: metrics(bridge)["meowbridge_journal_dead_events"] == 2, "the burials")
    samples = metrics(bridge)
    assert samples["meowbridge_events_dead_total"] == 2 and samples["meowbridge_events_published_total"] == 1
    assert samples["meowbridge_mqtt_unheard_total"] == 2
    assert samples['meowbridge_mqtt_refused_total{reason="unheard"}'] == 1
    assert samples['meowbridge_mqtt_refused_total{reason="no_route"}'] == 1


# --- who may ---


def token_bridge(bridges, tmp_path, **admin):
    token = tmp_path / "token"
    token.write_text("right-token\n")
    token.chmod(0o600)
    return bridges(config={"admin": {"listen": "0.0.0.0:0", "token_file": str(token), **admin}, **PASSIVE})


GUARDED = ["/", "/metrics", "/api/status", "/api/events", "/api/events/1", "/api/stream", "/nothing"]


def test_off_loopback_all_but_the_probes_need_the_token(bridges, tmp_path):
    bridge = token_bridge(bridges, tmp_path)
    for path in ("/livez", "/readyz", "/readyz?verbose", "/healthz"):
        assert ask(bridge, path).status == 200
        assert ask(bridge, path, host="bridge.example.com").status == 200
    for wrong in (None, "Bearer wrong-token", "Bearer right-toke", "Bearer right-tokenx", "Basic cmlnaHQtdG9rZW4=", "Bearer", ""):
        for path in GUARDED:
            answer = ask(bridge, path, headers={"Authorization": wrong} if wrong is not None else None)
            assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer"), (path, wrong)
            assert b"right-token" not in answer.body
            if path != "/":
                assert answer.headers["Content-Type"] == "application/problem+json" and answer.json["status"] == 401
        assert ask(bridge, "/api/replay", "POST", b"{}", {"Content-Type": "application/json"}).status == 401
    assert ask(bridge, "/api/status", headers={"Authorization": "Bearer right-token"}).status == 200
    assert ask(bridge, "/metrics", headers={"Authorization": "bearer right-token"}, host="bridge.example.com").status == 200
    assert "right-token" not in bridge.log()


def test_the_page_asks_for_the_token_with_its_401(bridges, tmp_path):
    answer = ask(token_bridge(bridges, tmp_path), "/")
    assert answer.status == 401 and answer.headers["Content-Type"].startswith("text/html") and b'id="token"' in answer.body


def test_a_token_is_asked_for_on_loopback_too_where_there_is_one(bridges, tmp_path):
    bridge = token_bridge(bridges, tmp_path, listen="127.0.0.1:0")
    assert ask(bridge, "/api/status").status == 401
    assert ask(bridge, "/livez").status == 200


def test_a_reload_changes_the_token(bridges, tmp_path):
    bridge = token_bridge(bridges, tmp_path)
    (tmp_path / "token").write_text("new-token\n")
    bridge.reload()
    assert ask(bridge, "/api/status", headers={"Authorization": "Bearer right-token"}).status == 401
    assert ask(bridge, "/api/status", headers={"Authorization": "Bearer new-token"}).status == 200


def test_a_name_that_was_made_to_point_here_is_refused(bridges):
    bridge = bridges(config=PASSIVE)
    port = bridge.admin_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "[::1].evil.example:80x", "127.0.0.1x"):
        for path in GUARDED:
            assert ask(bridge, path, host=host).status == 421, (host, path)
        assert ask(bridge, "/livez", host=host).status == 200
    for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost", f"LocalHost:{port}", "[::1]", f"[::1]:{port}", "192.0.2.7:80"):
        assert ask(bridge, "/api/status", host=host).status == 200, host


def test_a_forged_post_is_refused(bridges):
    bridge = bridges(config=PASSIVE)
    own = f"http://127.0.0.1:{bridge.admin_port}"
    for origin in ("http://evil.example", "null", own.replace("http", "ftp"), own + ".evil.example", own + "0", "", f"http://127.0.0.1:{bridge.port}"):
        assert post(bridge, "/api/replay", {"state": "dead"}, Origin=origin).status == 403, origin
    assert post(bridge, "/api/replay", {"state": "dead"}, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
        assert ask(bridge, "/api/replay", "POST", b'{"state":"dead"}', {"Content-Type": kind}).status == 415, kind
    assert ask(bridge, "/api/replay", "POST", b'{"state":"dead"}').status == 415
    for headers in ({}, {"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        assert post(bridge, "/api/replay", {"state": "dead"}, **headers).status == 200


# --- HTTP ---


def test_methods_and_paths_that_are_not_served_are_named(bridges):
    bridge = bridges(config=PASSIVE)
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/status", "/api/events", "/api/events/1", "/api/stream"):
        for method in ("DELETE", "PUT", "OPTIONS", "PATCH"):
            answer = ask(bridge, path, method)
            assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD" and answer.json["title"] == "Method Not Allowed"
    answer = ask(bridge, "/api/replay")
    assert answer.status == 405 and answer.headers["Allow"] == "POST"
    for path in ("/nothing", "/livez/", "/api", "/api/events/", "/api/events/x", "/api/events/0", "/api/events/1/", "/%6civez", "//livez"):
        answer = ask(bridge, path)
        assert answer.status == 404 and answer.headers["Content-Type"] == "application/problem+json" and answer.json["status"] == 404, path
    assert ask(bridge, "/api/replay", "POST", b" " * 70000, {"Content-Type": "application/json"}).status == 413


def test_head_is_get_without_a_body(bridges):
    bridge = bridges(config=PASSIVE)
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/status", "/api/events", "/api/stream"):
        answer = ask(bridge, path, "HEAD")
        assert answer.status == 200 and answer.body == b"", path
        assert answer.headers["Content-Type"] == ask_head(bridge, path), path


def ask_head(bridge, path):
    with socket.create_connection(("127.0.0.1", bridge.admin_port), DEADLINE) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
    return re.search(rb"Content-Type: ([^\r]*)", head).group(1).decode()


def test_every_answer_forbids_what_it_does_not_need(bridges):
    bridge = bridges(config=PASSIVE)
    for path in ("/", "/livez", "/metrics", "/api/status", "/api/events", "/api/events/99", "/nothing"):
        headers = ask(bridge, path).headers
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY" and headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "Access-Control-Allow-Origin" not in headers


def test_the_page_loads_nothing_from_elsewhere_and_its_nonce_is_new_each_time(bridges):
    bridge = bridges(config=PASSIVE)
    first, second = ask(bridge, "/"), ask(bridge, "/")
    nonces = [re.search(r"script-src 'nonce-([0-9a-f]{32})'", a.headers["Content-Security-Policy"]).group(1) for a in (first, second)]
    assert nonces[0] != nonces[1]
    text = first.body.decode()
    assert f'<script nonce="{nonces[0]}">' in text and "@NONCE@" not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"\s(on\w+|style)=[\"']", text)
    assert "innerHTML" not in text and "document.write" not in text and "eval(" not in text


def test_what_is_not_ready_is_said(bridges):
    bridge = bridges(config={"journal": False, **PASSIVE})
    answer = ask(bridge, "/readyz")
    assert answer.status == 503 and b"\nbroker: " in answer.body
    verbose = ask(bridge, "/readyz?verbose")
    assert verbose.status == 503 and b"[+]running ok" in verbose.body and b"[-]broker failed: " in verbose.body
    assert verbose.body.endswith(b"readyz check failed\n")
    assert ask(bridge, "/livez").status == 200
    said = status(bridge)
    assert said["ready"] is False and said["reasons"][1].startswith("broker: ") and said["journal"]["path"] is None
    assert ask(bridge, "/api/events").status == 404


def test_a_broker_that_is_away_is_told_but_does_not_count_with_a_journal(bridges):
    bridge = bridges(config=PASSIVE)
    bridge.wait_log("cannot connect to the broker")
    verbose = ask(bridge, "/readyz?verbose")
    assert verbose.status == 200 and b"[-]broker failed: " in verbose.body and verbose.body.endswith(b"readyz check passed\n")


# --- status ---


def test_status_says_what_happened(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker).connected()
    for i in range(5):
        assert bridge.post(event(id=f"s-{i}")).status == 200
    assert bridge.post(event(id="s-0")).duplicate
    assert bridge.post(event(), secret="wrong").status == 403
    subscriber.wait(5)
    said = wait_until(lambda: (s := status(bridge))["counts"]["published"] == 5 and s["history"][-1]["published"] == 5 and s, "the counts")
    assert said["version"] == run("--version").stdout.split()[1]
    assert said["ready"] is True and said["reasons"] == []
    assert said["broker"]["connected"] is True and said["broker"]["url"] == f"mqtt://127.0.0.1:{broker.port}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["broker"]["since"])
    journal = said["journal"]
    assert (journal["pending"], journal["dead"], journal["lastSeq"], journal["cursor"]) == (0, 0, 5, 5)
    assert journal["oldestPendingAt"] is None and journal["bytes"] > 0 and journal["path"].endswith(".db")
    counts = said["counts"]
    assert (counts["accepted"], counts["duplicates"], counts["refused"], counts["refusedBy"]["badSignature"]) == (5, 1, 1, 1)
    minute = said["history"][-1]
    assert (minute["accepted"], minute["published"], minute["refused"]) == (5, 5, 1)
    assert 0 <= minute["delay"]["p50"] <= minute["delay"]["p95"] <= minute["delay"]["p99"] < 60
    assert said["rates"]["1m"]["accepted"] > 0 and said["rates"]["5m"]["refused"] > 0
    assert harness.SECRET not in json.dumps(said)


def test_the_status_command_says_it_on_80_columns(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    port = free_port()
    bridge = bridges(broker, config={"admin": {"listen": f"127.0.0.1:{port}"}}, start=False)
    away = run("status", "-c", bridge.config_path)
    assert away.returncode == 1 and "not running: " in away.stderr
    away = run("status", env={"MEOWBRIDGE_ADMIN_LISTEN": f"127.0.0.1:{port}"})
    assert away.returncode == 1 and "perhaps it is not running, or admin.listen is another: -c FILE: " in away.stderr
    bridge.start().connected()
    assert bridge.post(event()).status == 200
    subscriber.wait(1)
    wait_until(lambda: status(bridge)["counts"]["published"] == 1, "the settling")
    said = run("status", "-c", bridge.config_path)
    assert said.returncode == 0, said.stderr
    assert "ready" in said.stdout and "connected" in said.stdout and "0 pending, 0 dead" in said.stdout and "published 1" in said.stdout
    assert re.search(r"^ +mqtt://127.0.0.1:\d+, client id meowbridge-[0-9a-f]{12}$", said.stdout, re.M), said.stdout
    assert re.search(r"^since start accepted 1, ", said.stdout, re.M)
    assert re.search(r"^latency +from 200 to PUBACK: median under [\d.]+ m?s, p99 under [\d.]+ m?s$", said.stdout, re.M), said.stdout
    assert all(len(line) <= 80 for line in said.stdout.split("\n")) and "\033" not in said.stdout
    assert json.loads(run("status", "--json", "-c", bridge.config_path).stdout)["counts"]["published"] == 1


def test_the_status_command_fails_where_the_bridge_is_not_ready_or_the_token_is_wrong(bridges, tmp_path):
    port = free_port()
    bridge = bridges(config={"admin": {"listen": f"127.0.0.1:{port}"}, "journal": False, **PASSIVE})
    said = run("status", "-c", bridge.config_path)
    assert said.returncode == 1 and "NOT READY" in said.stdout and "broker: " in said.stdout
    assert run("status", "--json", "-c", bridge.config_path).returncode == 1


def test_the_status_command_names_each_cause_whole_and_what_helps(bridges, broker):
    bridge = bridges(broker, config={"admin": {"listen": f"127.0.0.1:{free_port()}"}, "routes": [{"event": "never"}]}).connected()
    assert "\nrefused " not in run("status", "-c", bridge.config_path).stdout
    assert bridge.post(event()).status == 200
    assert bridge.post(event(), secret="wrong").status == 403
    wait_until(lambda: status(bridge)["journal"]["dead"] == 1, "the dead event")
    broker.stop()
    trouble = wait_until(lambda: (t := status(bridge)["broker"]["trouble"]) and "Connection refused" in t and t, "the trouble")
    said = run("status", "-c", bridge.config_path).stdout
    assert trouble in " ".join(said.split()) and trouble.count(str(broker.port)) == 1
    assert f"1 dead\n            why: meowbridge events --state dead -c {bridge.config_path}\n" in said
    assert f"refused     1 wrong signature (403)\n            why: meowbridge explain -c {bridge.config_path}\n" in said
    assert all(len(line) <= 80 for line in said.split("\n") if " -c " not in line)
    odd = f"{bridge.folder}/it's odd.json"
    os.link(bridge.config_path, odd)
    hint = re.search(r"why: (meowbridge events .*)", run("status", "-c", odd).stdout).group(1)
    assert shlex.split(hint) == ["meowbridge", "events", "--state", "dead", "-c", odd]
    by_variable = run("status", env={"MEOWBRIDGE_ADMIN_LISTEN": bridge.config["admin"]["listen"]}).stdout
    assert "            why: meowbridge events --state dead\n" in by_variable
    assert 'detail="another secret, or host, path or body changed on the way: ask meowbridge explain"' in bridge.log()


# --- the stream ---


class Stream:
    """Reads /api/stream in a thread: a list of (kind, value)."""

    def __init__(self, bridge, query=""):
        self.messages = []
        self.socket = socket.create_connection(("127.0.0.1", bridge.admin_port), DEADLINE)
        self.socket.sendall(f"GET /api/stream{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.answer = http.client.HTTPResponse(self.socket)
        self.answer.begin()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        kind = None
        try:
            while line := self.answer.readline():
                if line.startswith(b"event: "):
                    kind = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.messages.append((kind, json.loads(line[6:])))
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def values(self, kind):
        return [v for k, v in list(self.messages) if k == kind]

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE)
        self.answer.close()
        self.socket.close()


def test_the_stream_tells_the_status_each_second_and_each_event_as_it_comes_and_changes(bridges, broker, subscribers):
    subscribers(broker.port)
    bridge = bridges(broker).connected()
    assert bridge.post(event(id="before")).status == 200
    stream = Stream(bridge)
    assert stream.answer.status == 200 and stream.answer.headers["Content-Type"] == "text/event-stream"
    wait_until(lambda: len(stream.values("status")) >= 2, "two statuses")
    assert "history" not in stream.values("status")[0]
    broker.stop()
    wait_until(lambda: stream.values("status")[-1]["broker"]["connected"] is False, "the loss")
    assert bridge.post(event(id="one", event="a.b")).status == 200
    wait_until(lambda: stream.values("event"), "the event")
    assert stream.values("event")[0]["id"] == "one" and stream.values("event")[0]["state"] == "pending"
    broker.start()
    wait_until(lambda: stream.values("event")[-1]["state"] == "published", "the change")
    assert {e["id"] for e in stream.values("event")} == {"one"}
    stream.close()


def test_a_stream_can_be_filtered(bridges):
    bridge = bridges(config={"apps": [{"secret": harness.SECRET}], **PASSIVE})
    by_name, by_app = Stream(bridge, "?event=wanted.%2A"), Stream(bridge, "?app=2")
    for s in (by_name, by_app):
        wait_until(lambda: s.values("status"), "the stream")
    for name, app in (("wanted.a", "1"), ("other.a", "2"), ("wanted.b", "2"), ("other.b", "1")):
        assert bridge.post(event(event=name, appId=app)).status == 200
    wait_until(lambda: len(by_name.values("event")) >= 2 and len(by_app.values("event")) >= 2, "the events")
    assert [e["event"] for e in by_name.values("event")] == ["wanted.a", "wanted.b"]
    assert [e["event"] for e in by_app.values("event")] == ["other.a", "wanted.b"]
    by_name.close()
    by_app.close()


def test_streams_are_few_and_give_their_place_back(bridges):
    bridge = bridges(config=PASSIVE)
    streams = [Stream(bridge) for _ in range(8)]
    assert all(s.answer.status == 200 for s in streams)
    refused = ask(bridge, "/api/stream")
    assert refused.status == 503 and "at most 8" in refused.json["detail"] and refused.headers["Retry-After"]
    streams.pop().close()

    def again():
        stream = Stream(bridge)
        if stream.answer.status == 200:
            streams.append(stream)
        return stream.answer.status == 200

    wait_until(again, "the place to be free")
    assert bridge.stop() == 0  # with streams open
    for stream in streams:
        stream.close()


def test_streams_hold_nothing_up_while_thousands_of_events_come(bridges, broker):
    bridge = bridges(broker).connected()
    idle = socket.create_connection(("127.0.0.1", bridge.admin_port), DEADLINE)
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    idle.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and never reads
    stream = Stream(bridge)
    bridge.send("--count", 3000, "--connections", 8)
    wait_until(lambda: stream.values("status") and stream.values("status")[-1]["counts"]["published"] >= 3000, "the publishing")
    newest = stream.values("status")[-1]["journal"]["lastSeq"]
    wait_until(lambda: any(e["seq"] == newest for e in stream.values("event")), "the newest event")
    stream.close()
    idle.close()


# --- events ---


def test_events_are_listed_filtered_and_paged(bridges, broker):
    bridge = bridges(broker, config={"apps": [{"secret": harness.SECRET}], "routes": [{"event": "a.*", "topics": ["a/{id}"]}]}).connected()
    for i in range(25):
        assert bridge.post(event(id=f"e-{i}", event="a.b" if i % 5 else "dead.x", appId=str(i % 2))).status == 200
    wait_until(lambda: metrics(bridge)["meowbridge_journal_dead_events"] == 5 and metrics(bridge)["meowbridge_journal_pending_events"] == 0, "the settling")
    wait_until(lambda: not ask(bridge, "/api/events?state=pending").json["events"], "the cursor on disk")

    def pages(query):
        found, before = [], None
        while True:
            answer = ask(bridge, f"/api/events?{query}" + (f"&before={before}" if before else ""))
            assert answer.status == 200, answer.body
            found += answer.json["events"]
            before = answer.json["next"]
            if not before:
                return found

    assert [e["seq"] for e in pages("limit=7")] == list(range(25, 0, -1))
    dead = pages("state=dead&limit=2")
    assert [e["id"] for e in dead] == ["e-20", "e-15", "e-10", "e-5", "e-0"] and all(e["reason"] for e in dead)
    assert len(pages("event=a.*")) == 20 and len(pages("app=1&limit=3")) == 12 and len(pages("event=a.*&app=0&state=published")) == 10
    assert [e["seq"] for e in pages("after=20&before=24&limit=200")] == [23, 22, 21]
    first = dead[0]
    assert set(first) >= {"seq", "id", "appId", "webhookId", "event", "objectId", "state", "receivedAt", "reason"}
    for wrong in ("limit=0", "limit=201", "limit=x", "state=nothing", "since=yesterday", "before=-1", "event=%zz"):
        answer = ask(bridge, f"/api/events?{wrong}")
        assert answer.status == 400 and answer.headers["Content-Type"] == "application/problem+json", wrong


def test_events_are_bounded_in_time(bridges):
    bridge = bridges(config=PASSIVE)
    assert bridge.post(event(id="1")).status == 200
    (stored,) = ask(bridge, "/api/events").json["events"]
    moment = stored["receivedAt"]
    for query, count in ((f"since={moment}", 1), (f"until={moment}", 0), ("since=2020-01-01T08:00:00%2B08:00", 1), ("until=2020-01-01T00:00:00Z", 0),
                         ("since=1577836800000&until=2999-01-01T00:00:00Z", 1)):
        assert len(ask(bridge, f"/api/events?{query}").json["events"]) == count, query


def test_a_hostile_event_stays_inside_its_string_everywhere(bridges):
    bridge = bridges(config=PASSIVE)
    stream = Stream(bridge)
    wait_until(lambda: stream.values("status"), "the stream")
    name = 'x\n\nevent: status\ndata: {}\r\n\u2028</script>"\\\u0085\x1b[31m\u202e'
    assert bridge.post(event(event=name, appId='"} 1\nmeowbridge_fake 1\n', id="<i>", payload=b'"\\n\\ndata: {}</script>"')).status == 200
    wait_until(lambda: stream.values("event"), "the event")
    assert [e["event"] for e in stream.values("event")] == [name]
    assert all("ready" in s for s in stream.values("status"))  # none of them is the event's
    stream.close()
    listed, whole = ask(bridge, "/api/events"), ask(bridge, "/api/events/1")
    assert listed.json["events"][0]["event"] == whole.json["event"] == name and whole.json["id"] == "<i>"
    assert not any("fake" in k or "x" == k for k in metrics(bridge))
    shown = run("events", "-c", bridge.config_path)
    assert shown.returncode == 0 and "\x1b" not in shown.stdout and len(shown.stdout.splitlines()) == 2


def test_one_event_is_shown_whole_and_its_digits_are_untouched(bridges):
    bridge = bridges(config=PASSIVE)
    payload = b'{"id":152066840347062275,"price":1.50,"e":1E400,"t":"\\u55b5 \xe5\x96\xb5","a":[ 1,-0 ]}'
    assert bridge.post(event(id="7", payload=payload, event="w.<b>x", objectId="o")).status == 200
    whole = ask(bridge, "/api/events/1").json
    assert whole["payload"] == payload.decode() and whole["payloadBytes"] == len(payload) and whole["attempts"] == 0
    assert (whole["seq"], whole["id"], whole["event"], whole["state"], whole["objectId"]) == (1, "7", "w.<b>x", "pending", "o")
    assert [m["topic"] for m in whole["messages"]] == ["meowflow/w/<b>x"] and whole["messages"][0]["qos"] == 1
    assert json.loads(whole["body"])["pushTime"] == whole["pushTime"]
    missing = ask(bridge, "/api/events/99")
    assert missing.status == 404 and "99" in missing.json["detail"]


def test_a_dead_event_is_replayed(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    routes = [{"event": "a.*", "topics": ["meowflow/a"]}]
    bridge = bridges(broker, config={"routes": routes}).connected()
    for i in range(3):
        assert bridge.post(event(id=f"r-{i}", event="b.c")).status == 200
    wait_until(lambda: status(bridge)["journal"]["dead"] == 3, "the burials")
    bridge.configure({"routes": [{"event": "*", "topics": ["meowflow/{id}"]}]})
    bridge.reload()
    answer = post(bridge, "/api/replay", {"seqs": [2, 999]})
    assert answer.status == 200 and answer.json == {"replayed": 1, "asked": 2}
    (message,) = subscriber.wait(1)
    assert message.topic == "meowflow/r-1" and message.property("replay") == "1"
    assert post(bridge, "/api/replay", {"state": "dead"}).json == {"replayed": 2, "asked": None}
    subscriber.wait(3)
    wait_until(lambda: status(bridge)["journal"]["dead"] == 0, "the dead to be gone")
    assert metrics(bridge)["meowbridge_events_replayed_total"] == 3
    assert post(bridge, "/api/replay", {"since": "2020-01-01T00:00:00Z"}).json["replayed"] == 3  # what was published
    for wrong in ({}, {"seqs": []}, {"seqs": ["1"]}, {"seqs": [1.5]}, {"state": "published"}, {"seqs": [1], "state": "dead"}, {"until": 5},
                  {"since": "soon"}, {"other": 1}, [], 7):
        assert post(bridge, "/api/replay", wrong).status == 400, wrong


def test_the_replay_command_goes_through_the_bridge_that_runs(bridges, broker):
    bridge = bridges(broker, config={"admin": {"listen": f"127.0.0.1:{free_port()}"}}).connected()
    for _ in range(3):
        assert bridge.post(event()).status == 200
    wait_until(lambda: not ask(bridge, "/api/events?state=pending").json["events"], "the publishing")
    for arguments in (["1", "3"], ["--since", "1h"], ["--since", "30000d"]):
        done = run("replay", "-c", bridge.config_path, *arguments)
        assert done.returncode == 0, done.stderr
    assert metrics(bridge)["meowbridge_events_replayed_total"] >= 2 + 3 + 3

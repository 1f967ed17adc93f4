"""contract.md 1: check, sign, send, and what the program says of itself."""

import json
import os
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import harness
from harness import event, run, sign

SECRET = {"MEOWBRIDGE_SECRET": harness.SECRET}
VECTORS = os.path.join(os.path.dirname(__file__), "../vectors/signature.json")


def test_help_and_version_work_for_the_program_and_every_command():
    version = run("--version")
    assert version.returncode == 0 and re.match(r"meowbridge \d+\.\d+\.\d+\n", version.stdout)
    overview = run("--help")
    assert overview.returncode == 0
    for command in ("serve", "check", "sign", "send", "explain", "route", "status", "healthcheck", "events", "show", "replay"):
        assert re.search(rf"^\s+{command}\s", overview.stdout, re.M), command
        done = run(command, "--help")
        assert done.returncode == 0 and f"meowbridge {command}" in done.stdout and not done.stderr
        assert len(done.stdout.splitlines()) <= 50
        assert max(map(len, (overview.stdout + done.stdout).splitlines())) <= 80, command


@pytest.mark.parametrize("arguments", [(), ("srve",), ("check", "--nope"), ("check", "operand"), ("sign",), ("send",), ("send", "--url"),
                                       ("send", "--url", "ftp://x/"), ("send", "--url", "http://x/", "--count", "many")])
def test_bad_usage_is_exit_2_with_a_sentence_on_standard_error(arguments):
    done = run(*arguments, env=SECRET)
    assert done.returncode == 2 and done.stderr.startswith("meowbridge") and not done.stdout


def test_the_nearest_command_is_named():
    assert "send" in run("sedn").stderr


def vectors():
    with open(VECTORS, encoding="utf-8") as f:
        return [pytest.param(c, id=c["name"]) for c in json.load(f)["cases"]]


@pytest.mark.parametrize("case", vectors())
def test_sign_prints_the_headers_of_every_vector(case, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(case["secret"] + "\n", encoding="utf-8")
    url = f"https://{case['host']}{case['path']}" + (f"?{case['query']}" if case["query"] else "")
    done = run("sign", "--url", url, "--secret-file", secret, "--timestamp", case["timestamp"], stdin=case["body"].encode())
    assert done.stdout.decode() == f"X-Meowflow-Timestamp: {case['timestamp']}\nX-Meowflow-Signature: {case['signature']}\n"


def test_sign_reads_a_file_and_makes_a_fresh_timestamp(tmp_path, bridges, broker):
    bridge = bridges(broker)
    body = event()
    (tmp_path / "body").write_bytes(body)
    done = run("sign", "--url", f"http://{bridge.host}/webhook", tmp_path / "body", env=SECRET)
    headers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert bridge.post(body, headers=headers).status == 200


def test_a_secret_is_asked_for_and_never_taken_from_the_command_line():
    done = run("sign", "--url", "http://x/", stdin="")
    assert done.returncode == 2 and "MEOWBRIDGE_SECRET" in done.stderr and "--secret-file" in done.stderr
    given = run("sign", "--url", "http://x/", "--secret", "tell nobody", stdin="")
    assert given.returncode == 2 and "--secret-file" in given.stderr and "tell nobody" not in given.stderr


def test_a_command_whose_output_is_closed_fails():
    done = subprocess.run(["sh", "-c", '"$0" check >&-', harness.BINARY], env={**os.environ, **SECRET}, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "output" in done.stderr


def test_check_prints_the_configuration_as_understood_with_secrets_masked(tmp_path):
    config = tmp_path / "c.json"
    config.write_text('// a comment\n{"apps": [{"secret": "${THE_SECRET}" /* hidden */}], "http": {"max_body": "2MiB"}}')
    done = run("check", "-c", config, env={"THE_SECRET": "tell nobody"})
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert printed["http"]["max_body"] == "2MiB" and printed["apps"][0]["secret"] == "***"
    assert "tell nobody" not in done.stdout + done.stderr


def test_check_names_every_mistake_with_its_place_at_once(tmp_path):
    config = tmp_path / "c.json"
    config.write_text('{\n  "http": {"thread": 1, "max_body": "1MB"},\n  "mqtt": {"inflight": 0, "inflight": 1},\n'
                      '  "routes": [{"topics": ["a/{evnt}", "b/#"]}]\n}\n')
    done = run("check", "-c", config, env=SECRET)
    assert done.returncode == 2 and not done.stdout
    for place in (f"{config}:2:", f"{config}:3:", f"{config}:4:"):
        assert place in done.stderr, done.stderr
    assert "http.threads" in done.stderr and "1MiB" in done.stderr and "{event}" in done.stderr
    assert len(re.findall(rf"^{re.escape(str(config))}:\d+:\d+: ", done.stderr, re.M)) >= 5


def test_check_and_serve_name_the_certificate_key_or_ca_that_cannot_be_used(tmp_path):
    issued = harness.Certificates(tmp_path / "tls")
    (certificate, key), (_, other) = issued.issue("one"), issued.issue("other")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no PEM\n")
    nothing.chmod(0o600)
    good = {"http.tls.certificate_file": certificate, "http.tls.key_file": key, "mqtt.tls.ca_file": issued.ca,
            "mqtt.tls.certificate_file": certificate, "mqtt.tls.key_file": key}

    def tried(command, **changes):
        files = {**good, **{name.replace("__", "."): str(path) for name, path in changes.items()}}
        config = tmp_path / "c.json"
        config.write_text(json.dumps({
            "http": {"listen": "127.0.0.1:0", "tls": {k[9:]: v for k, v in files.items() if k.startswith("http.")}},
            "mqtt": {"url": "mqtts://localhost", "tls": {k[9:]: v for k, v in files.items() if k.startswith("mqtt.")}}}, indent=1))
        return run(command, "-c", config, env=SECRET, cwd=tmp_path)

    assert tried("check").returncode == 0
    for name in good:
        done = tried("check", **{name.replace(".", "__"): nothing})
        assert done.returncode == 2 and not done.stdout, done.stderr
        assert re.search(rf"^{re.escape(str(tmp_path / 'c.json'))}:\d+:\d+: {name}: .*{re.escape(str(nothing))}", done.stderr, re.M), done.stderr
    for name in ("http.tls.key_file", "mqtt.tls.key_file"):
        done = tried("check", **{name.replace(".", "__"): other})
        assert done.returncode == 2 and f": {name}: " in done.stderr and other in done.stderr, done.stderr
    done = tried("serve", mqtt__tls__ca_file=nothing)
    assert done.returncode == 2 and ": mqtt.tls.ca_file: " in done.stderr


def test_the_reference_configurations_are_accepted(tmp_path):
    conf = os.path.join(os.path.dirname(__file__), "../../conf")
    for name in ("meowbridge.json", "minimal.json"):
        done = run("check", "-c", os.path.join(conf, name), env=SECRET, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_an_environment_variable_overrides_the_file(tmp_path):
    config = tmp_path / "c.json"
    config.write_text('{"mqtt": {"url": "mqtt://file.example"}}')
    done = run("check", "-c", config, env={**SECRET, "MEOWBRIDGE_MQTT_URL": "mqtt://environment.example", "MEOWBRIDGE_HTTP_LISTEN": "[::1]:99"})
    printed = json.loads(done.stdout)
    assert "environment.example" in json.dumps(printed["mqtt"]["url"]) and printed["http"]["listen"] == "[::1]:99"
    wrong = run("check", env={**SECRET, "MEOWBRIDGE_MQTT_INFLIGHT": "lots"})
    assert wrong.returncode == 2 and "MEOWBRIDGE_MQTT_INFLIGHT" in wrong.stderr


def test_send_pushes_events_that_arrive_and_reports_them(bridges, broker, subscribers, tmp_path):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"log": {"level": "info"}})
    payload = tmp_path / "payload"
    payload.write_bytes(b'{ "n" : 1.50 }')
    done = bridge.send("--count", 300, "--connections", 8, "--event", "a.b", "--app", "77", "--payload", payload)
    messages = subscriber.wait(300)
    assert {(m.topic, m.payload, m.property("appid")) for m in messages} == {("meowflow/a/b", b'{ "n" : 1.50 }', "77")}
    assert len({m.property("id") for m in messages}) == 300
    assert all(re.fullmatch(r"[1-9]\d{17}", m.property("id")) for m in messages)
    for word in ("accepted", "duplicates", "failed", "p50", "p99"):
        assert word in done.stdout, done.stdout


def test_send_with_a_wrong_secret_says_why_at_once_and_fails(bridges, broker):
    bridge = bridges(broker)
    done = bridge.send("--retries", 0, check=False, secret="wrong")
    assert done.returncode == 1 and "signature verification failed" in done.stderr and "403" in done.stdout


def test_send_keeps_to_its_rate(bridges, broker):
    bridge = bridges(broker)
    started = time.monotonic()
    bridge.send("--count", 30, "--rate", 20, "--connections", 4)
    assert 1.2 < time.monotonic() - started < 10


class Flaky(BaseHTTPRequestHandler):
    """Refuses each id twice, and takes it at the third push."""

    protocol_version = "HTTP/1.1"
    pushes = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = sign(body, self.headers["Host"], self.path.partition("?")[0], timestamp=self.headers["X-Meowflow-Timestamp"])
        assert self.headers["X-Meowflow-Signature"] == expected["X-Meowflow-Signature"]
        pushes = self.pushes.setdefault(json.loads(body)["id"], [])
        pushes.append((time.monotonic(), body))
        answer = b'{"code":0,"message":"OK","data":{"id":"1","duplicate":false}}'
        self.send_response(200 if len(pushes) == 3 else 503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


def test_send_retries_as_meowflow_does_with_the_same_id():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = run("send", "--url", f"http://127.0.0.1:{server.server_port}/hook?x=1", "--count", 3, env=SECRET)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    assert sorted(len(p) for p in Flaky.pushes.values()) == [3, 3, 3]
    for (first, _), (second, _), (third, _) in Flaky.pushes.values():
        assert second - first >= 0.19 and third - second >= 0.39


def test_send_without_a_server_fails_after_its_retries():
    done = run("send", "--url", f"http://127.0.0.1:{harness.free_port()}/", "--retries", 1, env=SECRET)
    assert done.returncode == 1 and "refused" in (done.stderr + done.stdout).lower()


def test_no_secret_in_the_process_list(bridges, broker):
    bridge = bridges(broker)
    listing = subprocess.run(["cat", f"/proc/{bridge.process.pid}/cmdline"], capture_output=True).stdout
    assert harness.SECRET.encode() not in listing

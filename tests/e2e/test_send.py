"""contract.md 1, `send`: how it pushes, pushes again, and what it says of that."""

import json
import os
import pty
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import harness
from harness import run, wait_until

ENV = {"MEOWBRIDGE_SECRET": harness.SECRET}


class Script:
    """What a server answers, and what it has seen: times of pushes by id, senders, the most pushes under way together."""

    def __init__(self, answer):
        self.answer, self.lock, self.pushes, self.at_once, self.most, self.peers = answer, threading.Lock(), {}, 0, 0, set()


@pytest.fixture
def servers():
    made = []

    def make(answer):
        """answer(pushes of this id so far, different ids so far) gives (status, duplicate)."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with script.lock:
                    pushes = script.pushes.setdefault(json.loads(body)["id"], [])
                    pushes.append(time.monotonic())
                    script.peers.add(self.client_address)
                    script.at_once += 1
                    script.most = max(script.most, script.at_once)
                    number = list(script.pushes).index(json.loads(body)["id"]) + 1
                status, duplicate = script.answer(len(pushes), number)
                answer = json.dumps({"code": 0, "message": "as scripted", "data": {"id": "1", "duplicate": duplicate}}).encode()
                with script.lock:
                    script.at_once -= 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                pass

        script = Script(answer)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.append(server)
        script.url = f"http://127.0.0.1:{server.server_port}/hook"
        return script

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def test_an_event_is_pushed_again_ten_times_and_then_given_up(servers):
    script = servers(lambda pushes, number: (503, False))
    done = run("send", "--url", script.url, "--json", env=ENV, timeout=120)
    assert done.returncode == 1
    (times,) = script.pushes.values()
    waits = [b - a for a, b in zip(times, times[1:])]
    assert len(waits) == 10
    for waited, expected in zip(waits, [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5, 5]):
        assert expected - 0.02 <= waited < expected + 3, waits
    summary = json.loads(done.stdout)
    assert (summary["failed"], summary["retries"], summary["errors"]) == (1, 10, {"503": 11})
    assert "503 as scripted" in done.stderr
    told = re.findall(r"^meowbridge send: 0 of 1 accepted, 1 waiting for a retry, (\d+) retries so far, 0 failed$", done.stderr, re.M)
    assert 3 <= len(told) == len(done.stderr.splitlines()) - 1 and told == sorted(told, key=int) and int(told[-1]) > int(told[0])


def test_the_summary_counts_accepted_duplicates_and_failures_by_status(servers):
    """The first of five is refused for good, the second after 500 and 503 is a duplicate, the others are taken at once."""
    script = servers(lambda pushes, number: {1: (403, False), 2: [(500, False), (503, False), (201, True)][min(pushes, 3) - 1]}.get(
        number, (200, False)))
    done = run("send", "--url", script.url, "--count", 5, "--retries", 2, env=ENV)
    assert done.returncode == 1  # not all were accepted
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["sent"] == "5" and lines["accepted"] == "4 (1 duplicates)" and lines["failed"] == "1" and lines["retries"] == "4"
    assert lines["errors"] == "403: 3, 500: 1, 503: 1"
    again = run("send", "--url", script.url, "--count", 2, "--json", env=ENV)
    assert again.returncode == 0 and json.loads(again.stdout)["accepted"] == 2 and json.loads(again.stdout)["errors"] == {}


def test_percentiles_are_of_the_time_from_the_first_push_to_the_2xx(servers):
    """One in ten is taken at its second push only, after 0.2 s."""
    script = servers(lambda pushes, number: (503 if number % 10 == 0 and pushes == 1 else 200, False))
    done = run("send", "--url", script.url, "--count", 30, "--json", env=ENV)
    latency = json.loads(done.stdout)["latencyMs"]
    assert latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 < latency["p50"] < 200 <= latency["p99"] < 5000
    text = run("send", "--url", script.url, "--count", 1, env=ENV).stdout
    assert re.search(r"^latency ms  p50 [\d.]+, p90 [\d.]+, p99 [\d.]+, max [\d.]+$", text, re.M), text


def test_as_many_pushes_as_connections_are_under_way_at_once_and_no_more(servers):
    gate = threading.Barrier(6)

    def answer(pushes, number):
        gate.wait(harness.DEADLINE)  # opens only when six have come together
        return 200, False

    script = servers(answer)
    done = run("send", "--url", script.url, "--count", 24, "--connections", 6, "--retries", 0, env=ENV)
    assert done.returncode == 0, done.stderr
    assert script.most == 6 and len(script.peers) == 6 and len(script.pushes) == 24


def test_one_slow_answer_does_not_move_the_schedule_while_a_connection_is_free(servers):
    release = threading.Event()

    def answer(pushes, number):
        if number == 1:
            release.wait(harness.DEADLINE)
        return 200, False

    script = servers(answer)
    sender = subprocess.Popen([harness.BINARY, "send", "--url", script.url, "--count", "21", "--rate", "20", "--connections", "2"],
                              env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(script.pushes) == 21, "all the others")
    finally:
        release.set()
        sender.communicate(timeout=harness.DEADLINE)
    assert sender.returncode == 0
    begun = [times[0] for times in script.pushes.values()]
    assert begun[-1] - begun[0] >= 0.9  # 20 intervals of 50 ms


def on_terminal(*arguments, release=None):
    """Runs it with a terminal for its standard error; returns what that has shown, and the exit status."""
    main, side = pty.openpty()
    process = subprocess.Popen([harness.BINARY, "send", *map(str, arguments)], env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=side)
    os.close(side)
    shown = b""
    try:
        while part := os.read(main, 4096):
            shown += part
            if release and b" of " in shown:
                release.set()
    except OSError:
        pass  # the other side is closed
    os.close(main)
    process.stdout.read()
    process.stdout.close()
    return shown.decode(), process.wait(harness.DEADLINE)


def test_progress_is_shown_on_a_terminal_while_it_runs_and_nowhere_else(servers):
    release = threading.Event()

    def answer(pushes, number):
        assert number < 3 or release.wait(harness.DEADLINE)  # the third is answered once progress has been seen
        return 200, False

    script = servers(answer)
    shown, status = on_terminal("--url", script.url, "--count", 3, "--retries", 0, release=release)
    assert status == 0
    assert re.search(r"\r2 of 3 accepted, \d+/s, 0 waiting for a retry, 0 failed", shown), shown
    assert shown.endswith("\r\x1b[K")  # and wiped for the summary
    quiet, status = on_terminal("--url", script.url, "--count", 3, "--rate", 4, "--quiet")
    assert (quiet, status) == ("", 0)
    assert run("send", "--url", script.url, "--count", 3, "--rate", 4, env=ENV).stderr == ""

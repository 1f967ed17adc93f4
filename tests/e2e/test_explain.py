"""contract.md 1: explain says why a captured request does not verify, and what to do about it."""

import json
import os
import time

import pytest

import harness
from harness import event, run, sign

SECRET = {"MEOWBRIDGE_SECRET": harness.SECRET}
VECTORS = os.path.join(os.path.dirname(__file__), "../vectors/signature.json")
HOST = "hooks.example.com"


def explain(url, body, headers, *more, env=None):
    done = run("explain", "--url", url, "--timestamp", headers["X-Meowflow-Timestamp"], "--signature", headers["X-Meowflow-Signature"],
               *more, env=env or SECRET, stdin=body)
    done.stdout = done.stdout.decode()
    done.stderr = done.stderr.decode()
    return done


def vectors():
    with open(VECTORS, encoding="utf-8") as f:
        return [pytest.param(c, id=c["name"]) for c in json.load(f)["cases"]]


@pytest.mark.parametrize("case", vectors())
def test_every_vector_verifies_long_after_it_was_made(case, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(case["secret"] + "\n", encoding="utf-8")
    url = f"https://{case['host']}{case['path']}" + (f"?{case['query']}" if case["query"] else "")
    headers = {"X-Meowflow-Timestamp": case["timestamp"], "X-Meowflow-Signature": case["signature"]}
    done = explain(url, case["body"].encode(), headers, "--secret-file", secret, env={})
    assert done.returncode == 0 and "The signature verifies." in done.stdout, done.stdout


def test_what_verifies_is_exit_0_and_what_does_not_is_exit_1(tmp_path):
    body = event()
    (tmp_path / "body").write_bytes(body)
    headers = sign(body, HOST)
    assert explain(f"https://{HOST}/webhook", b"", headers, tmp_path / "body").returncode == 0
    done = explain(f"https://{HOST}/webhook", body + b"x", headers)
    assert done.returncode == 1 and "App Secret" in done.stdout and "registered" in done.stdout
    said = " ".join(done.stdout.split())
    assert "time. Most likely the secret: is it the App Secret" in said and "If the secret is right, then: The URL: " in said


PAYLOAD = '{"status": "成功", "n": [1, 2]}'.encode()


@pytest.mark.parametrize("url,change,said", [
    (f"http://{HOST}:8080/webhook", None, ["the host without its port: hooks.example.com", "public_url", "proxy_set_header Host"]),
    (f"http://{HOST}/webhook/", None, ["the path without the slash at its end: /webhook", "public_url"]),
    (f"http://{HOST}/proxy/webhook", None, ["the path without its first part: /webhook"]),
    (f"http://{HOST}/webhook", lambda b: b + b"\n", ["the body without the newline at its end"]),
    (f"http://{HOST}/webhook", lambda b: json.dumps(json.loads(b)).encode(), ["the body as compact JSON", "proxy leave it alone"]),
    (f"http://{HOST}/webhook", lambda b: json.dumps(json.loads(b), indent=2).encode(), ["the body as compact JSON", "prints it again"]),
    (f"http://{HOST}:8080/webhook", lambda b: b + b"\n", ["the host without its port", "the body without the newline"]),
])
def test_the_usual_culprits_are_named_with_a_remedy(url, change, said):
    body = json.dumps(json.loads(event(PAYLOAD)), separators=(",", ":"), ensure_ascii=False).encode()
    done = explain(url, change(body) if change else body, sign(body, HOST))
    flat = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout
    for text in said:
        assert text in flat, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_no_signature_but_the_given_one_could_be_learned():
    body = event()
    now = int(time.time() * 1000)
    for path in ("/webhook", "/other"):
        right = sign(body, HOST, path, timestamp=now)
        wrong = {**right, "X-Meowflow-Signature": "0" * 64}
        for headers in (right, wrong):
            done = explain(f"https://{HOST}/webhook", body, headers)
            assert right["X-Meowflow-Signature"] not in done.stdout + done.stderr


def test_a_clock_that_is_off_is_named():
    body = event()
    now = int(time.time() * 1000)
    ahead = explain(f"https://{HOST}/webhook", body, sign(body, HOST, timestamp=now + 3600_000))
    assert ahead.returncode == 1 and "in the future" in ahead.stdout and "The signature verifies." in ahead.stdout
    old = sign(body, HOST, timestamp=now - 3600_000)
    unknown = explain(f"https://{HOST}/webhook", body, old)
    assert unknown.returncode == 0 and "--received" in unknown.stdout
    assert explain(f"https://{HOST}/webhook", body, old, "--received", "59m").returncode == 0
    stale = explain(f"https://{HOST}/webhook", body, old, "--received", "50m")
    assert stale.returncode == 1 and "The clock:" in stale.stdout
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now / 1000 - 3000))
    assert explain(f"https://{HOST}/webhook", body, old, "--received", when).returncode == 1


def test_a_request_that_a_proxy_changed_is_explained_and_mended_by_the_remedy(bridges, broker):
    bridge = bridges(broker)
    body = event()
    headers = sign(body, HOST, "/public/webhook")
    assert bridge.post(body, headers=headers).status == 403
    done = explain(f"http://{bridge.host}/webhook", body, headers, "--try", f"https://{HOST}/public/webhook")
    assert done.returncode == 1 and "public_url" in done.stdout
    bridge.stop()
    bridge.configure({"apps": [{"public_url": f"https://{HOST}/public/webhook"}]})
    bridge.start()
    assert bridge.post(body, headers=headers).status == 200


def test_a_secret_of_another_app_and_one_from_before_a_reset_are_told_apart(tmp_path):
    body = event()
    for name in ("one", "two", "old"):
        (tmp_path / name).write_text(f"secret {name}\n")
    config = {"apps": [{"id": "1", "secret_file": str(tmp_path / "one"), "previous_secret_file": str(tmp_path / "old")},
                       {"id": "2", "secret_file": str(tmp_path / "two"), "public_url": f"https://{HOST}/two"}]}
    (tmp_path / "c.json").write_text(json.dumps(config))

    def with_config(secret, path="/webhook"):
        return explain(f"https://{HOST}/webhook", body, sign(body, HOST, path, secret=secret), "-c", tmp_path / "c.json", env={"PATH": "/bin"})

    assert with_config("secret one").returncode == 0
    assert "the previous secret of apps[0]" in with_config("secret old").stdout
    other = with_config("secret two", "/two")
    assert other.returncode == 1 and "the secret of apps[1]" in other.stdout and "another of the paths given: /two" in other.stdout
    assert "secret two" not in other.stdout


@pytest.mark.parametrize("arguments", [(), ("--url", "http://x/"), ("--url", "http://x/", "--timestamp", "1"),
                                       ("--url", "x", "--timestamp", "1", "--signature", "0"),
                                       ("--url", "http://x/", "--timestamp", "1", "--signature", "0", "--received", "yesterday")])
def test_bad_usage_is_exit_2(arguments):
    done = run("explain", *arguments, env=SECRET, stdin="")
    assert done.returncode == 2 and done.stderr.startswith("meowbridge explain: ") and not done.stdout


def test_a_malformed_signature_or_timestamp_is_what_is_wrong():
    body = event()
    short = explain(f"https://{HOST}/webhook", body, {**sign(body, HOST), "X-Meowflow-Signature": "abc"})
    assert short.returncode == 1 and "64 hex digits" in short.stdout
    seconds = sign(body, HOST, timestamp=int(time.time()))
    done = explain(f"https://{HOST}/webhook", body, seconds)
    assert done.returncode == 1 and "13 digits" in done.stdout

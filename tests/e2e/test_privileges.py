"""What the running bridge may still do, and what it tells: a flaw in it should be worth little, and a log is read by many."""

import os
import re
import socket
import subprocess

import pytest

import harness
from harness import event, wait_until


def status_of(task):
    with open(f"{task}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def tasks(bridge):
    folder = f"/proc/{bridge.process.pid}/task"
    return [f"{folder}/{task}" for task in os.listdir(folder)]


def capabilities(status):
    return [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]


NONE = ["0" * 16] * 4


def test_every_thread_is_without_capabilities_and_behind_the_filter(bridges, broker):
    bridge = bridges(broker).connected()
    assert bridge.post(event()).status == 200
    threads = tasks(bridge)
    assert len(threads) >= 4
    for task in threads:
        status = status_of(task)
        assert (status["NoNewPrivs"], status["Seccomp"], capabilities(status)) == ("1", "2", NONE), (task, status)


def test_it_starts_no_process(bridges, broker):
    bridge = bridges(broker).connected()
    assert bridge.post(event()).status == 200
    bridge.reload()
    for task in tasks(bridge):
        with open(f"{task}/children") as f:
            assert f.read() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may bind low ports")
def test_root_may_bind_a_low_port_and_is_told_that_it_is_not_needed(bridges, broker):
    port = next(p for p in range(1023, 600, -1) if not harness.accepts(p))
    bridge = bridges(broker, config={"http": {"listen": f"127.0.0.1:{port}"}})
    assert bridge.post(event()).status == 200
    low_ports = f"{1 << 10:016x}"
    assert {tuple(capabilities(status_of(task))) for task in tasks(bridge)} == {("0" * 16, low_ports, low_ports, "0" * 16)}
    assert bridge.log().count("running as root") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_runs_it_without_a_warning(tmp_path, broker):
    folder = tmp_path / "bridge"
    folder.mkdir()
    user = 65532
    os.chown(folder, user, user)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
    bridge = harness.Bridge(folder, broker, start=False)
    log = open(bridge.log_path, "ab")
    bridge._log_start = 0
    bridge.process = subprocess.Popen([harness.binary_for_anybody(tmp_path), "serve", "-c", bridge.config_path], stdout=log, stderr=log, env=bridge.env, cwd=folder,
                                      user=user, group=user, extra_groups=[])
    try:
        bridge.connected()
        assert bridge.post(event()).status == 200
        assert " WARN " not in bridge.log()
    finally:
        assert bridge.stop() == 0
        log.close()


def test_names_are_resolved_and_tls_works_behind_the_filter(bridges, tmp_path):
    certificates = harness.Certificates(tmp_path / "certificates")
    certificate, key = certificates.issue("broker")
    port = harness.free_port()
    broker = harness.Broker(tmp_path / "broker", f"listener {port} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}", port=port).start()
    bridge = bridges(None, config={
        "mqtt": {"url": f"mqtts://localhost:{port}", "tls": {"ca_file": certificates.ca}},
        "http": {"tls": {"certificate_file": certificate, "key_file": key}},
    })
    bridge.connected()
    done = subprocess.run([harness.BINARY, "send", "--insecure", "--url", f"https://{bridge.host}/webhook", "--count", "20"],
                          env={**bridge.env, "MEOWBRIDGE_SECRET": bridge.secret}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert status_of(f"/proc/{bridge.process.pid}")["Seccomp"] == "2"
    bridge.stop()
    assert "published=20 " in bridge.log()
    broker.stop()


# --- what it tells ---

SECRETS = {"secret": "current-Wahz4aek", "previous": "previous-Eiy7aizi", "password": "password-Ohth9ahv", "token": "token-Iequ3xoo0123456789"}
PAYLOAD = "payload-Quoo8ahg"


@pytest.fixture
def files(tmp_path):
    paths = {}
    for name, text in SECRETS.items():
        paths[name] = str(tmp_path / name)
        with open(paths[name], "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write(text + "\n")
    return paths


def private_config(files):
    return {
        "apps": [{"secret_file": files["secret"], "previous_secret_file": files["previous"]}],
        "mqtt": {"username": "bridge", "password_file": files["password"]},
        "admin": {"token_file": files["token"]},
        "http": {"max_body": "64KiB", "timeout": "1s"},
    }


def test_no_secret_signature_or_payload_is_told_to_anybody(bridges, broker, files):
    bridge = bridges(broker, env={}, secret=SECRETS["secret"], config=private_config(files)).connected()
    told, signatures = [], []

    def post(body, **arguments):
        headers = {**harness.sign(body, bridge.host, secret=arguments.pop("secret", SECRETS["secret"])), **arguments.pop("headers", {})}
        signatures.append(headers["X-Meowflow-Signature"])
        answer = bridge.post(body, headers=headers, signed=False, **arguments)
        told.append(answer.body.decode())
        return answer.status

    def with_payload():
        return event(payload=f'"{PAYLOAD}"'.encode())

    body = with_payload()
    assert post(body) == 200 and post(body) == 200 and post(with_payload(), secret=SECRETS["previous"]) == 200
    assert post(with_payload(), secret="wrong") == 403
    assert post(with_payload(), headers={"X-Meowflow-Timestamp": "1"}) == 403
    assert post(with_payload() + b"x") == 400
    assert post(event(id=None, payload=f'"{PAYLOAD}"'.encode())) == 400
    assert post(event(payload=f'"{PAYLOAD}{"x" * 65536}"'.encode())) == 413
    assert post(with_payload(), path=f"/nothing?{PAYLOAD}") == 404
    with socket.create_connection(("127.0.0.1", bridge.port)) as s:
        s.sendall(f"POST /webhook?{PAYLOAD} HTTP/9.9\r\n\r\n".encode())
        told.append(s.recv(1000).decode())
    broker.stop()
    assert post(with_payload()) == 200
    bridge.wait_log("WARN", 3)
    bridge.reload()
    told += [harness.run("check", "-c", bridge.config_path).stdout, bridge.get("/readyz").body.decode(), bridge.get("/nothing").body.decode()]
    with open(f"/proc/{bridge.process.pid}/cmdline") as f:
        told.append(f.read())
    assert bridge.stop() == 0
    lines = bridge.log().splitlines()
    assert any(" DEBUG " in line for line in lines)  # so what is asserted holds at every level
    told += lines
    for text in told:
        for private in (*SECRETS.values(), *signatures, PAYLOAD):
            assert private not in text, text


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_file_that_others_can_read_is_named_once_with_the_remedy(bridges, broker, files, name):
    os.chmod(files[name], 0o644)
    bridge = bridges(broker, env={}, secret=SECRETS["secret"], config=private_config(files))
    lines = [line for line in bridge.log().splitlines() if files[name] in line]
    assert len(lines) == 1 and " WARN " in lines[0]
    assert "can be read by everybody (mode 0644), expected chmod o-r" in lines[0]
    done = harness.run("check", "-c", bridge.config_path)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert done.returncode == 0 and len(warnings) == 1 and files[name] in warnings[0] and "chmod o-r" in warnings[0]
    os.chmod(files[name], 0o600)
    assert "warning" not in harness.run("check", "-c", bridge.config_path).stderr


def test_why_a_request_is_refused_stands_in_the_log_and_not_in_the_answer(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"id": "12345", "secret": harness.SECRET}]})
    told, body = [bridge.post(event(), secret=secret).body for secret in ("x", "y" * 100)], event()
    told += [bridge.post(body, headers=harness.sign(body, "other.example")).body]
    told += [bridge.post(body, headers=harness.sign(body, bridge.host, path="/elsewhere")).body]
    assert set(told) == {b'{"code":403,"message":"signature verification failed","data":null}'}
    bridge.wait_log("webhook refused status=403", 4)
    for line in bridge.log().splitlines():
        if "webhook refused" in line:
            assert re.search(r'reason="signature verification failed" detail=.* peer=127\.0\.0\.1 path=/webhook', line)


def is_closed(pid):
    """No core file, and none of its memory for other processes of its user: the kernel gives such a process's files to root."""
    with open(f"/proc/{pid}/limits") as f:
        return os.stat(f"/proc/{pid}/environ").st_uid == 0 and [line.split()[4:6] for line in f if line.startswith("Max core")] == [["0", "0"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("command", ["serve", "sign", "send"])
def test_what_a_command_has_in_memory_is_nobodys_to_read(tmp_path, command):
    os.chown(tmp_path, 65532, 65532)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, os.stat(parent).st_mode | 0o011)
    arguments = {"serve": [], "sign": ["--url", "http://x/webhook"],
                 "send": ["--url", "http://127.0.0.1:1/webhook", "--count", "1000", "--rate", "1"]}[command]
    env = {"PATH": os.environ["PATH"], "MEOWBRIDGE_SECRET": SECRETS["secret"], "MEOWBRIDGE_HTTP_LISTEN": "127.0.0.1:0",
           "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0"}
    process = subprocess.Popen([harness.binary_for_anybody(tmp_path), command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               cwd=tmp_path, env=env, user=65532, group=65532, extra_groups=[])
    try:
        wait_until(lambda: is_closed(process.pid), "the process to close itself")
    finally:
        process.kill()
        process.wait()


def test_the_secret_is_not_in_the_environment_and_the_journal_is_its_owners_alone(bridges, broker):
    bridge = bridges(broker)
    with open(f"/proc/{bridge.process.pid}/environ", "rb") as f:
        assert harness.SECRET.encode() not in f.read()
    for name in os.listdir(bridge.folder):
        if name.startswith("journal"):
            assert os.stat(os.path.join(bridge.folder, name)).st_mode & 0o077 == 0, name

"""The systemd units, as far as they can be tried where systemd is not the first process: its own tools judge them, and the bridge
runs behind the unit's filter of system calls, as the unit's user, with the unit's credentials."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import harness  # noqa: E402

SERVICE, SOCKET = ROOT / "conf/meowbridge.service", ROOT / "conf/meowbridge.socket"


def settings(unit):
    """Every assignment of a unit, (name, value), in order."""
    return [line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line)]


def values(name, unit=SERVICE):
    return [value for key, value in settings(unit) if key == name]


def test_systemd_finds_no_fault_in_them(tmp_path):
    """With the program and the manual where this build has them."""
    units = []
    for unit in (SERVICE, SOCKET):
        text = unit.read_text().replace("/usr/bin/meowbridge", harness.BINARY)
        assert "Documentation=man:meowbridge(8)" in text
        units.append(tmp_path / unit.name)
        units[-1].write_text(re.sub("Documentation=.*\n", "", text))
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_sandbox_is_as_tight_as_promised():
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(SERVICE)],
                          capture_output=True, text=True, env={**os.environ, "SYSTEMD_COLORS": "0"})
    assert done.returncode == 0, done.stdout
    assert float(re.search(r"Overall exposure level for meowbridge.service: ([0-9.]+)", done.stdout).group(1)) <= 1.5


def refused_calls():
    """The names that SystemCallFilter leaves out, with its sets resolved."""
    allowed = set()
    for line in values("SystemCallFilter"):
        sets = line.lstrip("~").split()
        calls = set().union(*map(calls_of, sets))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return calls_of("@known") - allowed


def calls_of(name):
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    return set().union(*(calls_of(line.strip()) for line in listed.splitlines()[1:] if line.strip() and line.strip()[0] != "#"))


@pytest.fixture
def reachable():
    """A folder that other users can reach. Those above tmp_path another run of pytest closes to them whenever it begins."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights, as the unit does")
def test_the_bridge_runs_behind_the_filter_of_its_unit(reachable, broker):
    """A user of its own, no capability, the unit's calls, its secrets in $CREDENTIALS_DIRECTORY and nothing else."""
    import seccomp

    credentials, state = reachable / "credentials", reachable / "state"
    for folder in (credentials, state):
        folder.mkdir(mode=0o700)
        os.chown(folder, 65532, 65532)
    (credentials / "app-secret").write_text(harness.SECRET + "\n")
    os.chmod(credentials / "app-secret", 0o400)
    os.chown(credentials / "app-secret", 65532, 65532)
    config = state / "meowbridge.json"
    config.write_text((ROOT / "conf/debian/meowbridge.json").read_text().replace("/var/lib/meowbridge", str(state)))

    def enter():
        rules = seccomp.SyscallFilter(seccomp.ALLOW)
        for call in refused:
            try:
                number = seccomp.resolve_syscall(seccomp.Arch(), call)
                if number >= 0 and call not in sanitizers_need:
                    rules.add_rule(seccomp.ERRNO(1), number)
            except (RuntimeError, ValueError):
                pass  # of another architecture
        os.setgroups([])
        os.setgid(65532)
        os.setuid(65532)
        rules.load()

    refused = refused_calls()
    assert {"capset", "mount", "setuid", "ptrace", "sched_setscheduler"} <= refused
    sanitizers_need = {"ptrace"}
    log, program = reachable / "log", harness.binary_for_anybody(reachable)
    with open(log, "w") as out:
        process = subprocess.Popen(
            [program, "serve", "-c", str(config)], stdout=out, stderr=out, preexec_fn=enter, cwd=state,
            env={"CREDENTIALS_DIRECTORY": str(credentials), "MEOWBRIDGE_HTTP_LISTEN": "127.0.0.1:0",
                 "MEOWBRIDGE_ADMIN_LISTEN": "127.0.0.1:0", "MEOWBRIDGE_MQTT_URL": f"mqtt://127.0.0.1:{broker.port}"})
    try:
        harness.wait_until(lambda: "connected to the broker" in log.read_text() or process.poll() is not None, "the bridge")
        assert process.poll() is None, log.read_text()
        assert "WARN" not in log.read_text() and "ERROR" not in log.read_text(), log.read_text()
        host = re.search(r"listening for webhooks address=(\S+)", log.read_text()).group(1)
        body = harness.event()
        connection = harness.http.client.HTTPConnection(host)
        connection.request("POST", "/webhook", body, {"Host": host, **harness.sign(body, host)})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        process.terminate()
        assert process.wait(harness.DEADLINE) == 0, log.read_text()


def test_the_unit_waits_for_a_secret_and_does_not_repeat_a_mistake():
    assert values("ConditionPathExists") == ["/etc/meowbridge/secrets/app-secret"] == values("ConditionPathExists", SOCKET)
    assert values("RestartPreventExitStatus") == ["2"]
    loaded = dict(value.split(":", 1) for value in values("LoadCredential"))
    assert all(path == f"/etc/meowbridge/secrets/{name}" for name, path in loaded.items())
    # What may be missing has an empty line for a default, which the bridge takes for no secret, and says so.
    assert {value.split(":")[0] for value in values("SetCredential")} == set(loaded) - {"app-secret"}


def test_a_bridge_that_is_asked_to_use_a_secret_that_is_not_there_says_so(tmp_path):
    (tmp_path / "app-secret").write_text("secret\n")
    (tmp_path / "mqtt-password").write_text("\n")  # what SetCredential gives
    done = harness.run("check", "-c", ROOT / "conf/debian/meowbridge.json",
                       env={"CREDENTIALS_DIRECTORY": str(tmp_path), "MEOWBRIDGE_MQTT_PASSWORD_FILE": str(tmp_path / "mqtt-password")})
    assert done.returncode == 2 and "mqtt-password" in done.stderr and "empty" in done.stderr, done.stderr


def test_the_packaged_configuration_is_whole(tmp_path):
    (tmp_path / "app-secret").write_text("secret\n")
    os.chmod(tmp_path / "app-secret", 0o600)
    done = harness.run("check", "-c", ROOT / "conf/debian/meowbridge.json", env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    # Without the secrets, as somebody who only looks.
    done = harness.run("events", "-c", ROOT / "conf/debian/meowbridge.json", env={"MEOWBRIDGE_JOURNAL_PATH": str(tmp_path / "none.db")})
    assert done.returncode == 1 and "CREDENTIALS_DIRECTORY" not in done.stderr, done.stderr

"""The bridge as a service: what it tells its supervisor, the sockets that it is given, and threads that hang."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import event, wait_until


class Supervisor:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.told = []

    def listen(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told += [(time.monotonic(), line) for line in self.socket.recv(4096).decode().split("\n")]
        return self

    def lines(self):
        return [line for _, line in self.listen().told]

    def wait(self, line, count=1):
        wait_until(lambda: sum(told.startswith(line) for told in self.lines()) >= count, f"{count} {line} in {self.told}")

    def last(self, line):
        return max([at for at, told in self.listen().told if told == line], default=0)


def environment(supervisor, **more):
    return {"MEOWBRIDGE_SECRET": harness.SECRET, "NOTIFY_SOCKET": supervisor.path, **more}


def test_its_states_are_told(tmp_path, bridges, broker):
    supervisor = Supervisor(tmp_path)
    bridge = bridges(broker, env=environment(supervisor))
    supervisor.wait("READY=1")
    assert harness.accepts(bridge.port) and supervisor.lines()[0] == "READY=1"
    supervisor.wait(f"STATUS=Connected to mqtt://127.0.0.1:{broker.port}, 0 pending, 0 dead")
    assert "WATCHDOG=1" not in supervisor.lines()  # nobody asked for it
    bridge.reload()
    supervisor.wait("READY=1", 2)
    lines = supervisor.lines()
    begun = lines.index("RELOADING=1")
    assert lines[begun + 1].startswith("MONOTONIC_USEC=") and "READY=1" in lines[begun:]
    assert bridge.stop() == 0
    assert supervisor.lines()[-2:] == ["STOPPING=1", "STATUS=Stopping"]


def test_a_start_that_fails_is_not_called_ready(tmp_path, bridges):
    supervisor = Supervisor(tmp_path)
    bridge = bridges(env=environment(supervisor), config={"journal": {"path": "/proc/journal.db"}}, start=False)
    bridge.start(wait=False)
    assert bridge.process.wait(harness.DEADLINE) == 1
    assert supervisor.lines() == []
    bridge.process = None


@pytest.mark.skipif(os.geteuid() != 0, reason="the bridge lets nobody but root look into it, strace neither")
def test_the_watchdog_is_fed_until_a_thread_hangs_and_again_when_it_goes_on(tmp_path, bridges, broker):
    """The disk hangs: strace holds the journal's thread in its sync. The admin listener still answers, and says so."""
    supervisor = Supervisor(tmp_path)
    bridge = bridges(broker, env=environment(supervisor, WATCHDOG_USEC="4000000")).connected()
    supervisor.wait("WATCHDOG=1", 3)
    assert bridge.get("/livez").status == 200
    with hung_disk(tmp_path, bridge):
        sender = bridge.connection()
        body = event()
        sender.request("POST", "/webhook", body, {"Host": bridge.host, **harness.sign(body, bridge.host)})
        wait_until(lambda: bridge.get("/livez").status == 503, "/livez to see it")
        assert re.fullmatch(rb"journal has not moved for \d+ s\n", bridge.get("/livez").body)
        bridge.wait_log('ERROR a thread hangs at="journal has not moved')
        fed = supervisor.last("WATCHDOG=1")
        # What systemd would do: after 4 s without a word it kills. All that time nothing may come.
        wait_until(lambda: time.monotonic() > fed + 4, "the watchdog's time to run out")
        assert supervisor.last("WATCHDOG=1") == fed
    assert sender.getresponse().status == 200
    wait_until(lambda: supervisor.last("WATCHDOG=1") > fed, "the watchdog to be fed again")
    bridge.wait_log("INFO all threads go on")
    assert bridge.get("/livez").status == 200


@contextlib.contextmanager
def hung_disk(folder, bridge):
    """Each sync of the journal's thread waits as long as this lasts, and so does whoever waits for it."""
    task = next(task for task in os.listdir(f"/proc/{bridge.process.pid}/task")
                if open(f"/proc/{bridge.process.pid}/task/{task}/comm").read() == "journal\n")
    said = folder / "strace"
    strace = subprocess.Popen(["strace", "-p", task, "-o", str(said) + ".calls", "-e", "trace=fdatasync,fsync", "-e",
                               "inject=fdatasync,fsync:delay_enter=60000000"], stderr=open(said, "w"))
    wait_until(lambda: "attached" in said.read_text(), "strace")
    try:
        yield
    finally:
        strace.send_signal(signal.SIGTERM)  # lets the thread go
        assert strace.wait(harness.DEADLINE) in (0, -signal.SIGTERM)


def test_livez_needs_neither_broker_nor_room_on_the_disk(bridges):
    bridge = bridges(config={"mqtt": {"url": f"mqtt://127.0.0.1:{harness.free_port()}"}, "journal": {"max_size": "1MiB"}})
    payload = b'"' + b"x" * 200000 + b'"'
    wait_until(lambda: bridge.post(event(payload)).status == 503, "the journal to be full")
    assert bridge.get("/livez").status == 200


# --- socket activation ---


def start_with(bridge, sockets, **environment):
    """Starts it as systemd would: the sockets from descriptor 3 on, LISTEN_PID its own."""
    bridge._log_start = 0
    numbers = [s.fileno() for s in sockets]
    assert min(numbers) >= 3 + len(numbers)
    moves = " ".join(f"{3 + i}<&{number} {number}<&-" for i, number in enumerate(numbers))
    with open(bridge.log_path, "ab") as log:
        bridge.process = subprocess.Popen(
            ["bash", "-c", f'exec {moves}; LISTEN_PID=$$ exec "$@"', "bash", harness.BINARY, "serve", "-c", bridge.config_path],
            stdout=log, stderr=log, cwd=bridge.folder, pass_fds=numbers,
            env={**bridge.env, "LISTEN_FDS": str(len(sockets)), **environment})
    wait_until(lambda: " INFO ready" in bridge.log() or bridge.process.poll() is not None, "the bridge")
    return bridge


def listening_sockets(*hosts):
    made = []
    for host in hosts:
        own = socket.socket()
        own.bind((host, 0))
        own.listen(64)
        moved = socket.socket(fileno=os.dup2(own.fileno(), 50 + len(made)))
        own.close()
        made.append(moved)
    return made


def test_it_listens_on_the_sockets_that_it_is_given(bridges, broker):
    http, admin = listening_sockets("127.0.0.1", "127.0.0.1")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    # The configured address is not even tried: somebody else has it.
    bridge = bridges(broker, config={"http": {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}}, start=False)
    start_with(bridge, [admin, http], LISTEN_FDNAMES="admin:http")
    assert (bridge.port, bridge.admin_port) == (http.getsockname()[1], admin.getsockname()[1])
    assert bridge.post(event()).status == 200
    assert bridge.get("/livez").status == 200


def test_who_connects_during_a_restart_is_served_afterwards(bridges, broker):
    (http,) = listening_sockets("127.0.0.1")
    bridge = start_with(bridges(broker, start=False), [http])
    host = bridge.host
    assert bridge.stop() == 0
    waiting = bridge.connection()
    body = event()
    waiting.request("POST", "/webhook", body, {"Host": host, **harness.sign(body, host)})
    start_with(bridge, [http])
    assert waiting.getresponse().status == 200


def test_an_admin_socket_that_others_reach_needs_a_token(bridges, broker):
    (admin,) = listening_sockets("0.0.0.0")
    bridge = start_with(bridges(broker, start=False), [admin], LISTEN_FDNAMES="admin")
    assert bridge.process.wait(harness.DEADLINE) == 2
    assert "it needs admin.token_file" in bridge.log()
    bridge.process = None


# --- the journal of systemd ---


def as_journal(bridge):
    """Makes its log the stream that the journal gave."""
    with open(bridge.log_path, "ab") as log:
        stream = os.fstat(log.fileno())
    bridge.env["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
    return bridge


def test_lines_to_the_journal_begin_with_their_priority(bridges, broker):
    bridge = as_journal(bridges(broker, start=False)).start(wait=False)
    bridge.wait_log("INFO ready")
    assert re.search(r"^<6>2\S+Z INFO ready", bridge.log(), re.M)
    assert all(re.match("<[3467]>", line) for line in bridge.log().splitlines()), bridge.log()


def test_a_mistake_in_the_configuration_is_an_error_in_the_journal(bridges):
    bridge = as_journal(bridges(config={"http": {"listen": "nowhere"}}, start=False)).start(wait=False)
    assert bridge.process.wait(harness.DEADLINE) == 2
    lines = bridge.log().splitlines()
    assert len(lines) >= 2 and all(line.startswith("<3>") for line in lines), lines
    bridge.process = None


def test_json_lines_and_other_streams_have_no_priority(bridges, broker):
    json_bridge = as_journal(bridges(broker, "json", config={"log": {"format": "json"}}, start=False)).start(wait=False)
    json_bridge.wait_log('"message":"ready"')
    other = bridges(broker, "other", env={"MEOWBRIDGE_SECRET": harness.SECRET, "JOURNAL_STREAM": "1:2"})
    assert "<" not in {line[0] for line in (json_bridge.log() + other.log()).splitlines()}

"""README, "When something is wrong": the lines that take a captured connection apart, as they stand there, on what `meowbridge send` sends.

tcpflow itself, which only root can run, is left out: its file holds the bytes of one direction of one connection, and so does ours."""

import socket
import subprocess
import threading

import documents
import harness
import pytest
from harness import DEADLINE

ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def bytes_of_two_pushes(secret_file):
    """What one connection brings when two events are pushed over it and refused."""
    taken = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)

        def serve():
            nonlocal taken
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(DEADLINE)
                answered = 0
                while chunk := peer.recv(65536):
                    taken += chunk
                    while taken.count(b'"pushTime"') > answered and taken.endswith(b"}"):
                        peer.sendall(ANSWER)
                        answered += 1

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/webhook"
        done = harness.run("send", "--url", url, "--secret-file", secret_file, "--count", "2", "--retries", "0")
        thread.join(DEADLINE)
    assert done.returncode == 1 and taken.count(b"POST /webhook ") == 2
    return url, taken


@pytest.mark.parametrize("path", ["README.md", "README.zh-CN.md"])
def test_the_first_push_of_a_captured_connection_can_be_explained(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(harness.SECRET)
    url, taken = bytes_of_two_pushes(str(secret))
    (tmp_path / "captured").mkdir()
    (tmp_path / "captured/127.000.000.001.44112-127.000.000.001.08080").write_bytes(taken)
    first, *rest = documents.block(path, "capture").splitlines()
    assert "tcpflow" in first
    done = subprocess.run(["sh", "-eu", "-c", "\n".join(rest)], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    headers = dict(line.strip().split(": ") for line in done.stdout.splitlines())
    assert (tmp_path / "body.json").read_bytes() == taken.split(b"\r\n\r\n")[1].split(b"POST ")[0]
    explained = harness.run("explain", "--url", url, "--secret-file", str(secret), "--timestamp", headers["X-Meowflow-Timestamp"],
                            "--signature", headers["X-Meowflow-Signature"], str(tmp_path / "body.json"))
    assert explained.returncode == 0, explained.stdout

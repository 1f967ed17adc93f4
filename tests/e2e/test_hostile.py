"""Hostile HTTP: what is malformed or ambiguous is refused in the form of contract.md 3, and good clients do not notice."""

import json
import re
import socket

import pytest

import harness


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """One bridge for all cases that leave nothing behind. It needs no broker: the journal takes the events."""
    bridge = harness.Bridge(tmp_path_factory.mktemp("bridge"))
    yield bridge
    assert bridge.stop() == 0


def exchange(bridge, *parts, timeout=harness.DEADLINE):
    """Sends bytes as they are, closes nothing, and reads until the server has closed. An answer must not be lost by a reset."""
    with socket.create_connection(("127.0.0.1", bridge.port), timeout=timeout) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            try:
                s.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break  # it has answered and closed: what it said can still be read
        received = b""
        while True:
            part = s.recv(65536)
            if not part:
                return received
            received += part


def answers(received):
    """Splits what came into answers; each must be whole."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3}) [^\r\n]+\r\n", head + b"\r\n")
        assert status, received[:200]
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])}
        size = int(headers.get("content-length", 0))
        assert len(rest) >= size, received[:200]
        found.append(harness.Answer(int(status.group(1)), headers, rest[:size]))
        received = rest[size:]
    return found


def assert_refused(answer, status):
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert list(answer.json) == ["code", "message", "data"]
    assert answer.json["code"] == status and answer.json["message"] and answer.json["data"] is None
    assert answer.body == json.dumps(answer.json, separators=(",", ":"), ensure_ascii=False).encode()


HEAD = b"POST /webhook HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# What the HTTP library cannot parse and would answer by itself, with HTML.
MALFORMED = {
    "a header over the limit": (431, HEAD + b"A: " + b"x" * 40000 + b"\r\n\r\n"),
    "a flood of small headers": (431, HEAD + b"A: b\r\n" * 6000 + b"\r\n"),
    "a flood of cookies": (431, HEAD + b"Cookie: " + b"a;" * 2000 + b"\r\nContent-Length: 3\r\n\r\nabc"),
    "a flood of query arguments": (431, b"POST /webhook?" + b"a&" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a flood of trailers": (431, CHUNKED + b"0\r\n" + b"A: b\r\n" * 6000 + b"\r\n"),
    "a target over the limit": (414, b"POST /" + b"x" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "HTTP/0.9": (505, b"POST /webhook HTTP/0.9\r\nHost: x\r\n\r\n"),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a request line without a version": (400, b"POST /webhook\r\nHost: x\r\n\r\n"),
    "a version that is none": (400, b"POST /webhook HTTP/1\r\nHost: x\r\n\r\n"),
    "no Host": (400, b"POST /webhook HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    "a header line without a colon": (400, HEAD + b"no colon\r\n\r\n"),
    "a Content-Length that is no number": (400, HEAD + b"Content-Length: abc\r\n\r\n"),
    "a negative Content-Length": (400, HEAD + b"Content-Length: -1\r\n\r\n"),
    "an empty Content-Length": (400, HEAD + b"Content-Length:\r\n\r\n"),
    "a list of Content-Lengths": (400, HEAD + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a Content-Length over 64 bits": (413, HEAD + b"Content-Length: 18446744073709551616\r\n\r\n"),
    "a chunk size that is none": (400, CHUNKED + b"zz\r\n"),
    "a chunk size over 64 bits": (413, CHUNKED + b"10000000000000000\r\n"),
    "a chunk longer than its size": (400, CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n"),
    "a trailer without a colon": (400, CHUNKED + b"0\r\nno colon\r\n\r\n"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_gets_one_answer_in_the_documented_form_and_the_end(bridge, name):
    status, request = MALFORMED[name]
    found = answers(exchange(bridge, request))
    assert len(found) == 1
    assert_refused(found[0], status)


def test_a_malformed_request_is_logged_once_like_other_refusals(tmp_path):
    bridge = harness.Bridge(tmp_path)
    exchange(bridge, HEAD + b"A: " + b"x" * 40000 + b"\r\n\r\n")
    bridge.wait_log("webhook refused")
    lines = [line for line in bridge.log().splitlines() if "webhook refused" in line]
    assert len(lines) == 1
    assert " WARN webhook refused status=431 reason=\"the request's headers are too large\" detail=- peer=127.0.0.1 path=- " in lines[0]
    assert bridge.stop() == 0

"""contract.md 3: what a request gets."""

import json
import os
import socket
import threading
import time

import pytest

import harness
from harness import event, sign, wait_until


@pytest.fixture
def bridge(bridges, broker):
    return bridges(broker, config={"http": {"max_body": "64KiB"}})


def raw(bridge, data, timeout=harness.DEADLINE):
    """Sends bytes as they are and reads until the server closes; returns what came."""
    with socket.create_connection(("127.0.0.1", bridge.port), timeout=timeout) as s:
        s.sendall(data)
        received = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part


def request_bytes(bridge, body, *extra, path="/webhook", drop=()):
    headers = {"Host": bridge.host, "Content-Length": str(len(body)), "Connection": "close"}
    headers.update(sign(body, bridge.host, path.split("?")[0]))
    lines = [f"{k}: {v}" for k, v in headers.items() if k not in drop] + list(extra)
    return f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_signed_event_is_answered_in_the_documented_form(bridge):
    body = event(id="123456")
    answer = bridge.post(body)
    assert (answer.status, answer.body) == (200, b'{"code":0,"message":"OK","data":{"id":"123456","duplicate":false}}')
    assert answer.headers["Content-Type"] == "application/json"
    again = bridge.post(body)
    assert (again.status, again.body) == (200, b'{"code":0,"message":"OK","data":{"id":"123456","duplicate":true}}')


def refused(answer, status, message):
    assert (answer.status, answer.json) == (status, {"code": status, "message": message, "data": None})


def test_whatever_is_wrong_with_the_signature_is_403_and_says_which(bridge):
    body, now = event(), int(time.time() * 1000)
    good = sign(body, bridge.host)
    refused(bridge.post(body, headers={"X-Meowflow-Timestamp": None}), 403, "missing timestamp")
    refused(bridge.post(body, headers={"X-Meowflow-Signature": None}), 403, "missing signature")
    for timestamp in ("", "x" * 13, str(now)[:12], str(now) + "0", " " + str(now)[:12], "-" + str(now)[:12]):
        answer = bridge.post(body, timestamp=timestamp)
        assert answer.status == 403 and answer.message in ("timestamp is invalid", "missing timestamp"), timestamp
    for skew in (-301_000, 301_000, -86_400_000, 86_400_000):
        refused(bridge.post(body, timestamp=now + skew), 403, "timestamp is invalid")
    for signature in ("0" * 64, good["X-Meowflow-Signature"][:63], good["X-Meowflow-Signature"] + "0", "z" * 64, "-"):
        refused(bridge.post(body, headers={"X-Meowflow-Signature": signature}), 403, "signature verification failed")
    refused(bridge.post(body, secret="another secret"), 403, "signature verification failed")
    refused(bridge.post(body, headers=sign(body + b" ", bridge.host)), 403, "signature verification failed")
    refused(bridge.post(body, headers=sign(body, "other.example")), 403, "signature verification failed")
    refused(bridge.post(body, headers=sign(body, bridge.host, "/webhook/")), 403, "signature verification failed")
    refused(bridge.post(body, headers=sign(body, bridge.host, method="PUT")), 403, "signature verification failed")


def test_five_minutes_either_way_and_upper_case_hex_are_accepted(bridge):
    now = int(time.time() * 1000)
    for skew in (-290_000, 290_000):
        assert bridge.post(event(), timestamp=now + skew).status == 200
    body = event()
    upper = sign(body, bridge.host)["X-Meowflow-Signature"].upper()
    assert bridge.post(body, headers={**sign(body, bridge.host), "X-Meowflow-Signature": upper}).status in (200, 403)
    headers = sign(body, bridge.host)
    headers["X-Meowflow-Signature"] = headers["X-Meowflow-Signature"].upper()
    assert bridge.post(body, headers=headers).status == 200


def test_the_query_takes_no_part_and_default_ports_are_dropped(bridge):
    assert bridge.post(event(), path="/webhook?a=1&b=/x").status == 200
    for host in ("hooks.example.com", "hooks.example.com:443", "hooks.example.com:80", "[::1]:443", "hooks.example.com:8443"):
        assert bridge.post(event(), host=host).status == 200, host


def test_paths_are_matched_as_they_stand_in_the_request_line(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"path": "/a%2Fb/%E5%96%B5", "secret": harness.SECRET}]})
    assert bridge.post(event(), path="/a%2Fb/%E5%96%B5").status == 200
    for path in ("/a/b/%E5%96%B5", "/a%2fb/%E5%96%B5", "/webhook", "/", "/a%2Fb/%E5%96%B5/", "//a%2Fb/%E5%96%B5"):
        assert bridge.post(event(), path=path).status == 404, path


def test_unknown_paths_are_404_and_other_methods_405_in_this_order(bridge):
    refused(bridge.post(event(), path="/nothing", signed=False), 404, "no app has this path")
    connection = bridge.connection()
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "post"):
        connection.request(method, "/webhook", body=b"")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Allow"]) == (405, "POST"), method
        answer.read()
        connection.request(method, "/nothing", body=b"")
        answer = connection.getresponse()
        assert answer.status == 404
        answer.read()
    connection.request("HEAD", "/webhook")
    answer = connection.getresponse()
    assert answer.status == 405 and answer.read() == b""
    connection.close()


BAD_BODIES = {
    "empty": b"",
    "not JSON": b"hello",
    "byte order mark": b"\xef\xbb\xbf" + event(),
    "trailing garbage": event() + b"x",
    "trailing NUL": event() + b"\0",
    "leading zero": event(payload=b"01"),
    "raw control": event(payload=b'"\n"'),
    "invalid UTF-8": event(payload=b'"\xff"'),
    "overlong UTF-8": event(payload=b'"\xc0\xaf"'),
    "raw surrogate": event(payload=b'"\xed\xa0\x80"'),
    "bad escape": event(payload=b'"\\x"'),
    "an array": b"[]",
    "a member twice": event()[:-1] + b',"id":"2"}',
    "a member twice, escaped": event()[:-1] + b',"\\u0069d":"2"}',
    "an unknown member twice": event()[:-1] + b',"x":1,"x":2}',
    "id missing": event(id=None),
    "id empty": event(id=""),
    "id null": event()[:-1].replace(b'"id":"', b'"id":null,"was":"') + b"}",
    "id a fraction": event(id=1.5),
    "id an object": event(id={}),
    "webhookId empty": event(webhookId=""),
    "appId missing": event(appId=None),
    "event missing": event(event=None),
    "event empty": event(event=""),
    "event a number": event(event=1),
    "objectId missing": event(objectId=None),
    "pushTime missing": event(pushTime=None),
    "pushTime a number": event(pushTime=1),
    "payload missing": event(payload=None),
    "nesting over 64": event(payload=b"[" * 64 + b"]" * 64),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_400_and_says_which(bridge, name):
    answer = bridge.post(BAD_BODIES[name])
    assert answer.status == 400 and answer.json["data"] is None and len(answer.message) > 10
    if " missing" in name or " empty" in name:
        assert name.split()[0] in answer.message


GOOD_BODIES = {
    "ids as integers": event(id=152066840347062275, webhookId=7, appId=12345, objectId=0).replace(b'"12345"', b"12345"),
    "objectId and pushTime empty": event(objectId="", pushTime=""),
    "unknown members": event(extra={"a": [1, 2]}),
    "an escaped lone surrogate": event(payload=b'"\\ud800"'),
    "nesting of 64": event(payload=b"[" * 63 + b"]" * 63),
    "a payload of null": event(payload=b"null"),
    "white space all around": b" \t\r\n" + event() + b"\n",
}


@pytest.mark.parametrize("name", GOOD_BODIES)
def test_a_good_body_is_taken(bridges, broker, name):
    bridge = bridges(broker)
    assert bridge.post(GOOD_BODIES[name]).status == 200


def test_nothing_of_an_unverified_body_is_parsed(bridge):
    refused(bridge.post(b"not JSON", secret="wrong"), 403, "signature verification failed")


def test_headers_given_twice_are_400(bridge):
    body = event()
    for extra in (f"Host: {bridge.host}", "X-Meowflow-Signature: " + "0" * 64, "x-meowflow-timestamp: 1725105600000"):
        assert raw(bridge, request_bytes(bridge, body, extra)).startswith(b"HTTP/1.1 400 "), extra


def test_a_body_over_the_limit_is_413_before_it_is_read(bridge):
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {64 * 1024 + 1}\r\n\r\n".encode()
    answer = raw(bridge, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == 413
    fits = event(payload=b'"' + b"x" * (60 * 1024) + b'"')
    assert bridge.post(fits).status == 200
    assert bridge.post(event(payload=b'"' + b"x" * (64 * 1024) + b'"')).status == 413
    assert raw(bridge, head.replace(b"/webhook", b"/nothing")).startswith(b"HTTP/1.1 404 ")


def test_a_chunked_body_works_and_has_the_same_limit(bridge):
    def chunked(body, size):
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i:i + size]), body[i:i + size]) for i in range(0, len(body), size))
        headers = {"Host": bridge.host, "Transfer-Encoding": "chunked", "Connection": "close", **sign(body, bridge.host)}
        return ("POST /webhook HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode() + chunks + b"0\r\n\r\n"

    assert raw(bridge, chunked(event(), 7)).startswith(b"HTTP/1.1 200 ")
    too_large = event(payload=b'"' + b"x" * (80 * 1024) + b'"')
    answer = raw(bridge, chunked(too_large, 4096))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_a_request_that_drips_ends_with_408_at_the_timeout(bridges, broker):
    bridge = bridges(broker, config={"http": {"timeout": "1s"}})
    body = event()
    for cut in (30, len(request_bytes(bridge, body)) - 60):
        with socket.create_connection(("127.0.0.1", bridge.port), timeout=harness.DEADLINE) as s:
            s.sendall(request_bytes(bridge, body)[:cut])
            stop = threading.Event()

            def drip():
                try:
                    while not stop.wait(0.2):
                        s.sendall(b"a")
                except OSError:
                    pass

            started = time.monotonic()
            thread = threading.Thread(target=drip)
            thread.start()
            received = b""
            try:
                while part := s.recv(4096):
                    received += part
            except ConnectionResetError:
                pass
            stop.set()
            thread.join()
            assert received.startswith(b"HTTP/1.1 408 "), (cut, received)
            assert time.monotonic() - started < 10


def test_an_app_verifies_with_its_public_url_where_a_proxy_rewrote_host_and_path(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"path": "/inner", "secret": harness.SECRET,
                                                       "public_url": "https://hooks.example.com:8443/outer/path"}]})
    body = event()
    assert bridge.post(body, path="/inner", headers=sign(body, "hooks.example.com:8443", "/outer/path")).status == 200
    assert bridge.post(event(), path="/inner").status == 403


def test_apps_on_one_path_are_told_apart_by_whose_secret_verifies(bridges, broker):
    apps = [{"id": "1", "secret": "one"}, {"id": "2", "secret": "two"}, {"id": "", "path": "/any", "secret": "any"}]
    bridge = bridges(broker, env={}, config={"apps": apps})
    assert bridge.post(event(appId="1"), secret="one").status == 200
    assert bridge.post(event(appId="2"), secret="two").status == 200
    refused(bridge.post(event(appId="2"), secret="one"), 403, "app is not allowed")
    refused(bridge.post(event(appId="3"), secret="two"), 403, "app is not allowed")
    refused(bridge.post(event(appId="1"), secret="any"), 403, "signature verification failed")
    assert bridge.post(event(appId="whatever"), path="/any", secret="any").status == 200


def test_above_its_rate_limit_an_app_gets_429_with_retry_after(bridges, broker):
    bridge = bridges(broker, env={}, config={"apps": [{"secret": harness.SECRET, "rate_limit": 2}]})
    connection = bridge.connection()
    answers = [bridge.post(event(), connection=connection) for _ in range(8)]
    limited = [a for a in answers if a.status == 429]
    assert limited and {a.status for a in answers} == {200, 429}
    assert int(limited[0].headers["Retry-After"]) >= 1
    wait_until(lambda: bridge.post(event(), connection=connection).status == 200, "the bucket to fill again")
    connection.close()


def test_unix_socket_and_ipv6_listeners_serve(bridges, broker):
    bridge = bridges(broker, config={"http": {"listen": "unix:http.sock"}})
    body = event()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(harness.DEADLINE)
        s.connect(os.path.join(bridge.folder, "http.sock"))
        headers = {"Host": "localhost", "Content-Length": len(body), "Connection": "close", **sign(body, "localhost")}
        s.sendall(("POST /webhook HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode() + body)
        assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
    bridge.stop()
    assert not os.path.exists(os.path.join(bridge.folder, "http.sock"))
    six = bridges(broker, folder="six", config={"http": {"listen": "[::1]:0"}})
    with socket.create_connection(("::1", six.port), timeout=harness.DEADLINE) as s:
        s.sendall(request_bytes(six, event()))
        assert s.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_tls_serves_and_a_reload_changes_the_certificate(bridges, broker, tmp_path):
    certificates = harness.Certificates(tmp_path / "certificates")
    files = [certificates.issue("first"), certificates.issue("second")]
    bridge = bridges(broker, config={"http": {"tls": {"certificate_file": files[0][0], "key_file": files[0][1]}}})
    context = harness.tls_context(certificates.ca)

    def subject_and_status():
        body = event()
        with socket.create_connection(("127.0.0.1", bridge.port), timeout=harness.DEADLINE) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as s:
                s.sendall(request_bytes(bridge, body))
                return dict(x[0] for x in s.getpeercert()["subject"])["commonName"], s.recv(65536)[:13]

    assert subject_and_status() == ("first", b"HTTP/1.1 200 ")
    bridge.configure({"http": {"tls": {"certificate_file": files[1][0], "key_file": files[1][1]}}})
    bridge.reload()
    assert subject_and_status() == ("second", b"HTTP/1.1 200 ")
    bridge.configure({"http": {"tls": {"key_file": files[0][1]}}})  # does not fit the certificate
    bridge.reload()
    assert "the configuration is not taken" in bridge.log()
    assert subject_and_status() == ("second", b"HTTP/1.1 200 ")


def test_a_thousand_keep_alive_connections_are_served_at_once(bridges, broker):
    bridge = bridges(broker)
    connections = [bridge.connection() for _ in range(1000)]
    body = [event() for _ in connections]
    for connection in connections:
        connection.connect()
    for round_ in range(2):
        for connection, b in zip(connections, body):
            connection.request("POST", "/webhook", body=b, headers=sign(b, bridge.host))
        duplicates = [json.loads(c.getresponse().read())["data"]["duplicate"] for c in connections]
        assert duplicates == [round_ == 1] * len(connections)
    for connection in connections:
        connection.close()


def test_nothing_is_served_here_but_webhooks(bridge):
    for path in ("/livez", "/readyz", "/metrics", "/api/status"):
        refused(bridge.post(event(), path=path), 404, "no app has this path")

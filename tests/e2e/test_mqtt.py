"""contract.md 5 and 2 (routes, mqtt): what subscribers see, and what brokers may do."""

import json
import signal
import time

import pytest

import harness
from harness import event, sign, wait_until
from mqtt_peer import ScriptedBroker, puback_packet

READER_AND_WRITER = """user meowbridge
topic write meowflow/#
topic write meowbridge/#
user reader
topic read #
"""


def routes(*routes):
    return {"routes": list(routes)}


def one(subscriber):
    (message,) = subscriber.wait(1)
    return message


def test_every_message_is_a_cloudevent_in_binary_mode(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    body = event(id="123456", payload=b'{"a":1.50}')
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert bridge.post(body, headers={"traceparent": trace, "tracestate": "a=1,b=2"}).status == 200
    m = one(subscriber)
    assert (m.topic, m.payload, m.qos, m.retain) == ("meowflow/workflowTask/completed", b'{"a":1.50}', 1, False)
    assert (m.content_type, m.format, m.expiry) == ("application/json", 1, None)
    assert m.properties == [
        ("specversion", "1.0"),
        ("id", "123456"),
        ("source", "https://meowflow.com.cn/apps/12345"),
        ("type", "cn.com.meowflow.workflowTask.completed"),
        ("subject", "task_123456"),
        ("time", "2024-08-31T12:00:00Z"),
        ("appid", "12345"),
        ("webhookid", "1234567"),
        ("traceparent", trace),
        ("tracestate", "a=1,b=2"),
    ]


def test_empty_and_malformed_attributes_are_left_out_and_forbidden_characters_encoded(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    body = event(id="a\u0001\u0085", objectId="", pushTime="yesterday", appId="a/ b").replace(b'"1234567"', b'"x\\ud800y"')
    assert bridge.post(body, headers={"traceparent": "00-bad", "tracestate": "a=1"}).status == 200
    m = one(subscriber)
    assert m.property("id") == "a%01%C2%85"
    assert m.property("webhookid") == "x%ED%A0%80y"
    assert m.property("source") == "https://meowflow.com.cn/apps/a%2F%20b"
    assert [n for n, _ in m.properties] == ["specversion", "id", "source", "type", "appid", "webhookid"]


def test_a_trace_parent_given_twice_is_none_and_a_trace_state_may_come_in_parts(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    cases = [
        ([("traceparent", trace), ("tracestate", "a=1"), ("TraceState", "b=2")], (trace, "a=1,b=2")),
        ([("traceparent", trace), ("tracestate", "a=1"), ("tracestate", "B")], (trace, None)),
        ([("traceparent", trace), ("tracestate", "a=1")] + [("tracestate", "")] * 40, (trace, None)),
        ([("traceparent", trace), ("Traceparent", trace), ("tracestate", "a=1")], (None, None)),
        ([("tracestate", "a=1")], (None, None)),
    ]
    for headers, _ in cases:
        body, connection = event(), bridge.connection()
        connection.putrequest("POST", "/webhook")
        for name, value in [*sign(body, bridge.host).items(), ("Content-Length", str(len(body))), *headers]:
            connection.putheader(name, value)
        connection.endheaders(body)
        assert connection.getresponse().status == 200
        connection.close()
    messages = subscriber.wait(len(cases))
    assert [(m.property("traceparent"), m.property("tracestate")) for m in messages] == [expected for _, expected in cases]


TOPICS = {
    "a.b.c": "meowflow/a/b/c",
    "plain": "meowflow/plain",
    "a/b": "meowflow/a%2Fb",
    "a+b#": "meowflow/a%2Bb%23",
    "$SYS.x": "meowflow/%24SYS/x",
    "100%": "meowflow/100%25",
    "喵.好": "meowflow/喵/好",
    "a..b": "meowflow/a//b",
    "tab\t": "meowflow/tab%09",
    "nul\0": "meowflow/nul%00",
    "c1\u0085": "meowflow/c1%C2%85",
    "non\ufffe": "meowflow/non%EF%BF%BE",
    " ": "meowflow/ ",
}


def test_event_names_become_topics_and_never_reach_outside_their_level(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = bridges(broker, config={"mqtt": {"status_topic": ""}})
    for name in TOPICS:
        assert bridge.post(event(event=name)).status == 200
    assert [m.topic for m in subscriber.wait(len(TOPICS))] == list(TOPICS.values())


def test_every_matching_route_applies_in_order_with_all_its_topics(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, "#")
    bridge = bridges(broker, config={"mqtt": {"status_topic": ""}, **routes(
        {"event": "workflowTask.*", "topics": ["a/{event}", "a/{appId}/{webhookId}/{objectId}/{id}"], "qos": 0},
        {"event": "*.completed", "topics": ["b/{event}"], "qos": 2, "body": "envelope"},
        {"event": "other", "topics": ["c/{event}"]},
        {"event": "*", "topics": ["d"], "qos": 1, "retain": True, "body": "cloudevent", "expiry": "1h"},
    )})
    body = event(id="9", objectId="o/1", payload=b'{ "n":1.50}')
    assert bridge.post(body).status == 200
    got = sorted(subscriber.wait(4), key=lambda m: (m.topic[0], m.topic != "a/workflowTask/completed"))  # a broker orders within a QoS only
    assert [(m.topic, m.qos) for m in got] == [("a/workflowTask/completed", 0), ("a/12345/1234567/o%2F1/9", 0),
                                               ("b/workflowTask/completed", 2), ("d", 1)]
    assert [m.payload for m in got[:3]] == [b'{ "n":1.50}', b'{ "n":1.50}', body]
    assert got[3].content_type == "application/cloudevents+json" and 3590 <= got[3].expiry <= 3600
    assert got[3].payload.endswith(b'"data":{ "n":1.50}}')
    assert json.loads(got[3].payload) == {
        "specversion": "1.0", "id": "9", "source": "https://meowflow.com.cn/apps/12345",
        "type": "cn.com.meowflow.workflowTask.completed", "subject": "o/1", "time": "2024-08-31T12:00:00Z",
        "datacontenttype": "application/json", "appid": "12345", "webhookid": "1234567", "data": {"n": 1.5}}
    late = subscribers(broker.port, "d", client_id="late")
    assert one(late).retain


def test_an_event_that_no_route_takes_is_dead_and_the_line_moves_on(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config=routes({"event": "a.*", "topics": ["meowflow/{event}"]}))
    assert [bridge.post(event(event=n)).status for n in ("b.x", "a.x")] == [200, 200]
    assert one(subscriber).topic == "meowflow/a/x"
    bridge.wait_log("no route")


def test_what_has_run_out_is_dead_and_not_published(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "persistence true", f"persistence_location {tmp_path}/broker/").start()
    try:
        subscriber = subscribers(broker.port)
        broker.stop()
        bridge = bridges(broker, config=routes({"event": "short", "topics": ["meowflow/{event}"], "expiry": "1s"},
                                               {"event": "long", "topics": ["meowflow/{event}"], "expiry": "1h"}))
        assert bridge.post(event(event="short")).status == 200
        accepted = time.time()
        assert bridge.post(event(event="long")).status == 200
        wait_until(lambda: time.time() > accepted + 1.1, "a second to pass")
        broker.start()
        message = one(subscriber)
        assert message.topic == "meowflow/long" and 3500 < message.expiry <= 3600
        bridge.wait_log("expired")
    finally:
        broker.stop()


def test_an_event_of_which_one_message_has_run_out_is_dead_and_the_other_is_published(bridges, tmp_path):
    broker = harness.Broker(tmp_path / "broker")
    bridge = bridges(broker, config=routes({"event": "*", "topics": ["short"], "expiry": "1s"}, {"event": "*", "topics": ["long"]}))
    accepted = time.time()
    assert bridge.post(event()).status == 200
    wait_until(lambda: time.time() > accepted + 1.1, "a second to pass")
    broker.start()
    bridge.wait_log("expired before it was published")
    assert bridge.stop() == 0
    assert "published=0 dead=1" in bridge.log() and "'long'" in open(broker.log).read() and "'short'" not in open(broker.log).read()
    broker.stop()


def test_the_log_says_why_an_event_is_dead_however_long_its_names_are(bridges, broker):
    bridge = bridges(broker).connected()
    assert bridge.post(event(event="喵" * 30_000, id="i" * 70_000)).status == 200
    bridge.wait_log("an event is dead seq=1 id=iii")
    assert "a topic is longer than the 65535 bytes" in bridge.log()


def test_unheard_events_are_delivered_or_dead_as_the_route_says(bridges, broker):
    bridge = bridges(broker, config=routes({"event": "a", "topics": ["x/a"]}, {"event": "b", "topics": ["x/b"], "unheard": "dead"}))
    assert [bridge.post(event(event=n)).status for n in ("a", "b")] == [200, 200]
    bridge.wait_log("nobody subscribes")
    bridge.stop()
    assert "published=1" in bridge.log() and "dead=1" in bridge.log()


@pytest.fixture
def acl_broker(tmp_path):
    folder = tmp_path / "acl-broker"
    folder.mkdir()
    (folder / "acl").write_text(READER_AND_WRITER)
    (folder / "passwords").touch()
    for user in ("meowbridge", "reader"):
        harness.subprocess.run(["mosquitto_passwd", "-b", str(folder / "passwords"), user, f"{user}-password"], check=True)
    broker = harness.Broker(folder, f"acl_file {folder}/acl", f"password_file {folder}/passwords", anonymous=False).start()
    yield broker
    broker.stop()


def with_password(tmp_path, password="meowbridge-password"):
    file = tmp_path / "password"
    file.write_text(password + "\n")
    file.chmod(0o600)
    return {"mqtt": {"username": "meowbridge", "password_file": str(file)}}


def test_what_the_acl_forbids_is_dead_with_its_reason_and_the_line_moves_on(bridges, acl_broker, subscribers, tmp_path):
    subscriber = subscribers(acl_broker.port, "#", username="reader", password="reader-password")
    bridge = bridges(acl_broker, config={**with_password(tmp_path), **routes({"event": "*", "topics": ["{event}"]})})
    for name in ("meowflow.a", "forbidden", "meowflow.b"):
        assert bridge.post(event(event=name)).status == 200
    wait_until(lambda: [m.topic for m in subscriber.messages if m.topic.startswith("meowflow")] == ["meowflow/a", "meowflow/b"],
               "both allowed events")
    bridge.wait_log("0x87")
    assert "forbidden" in bridge.log()


def test_a_wrong_password_is_said_and_mended_by_a_reload(bridges, acl_broker, subscribers, tmp_path):
    subscriber = subscribers(acl_broker.port, "meowflow/#", username="reader", password="reader-password")
    bridge = bridges(acl_broker, config=with_password(tmp_path, "not-the-password"))
    assert bridge.post(event()).status == 200
    bridge.wait_log("refused")
    assert "not-the-password" not in bridge.log()
    with_password(tmp_path)  # the right one, in the same file
    bridge.reload()
    one(subscriber)


def test_a_forbidden_status_topic_is_given_up_with_one_warning(bridges, acl_broker, subscribers, tmp_path):
    subscriber = subscribers(acl_broker.port, "meowflow/#", username="reader", password="reader-password")
    bridge = bridges(acl_broker, config={**with_password(tmp_path), "mqtt": {**with_password(tmp_path)["mqtt"], "status_topic": "no/{client_id}"}})
    assert bridge.post(event()).status == 200
    one(subscriber)
    bridge.wait_log("status topic")
    assert bridge.log().count("WARN") >= 1 and bridge.log().count("status topic") == 1


def test_birth_and_last_will_are_retained_on_the_status_topic(bridges, broker, subscribers):
    watcher = subscribers(broker.port, "meowbridge/#", client_id="watcher")
    bridge = bridges(broker, config={"mqtt": {"client_id": "me"}})
    assert [(m.topic, m.payload) for m in watcher.wait(1)] == [("meowbridge/me/status", b"online")]
    assert bridge.stop() == 0
    assert watcher.wait(2)[1].payload == b"offline"
    bridge.start()
    assert watcher.wait(3)[2].payload == b"online"
    bridge.kill()
    assert watcher.wait(4)[3].payload == b"offline"
    assert one(subscribers(broker.port, "meowbridge/#", client_id="late")).retain


def test_the_client_id_is_made_once_and_kept(bridges, broker, subscribers):
    watcher = subscribers(broker.port, "meowbridge/#", client_id="watcher")
    bridge = bridges(broker)
    watcher.wait(1)
    bridge.stop()
    bridge.start()
    topics = {m.topic for m in watcher.wait(3)}
    assert len(topics) == 1 and len(topics.pop()) > len("meowbridge//status")


def test_mqtt_3_1_1_publishes_and_warns_once_what_it_cannot_see(bridges, broker, subscribers):
    subscriber = subscribers(broker.port, version=3)
    bridge = bridges(broker, config={"mqtt": {"version": 3}})
    for i in range(3):
        assert bridge.post(event(payload=b"%d" % i)).status == 200
    assert [m.payload for m in subscriber.wait(3)] == [b"0", b"1", b"2"]
    assert bridge.log().count("3.1.1") == 1


def test_tls_and_mutual_tls_to_the_broker(bridges, subscribers, tmp_path):
    certificates = harness.Certificates(tmp_path / "certificates")
    (server, server_key), (client, client_key) = certificates.issue("server"), certificates.issue("client")
    tls, plain = harness.free_port(), harness.free_port()
    broker = harness.Broker(tmp_path / "broker", f"listener {tls} 127.0.0.1", f"cafile {certificates.ca}", f"certfile {server}",
                            f"keyfile {server_key}", "require_certificate true", f"listener {plain} 127.0.0.1", port=plain).start()
    try:
        subscriber = subscribers(plain)
        options = {"url": f"mqtts://localhost:{tls}", "tls": {"ca_file": certificates.ca, "certificate_file": client, "key_file": client_key}}
        bridge = bridges(config={"mqtt": options})
        assert bridge.post(event(payload=b'"' + b"x" * 300_000 + b'"')).status == 200
        assert len(one(subscriber).payload) == 300_002
        assert bridge.stop() == 0
        wrong = harness.Certificates(tmp_path / "other")
        bridge.configure({"mqtt": {"tls": {"ca_file": wrong.ca}}})
        bridge.start()
        bridge.wait_log("certificate")
        assert bridge.stop() == 0
        other, other_key = certificates.issue("elsewhere", "DNS:elsewhere.example")
        assert other and other_key
    finally:
        broker.stop()


def test_a_certificate_for_another_name_is_refused(bridges, tmp_path):
    certificates = harness.Certificates(tmp_path / "certificates")
    server, key = certificates.issue("server", "DNS:elsewhere.example")
    port = harness.free_port()
    broker = harness.Broker(tmp_path / "broker", f"listener {port} 127.0.0.1", f"certfile {server}", f"keyfile {key}", port=port).start()
    try:
        bridge = bridges(config={"mqtt": {"url": f"mqtts://localhost:{port}", "tls": {"ca_file": certificates.ca}}})
        bridge.wait_log("certificate")
        assert "connected to the broker" not in bridge.log()
    finally:
        broker.stop()


def test_brokers_are_tried_in_order_and_failed_over(bridges, subscribers, tmp_path):
    first, second = (harness.Broker(tmp_path / n).start() for n in ("first", "second"))
    try:
        one_, two = subscribers(first.port), subscribers(second.port)
        bridge = bridges(config={"mqtt": {"url": [f"mqtt://127.0.0.1:{b.port}" for b in (first, second)]}})
        assert bridge.post(event(payload=b"1")).status == 200
        assert one(one_).payload == b"1"
        first.stop()
        assert bridge.post(event(payload=b"2")).status == 200
        assert [m.payload for m in two.wait(1)][-1] == b"2"
    finally:
        first.stop()
        second.stop()


def test_a_frozen_broker_is_noticed_and_never_touches_the_ingress(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"mqtt": {"keepalive": "5s"}})
    bridge.connected()
    broker.signal(signal.SIGSTOP)
    connection, slowest = bridge.connection(), 0
    for i in range(300):
        started = time.monotonic()
        assert bridge.post(event(payload=b"%d" % i), connection=connection).status == 200
        slowest = max(slowest, time.monotonic() - started)
    connection.close()
    bridge.wait_log("lost")
    broker.signal(signal.SIGCONT)
    wait_until(lambda: {int(m.payload) for m in subscriber.messages} == set(range(300)), "all events")
    assert slowest < 5


def test_a_broker_limit_on_packets_makes_the_event_dead_before_it_is_sent(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "max_packet_size 5000").start()
    try:
        subscriber = subscribers(broker.port)
        bridge = bridges(broker)
        bodies = [event(payload=b'"' + b"x" * n + b'"') for n in (10, 6000, 11)]
        assert [bridge.post(b).status for b in bodies] == [200] * 3
        assert [len(m.payload) for m in subscriber.wait(2)] == [12, 13]
        wait_until(lambda: "5000" in bridge.log() or "packet" in bridge.log(), "the reason")
        bridge.stop()
        assert "dead=1" in bridge.log()
    finally:
        broker.stop()


def test_a_message_over_which_the_broker_hangs_up_is_dead_after_three_connections(bridges, subscribers, tmp_path):
    """message_size_limit makes Mosquitto refuse without having said so in CONNACK."""
    broker = harness.Broker(tmp_path / "broker", "message_size_limit 4000").start()
    try:
        subscriber = subscribers(broker.port)
        bridge = bridges(broker)
        bodies = [event(payload=b'"' + b"x" * n + b'"') for n in (10, 6000, 11)]
        assert [bridge.post(b).status for b in bodies] == [200] * 3
        wait_until(lambda: {len(m.payload) for m in subscriber.messages} >= {12, 13}, "the two others")
        wait_until(lambda: " seq=2" in bridge.log() and "dead" in bridge.log(), "the dead event")
    finally:
        broker.stop()


def test_receive_maximum_and_max_rate_are_obeyed(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "max_inflight_messages 1").start()
    try:
        subscriber = subscribers(broker.port)
        bridge = bridges(broker, config={"mqtt": {"max_rate": 50}})
        bridge.connected()
        started = time.monotonic()
        bridge.send("--count", 100, "--connections", 8)
        subscriber.wait(100)
        assert time.monotonic() - started > 1.5  # at 50 a second
        assert "lost" not in bridge.log()
    finally:
        broker.stop()


def test_passing_refusals_are_tried_again_and_permanent_ones_are_dead(bridges):
    codes = {1: 0x97, 2: 0x97, 3: 0x00, 4: 0x99, 5: 0x10}
    broker = ScriptedBroker(lambda n: codes.get(n, 0))
    bridge = bridges(broker)
    for name in ("first", "second", "third"):
        assert bridge.post(event(event=name)).status == 200
        wait_until(lambda: {"first": 3, "second": 4, "third": 5}[name] <= len(broker.published), name)
    assert broker.published == ["meowflow/first"] * 3 + ["meowflow/second", "meowflow/third"]
    bridge.wait_log("0x99")
    assert bridge.stop() == 0
    assert "published=2" in bridge.log() and "dead=1" in bridge.log()
    broker.close()


class Unheard(ScriptedBroker):
    """Confirms at QoS 2, and says of each message that nobody subscribes to it; Mosquitto never does at that QoS."""

    PUBREC, PUBREL, PUBCOMP = 5, 6, 7

    def handle(self, connection, first, body):
        if first >> 4 == self.PUBREL:
            connection.sendall(puback_packet(body[:2], kind=self.PUBCOMP))
            return True
        return super().handle(connection, first, body)

    def event(self, connection, publish):
        self.published.append(publish.topic)
        connection.sendall(puback_packet(publish.mid, 0x10, self.PUBREC))
        return True


def test_unheard_events_of_qos_2_are_delivered_or_dead_as_the_route_says(bridges):
    broker = Unheard()
    bridge = bridges(broker, config=routes({"event": "a", "topics": ["x/a"], "qos": 2},
                                           {"event": "b", "topics": ["x/b"], "qos": 2, "unheard": "dead"}))
    assert [bridge.post(event(event=n)).status for n in ("a", "b", "a")] == [200] * 3
    wait_until(lambda: broker.published == ["x/a", "x/b", "x/a"], "all messages, and none twice")
    bridge.wait_log("nobody subscribes to x/b (0x10)")
    assert bridge.stop() == 0
    assert "published=2 dead=1" in bridge.log()
    broker.close()

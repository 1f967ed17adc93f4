"""The main job: tens of thousands of signed events from many connections arrive, each once, each byte as it was sent."""

import hashlib
import json
import os
import re
import threading

import harness
from harness import event, sign, wait_until

COUNT = int(os.environ.get("MEOWBRIDGE_TEST_EVENTS", "20000"))

PAYLOADS = [
    b'{"id":152066840347062999,"price":1.50,"e":1e2,"z":-0,"big":9223372036854775807,"huge":1E400}',
    b'{ "b" : 1 ,\t"a":[ 1, 2.0,\r\n-0 ] , "a ":{} }',
    '{"text":"订单-喵","escaped":"\\u55b5\\/\\"\\ud83d\\ude00","emoji":"😺"}'.encode(),
    b'"just a string"', b"152066840347062999", b"null", b"[]", b'{"a":1,"a":2}', b'"\\ud800"', b'"\\u0000"',
]


def test_payloads_arrive_byte_for_byte(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    sent = PAYLOADS + [b'"' + bytes([c]) * n + b'"' for c, n in ((65, 100_000), (66, 700_000), (67, 1))]
    for payload in sent:
        assert bridge.post(event(payload=payload)).status == 200
    messages = subscriber.wait(len(sent))
    assert [m.payload for m in messages] == sent  # the order of acceptance is the order of publishing
    assert {m.topic for m in messages} == {"meowflow/workflowTask/completed"}


def test_tens_of_thousands_from_many_connections_arrive_once_each(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={"log": {"level": "info"}})
    connections, per = 50, max(1, COUNT // 100)
    expected, failures, lock = {}, [], threading.Lock()

    def pump(number):
        connection = bridge.connection()
        for i in range(per):
            payload = b'{"n":%d,"i":%d,"pad":"%b"}' % (number, i, b"x" * (i * 37 % 900))
            body = event(payload=payload, event=f"load.c{number}")
            answer = bridge.post(body, connection=connection)
            with lock:
                expected[json.loads(body)["id"]] = (f"meowflow/load/c{number}", hashlib.sha256(payload).digest())
                if answer.status != 200 or answer.duplicate:
                    failures.append(answer.body)
        connection.close()

    threads = [threading.Thread(target=pump, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    sent = bridge.send("--count", COUNT // 2, "--connections", 64, "--event", "load.bulk")
    for thread in threads:
        thread.join()
    assert not failures
    messages = subscriber.wait(connections * per + COUNT // 2, deadline=120)
    assert len(messages) == connections * per + COUNT // 2
    ids = [m.property("id") for m in messages]
    assert len(set(ids)) == len(ids)
    ours = {m.property("id"): (m.topic, hashlib.sha256(m.payload).digest()) for m in messages if m.topic != "meowflow/load/bulk"}
    assert ours == expected
    for number in range(connections):  # one sender's events keep their order
        order = [json.loads(m.payload)["i"] for m in messages if m.topic == f"meowflow/load/c{number}"]
        assert order == list(range(per))
    assert re.search(r"accepted\D+" + str(COUNT // 2), sent.stdout)


def test_duplicates_are_answered_200_and_published_once_also_when_they_come_at_once(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    answers, lock = [], threading.Lock()
    bodies = [event(id=f"same-{i}") for i in range(20)]

    def push():
        connection = bridge.connection()
        for body in bodies:
            answer = bridge.post(body, connection=connection)
            with lock:
                answers.append((body, answer.status, answer.duplicate))
        connection.close()

    threads = [threading.Thread(target=push) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for _, status, _ in answers} == {200}
    for body in bodies:
        assert sorted(d for b, _, d in answers if b == body) == [False] + [True] * 15
    assert bridge.post(event(id="last")).status == 200
    messages = subscriber.wait(21)
    assert sorted(m.property("id") for m in messages) == sorted([f"same-{i}" for i in range(20)] + ["last"])


def test_a_duplicate_is_known_by_app_and_id_and_not_by_its_bytes(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    assert not bridge.post(event(id="7")).duplicate
    assert bridge.post(event(id="7", pushTime="2024-09-01T00:00:00Z", payload=b"1")).duplicate
    assert bridge.post(event().replace(b'"id":"', b'"id":7,"x":"')).duplicate  # the number 7 has the same digits
    assert not bridge.post(event(id="7", appId="other")).duplicate
    assert not bridge.post(event(id="07")).duplicate
    assert len(subscriber.wait(3)) == 3


def test_duplicates_are_known_over_a_restart_and_a_kill(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    bodies = [event() for _ in range(200)] + [event(id=f"text-{i}") for i in range(200)]
    for body in bodies[::2]:
        assert not bridge.post(body).duplicate
    assert bridge.stop() == 0
    bridge.start()
    for body in bodies[::2]:
        assert bridge.post(body).duplicate
    for body in bodies[1::2]:
        assert not bridge.post(body).duplicate
    bridge.kill()
    bridge.start()
    for body in bodies:
        assert bridge.post(body).duplicate
    subscriber.wait(len(bodies))
    assert {m.property("id") for m in subscriber.messages} == {json.loads(b)["id"] for b in bodies}


def test_an_id_is_taken_again_after_retention(bridges, broker):
    bridge = bridges(broker, config={"journal": {"retention": "1s"}})
    body = event(id="9")
    assert not bridge.post(body).duplicate
    wait_until(lambda: not bridge.post(body).duplicate, "the id to be forgotten")


def test_events_wait_for_a_broker_that_is_away_and_keep_their_order(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "persistence true", f"persistence_location {tmp_path}/broker/").start()
    try:
        subscriber = subscribers(broker.port)
        broker.stop()
        bridge = bridges(broker)
        connection = bridge.connection()
        for i in range(500):
            assert bridge.post(event(payload=b"%d" % i), connection=connection).status == 200
        connection.close()
        assert bridge.get("/readyz").status == 200  # with a journal the broker does not count
        broker.start()
        assert [int(m.payload) for m in subscriber.wait(500)] == list(range(500))
    finally:
        broker.stop()


def test_verifying_uses_what_the_guide_signs(bridges, broker, subscribers):
    """The seed example of meowflow.md, posted the way a sender with its own code would."""
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    body = (b'{\n  "id": "123456",\n  "webhookId": "1234567",\n  "appId": "12345",\n  "event": "workflowTask.completed",\n'
            b'  "objectId": "task_123456",\n  "payload": {\n    "task_id": "task_123456",\n    "status": "success",\n'
            b'    "result": {\n      "output": "Hello, World!"\n    }\n  },\n  "pushTime": "2024-08-31T12:00:00Z"\n}')
    assert bridge.post(body, headers=sign(body, bridge.host)).status == 200
    (message,) = subscriber.wait(1)
    assert message.payload == body[body.index(b'{\n    "task_id"'):body.index(b',\n  "pushTime"')]

"""contract.md 4 without a journal: 200 means that the broker has confirmed every message of the event."""

import json
import os
import signal
import threading

import harness
from harness import event, wait_until
from test_life import Load, ids
from mqtt_peer import ScriptedBroker

MEMORY = {"journal": False}


def test_an_event_is_answered_when_the_broker_has_confirmed_it_and_no_disk_is_used(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config=MEMORY).connected()
    body = event()
    assert bridge.post(body).status == 200
    assert bridge.post(body).duplicate
    subscriber.wait(1)
    assert bridge.get("/readyz").status == 200
    assert sorted(os.listdir(bridge.folder)) == ["log", "meowbridge.json"]


def test_without_a_broker_the_answer_is_503_with_retry_after(bridges, broker):
    broker.stop()
    bridge = bridges(broker, config=MEMORY)
    answer = bridge.post(event())
    assert answer.status == 503 and "broker" in answer.message and int(answer.headers["Retry-After"]) >= 1
    assert bridge.get("/readyz").status == 503
    broker.start()
    wait_until(lambda: bridge.post(event()).status == 200, "the broker to be found")


def test_what_the_broker_refuses_or_no_route_takes_is_503_and_says_so(bridges):
    broker = ScriptedBroker(lambda n: 0x87)
    bridge = bridges(broker, config={**MEMORY, "routes": [{"event": "a", "topics": ["x"]}]}).connected()
    wait_until(lambda: "not authorized" in bridge.post(event(event="a")).message, "the refusal")
    answer = bridge.post(event(event="b"))
    assert answer.status == 503 and "route" in answer.message
    broker.close()


def test_qos_0_is_no_confirmation(bridges, tmp_path):
    """Whether the route asks for it or the broker offers no more."""
    broker = harness.Broker(tmp_path / "limited", "max_qos 0").start()
    bridge = bridges(broker, config=MEMORY).connected()
    answer = bridge.post(event())
    assert answer.status == 503 and "QoS 0" in answer.message
    assert bridge.stop() == 0
    broker.stop()


def test_a_confirmation_that_never_comes_is_503_and_the_event_may_come_again(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={**MEMORY, "mqtt": {"keepalive": "5s"}}).connected()
    broker.signal(signal.SIGSTOP)
    body = event()
    answer = bridge.post(body)
    assert answer.status == 503 and "broker" in answer.message
    broker.signal(signal.SIGCONT)
    wait_until(lambda: bridge.post(body).status == 200, "the next push of the same event")
    subscriber.wait(1)


def test_a_duplicate_of_an_unconfirmed_event_waits_for_the_same_confirmation(bridges):
    release = threading.Event()
    broker = ScriptedBroker(lambda n: 0 if release.wait(harness.DEADLINE) else None)
    bridge = bridges(broker, config=MEMORY).connected()
    body, answers = event(), []
    threads = [threading.Thread(target=lambda: answers.append(bridge.post(body))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: broker.published, "the message")
    assert not answers
    release.set()
    for thread in threads:
        thread.join()
    assert sorted((a.status, a.duplicate) for a in answers) == [(200, False), (200, True), (200, True)]
    assert len(broker.published) == 1
    broker.close()


def test_a_broker_that_comes_and_goes_under_load_never_makes_a_200_untrue(bridges, subscribers, tmp_path):
    broker = harness.Broker(tmp_path / "broker", "persistence true", f"persistence_location {tmp_path}/broker/").start()
    try:
        subscriber = subscribers(broker.port)
        bridge = bridges(broker, config={**MEMORY, "log": {"level": "info"}}).connected()
        loads = [Load(bridge) for _ in range(8)]
        for _ in range(3):
            before = sum(len(x.accepted) for x in loads)
            wait_until(lambda: sum(len(x.accepted) for x in loads) > before + 100, "some load")
            broker.stop()
            wait_until(lambda: bridge.post(event()).status == 503, "the refusal")
            broker.start()
        before = sum(len(x.accepted) for x in loads)
        wait_until(lambda: sum(len(x.accepted) for x in loads) > before + 100, "some load again")
        accepted = set().union(*(load.finish() for load in loads))
        assert all(set(load.statuses) <= {200, 503} for load in loads)
        wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    finally:
        broker.stop()


def test_sigterm_answers_what_it_has_taken(bridges, broker, subscribers):
    subscriber = subscribers(broker.port)
    bridge = bridges(broker, config={**MEMORY, "log": {"level": "info"}}).connected()
    loads = [Load(bridge) for _ in range(8)]
    wait_until(lambda: sum(len(x.accepted) for x in loads) > 100, "some load")
    assert bridge.stop() == 0
    accepted = set().union(*(load.finish() for load in loads))
    assert all(set(load.statuses) <= {200, 503} for load in loads)
    wait_until(lambda: accepted <= set(ids(subscriber)), "every accepted event")
    assert json.loads(event())["id"] not in accepted

"""What each consumer of docs/consumers.md has to live through; it is started as `command`, and effects() are (task, payload) of what it did."""

import json
import os
import signal
import subprocess
import urllib.request

from harness import event, wait_until

PAYLOAD = '{ "id":152066840347062275,\t"totalPrice":"1.50","note":"\\"9007199254740993\\" \\u55b5 喵","ids":[-152066840347062277,0.1234567890123456789] }'.encode()


class Consumer:
    def __init__(self, command, log, env=None):
        self.command, self.log_path, self.env, self.process = command, str(log), {**os.environ, **(env or {})}, None

    def start(self):
        before = self.said("subscribed")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.env)
        wait_until(lambda: self.said("subscribed") > before or self.process.poll() is not None, "the consumer")
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        return open(self.log_path, errors="replace").read() if os.path.exists(self.log_path) else ""

    def said(self, word):
        return sum(line.split(" ")[0] == word for line in self.log().splitlines())

    def stop(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


def live(consumer, effects, broker, bridges):
    bridge = bridges(broker, config={"log": {"level": "info"}}).connected()
    try:
        consumer.start()
        gets_an_event_byte_for_byte(consumer, effects, bridge)
        loses_nothing_when_it_is_killed(consumer, effects, bridge)
        drops_a_duplicate(consumer, effects, bridge)
    finally:
        consumer.stop()


def gets_an_event_byte_for_byte(consumer, effects, bridge):
    assert bridge.post(event(payload=PAYLOAD)).status == 200
    wait_until(lambda: consumer.said("done") == 1, f"the event:\n{consumer.log()}")
    assert effects() == [("152066840347062275", PAYLOAD)]


def loses_nothing_when_it_is_killed(consumer, effects, bridge):
    """Killed while events come, away while more come, back: each event had its effect, once."""
    for i in range(100):
        assert bridge.post(event(payload=b'{"id":%d}' % (152066840347070001 + i))).status == 200
        if i == 60:
            wait_until(lambda: consumer.said("done") > 20, "some effects")
            consumer.stop()
    assert len(effects()) < 101
    consumer.start()
    wait_until(lambda: len(effects()) == 101, f"the rest:\n{consumer.log()}")
    assert sorted(task for task, _ in effects()[1:]) == [str(152066840347070001 + i) for i in range(100)]


def drops_a_duplicate(consumer, effects, bridge):
    """A replay is a second message with the same id; the event behind it shows that it was seen and left alone."""
    before = consumer.said("duplicate")
    request = urllib.request.Request(f"http://127.0.0.1:{bridge.admin_port}/api/replay", b'{"seqs":[1]}', {"Content-Type": "application/json"})
    assert json.load(urllib.request.urlopen(request, timeout=30))["replayed"] == 1
    assert bridge.post(event(payload=b'{"id":1}')).status == 200
    wait_until(lambda: effects()[-1][0] == "1", "the event behind the duplicate")
    assert consumer.said("duplicate") == before + 1 and len(effects()) == 102


def read_ledger(path):
    lines = [json.loads(line) for line in open(path, encoding="utf-8").read().split("\n")[:-1]]
    return [(str(line["task"]), line["payload"].encode()) for line in lines]

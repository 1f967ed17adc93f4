"""The page in a real Chromium (Debian's), driven by playwright-core. PLAYWRIGHT_ROOT: the folder where npm installed it, as
scripts/test does."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../e2e"))

from conftest import bridges, broker, subscribers  # noqa: E402,F401
from harness import DEADLINE, event, wait_until  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def play(story, bridge, orders):
    """Runs a story of page.mjs; orders: what it may want done outside."""
    root = os.environ.get("PLAYWRIGHT_ROOT", os.path.join(HERE, "../../build/npm"))
    command = ["node", os.path.join(HERE, "page.mjs"), story, f"http://127.0.0.1:{bridge.admin_port}/"]
    if os.environ.get("MEOWBRIDGE_SHOTS"):
        command.append(os.environ["MEOWBRIDGE_SHOTS"])
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PLAYWRIGHT_ROOT": root})
    last = None
    try:
        for line in driver.stdout:
            said = json.loads(line)
            last = said["order"]
            if last != "done":
                orders[last](said.get("value"))
            driver.stdin.write("ok\n")
            driver.stdin.flush()
        errors = driver.stderr.read()
        assert driver.wait(DEADLINE) == 0 and last == "done", f"after {last}: {errors[-3000:]}"
    finally:
        if driver.poll() is None:
            driver.terminate()
            driver.wait(DEADLINE)


def poster(bridge):
    def post(value):
        assert bridge.post(event(event=value["event"], payload=value["payload"].encode())).status == 200

    return post


def test_the_page_shows_what_flows_and_mends_what_failed(bridges, broker, subscribers):  # noqa: F811
    subscriber = subscribers(broker.port, "#")
    some = [{"event": name, "topics": ["meowflow/{event}"]} for name in ("a.*", "<img*")]
    bridge = bridges(broker, config={"routes": some}).connected()

    def route(routes):
        bridge.configure({"routes": routes})
        bridge.reload()

    def heard(topics):
        wait_until(lambda: [m.topic for m in subscriber.messages if m.property("replay") == "1"] == topics, f"the replays {topics}")

    play("looking", bridge, {
        "post": poster(bridge),
        "mend": lambda _: route([{"event": "*", "topics": ["{event}"]}]),
        "break": lambda _: route(some),
        "heard": heard,
        "broker_stop": lambda _: broker.stop(),
        "broker_start": lambda _: broker.start(),
    })


def test_the_page_asks_for_the_token_and_keeps_it_in_its_tab(bridges, broker, tmp_path):  # noqa: F811
    token = tmp_path / "token"
    token.write_text("right-token\n")
    token.chmod(0o600)
    bridge = bridges(broker, config={"admin": {"listen": "127.0.0.1:0", "token_file": str(token)}})
    play("entering", bridge, {"post": poster(bridge)})

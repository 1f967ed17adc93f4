"""The page in a real Chromium (Debian's), driven by playwright-core. PLAYWRIGHT_ROOT: the folder where npm installed it, as
scripts/test does."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../e2e"))

from conftest import bridges, broker, subscribers  # noqa: E402,F401
from harness import DEADLINE, event  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def test_the_page_shows_events_live_as_text_and_replays_a_dead_one_by_a_click(bridges, broker, subscribers):  # noqa: F811
    subscriber = subscribers(broker.port, "#")
    routes = [{"event": name, "topics": ["meowflow/{event}"]} for name in ("a.*", "<*")]
    bridge = bridges(broker, config={"routes": routes}).connected()
    root = os.environ.get("PLAYWRIGHT_ROOT", os.path.join(HERE, "../../build/npm"))
    command = ["node", os.path.join(HERE, "page.mjs"), f"http://127.0.0.1:{bridge.admin_port}/"]
    if os.environ.get("MEOWBRIDGE_SHOTS"):
        command.append(os.environ["MEOWBRIDGE_SHOTS"])
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PLAYWRIGHT_ROOT": root})
    last = None
    try:
        for line in driver.stdout:
            said = json.loads(line)
            last = said["order"]
            if last == "post":
                body = event(event=said["value"]["event"], payload=said["value"]["payload"].encode())
                assert bridge.post(body).status == 200
            elif last == "mend":
                bridge.configure({"routes": [{"event": "*", "topics": ["{event}"]}]})
                bridge.reload()
            elif last == "heard":
                messages = subscriber.wait(4)
                assert [(m.topic, m.property("replay")) for m in messages if m.property("replay")] == [(said["value"], "1")]
            driver.stdin.write("ok\n")
            driver.stdin.flush()
        errors = driver.stderr.read()
        assert driver.wait(DEADLINE) == 0 and last == "done", f"after {last}: {errors[-3000:]}"
    finally:
        if driver.poll() is None:
            driver.terminate()
            driver.wait(DEADLINE)

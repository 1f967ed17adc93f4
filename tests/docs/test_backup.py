"""docs/operations.md, "Back up": a copy that is made as printed there, beside a bridge under load, holds every event of before and goes on from there."""

import json
import re
import shlex
import sqlite3
import threading

import documents
from conftest import bridges, broker, subscribers  # noqa: F401
from harness import event, free_port


def the_command(journal, target):
    """The page's SQL, for these files."""
    words = shlex.split(documents.block("docs/operations.md", "backup"))
    assert words[:2] == ["sudo", "sqlite3"] and len(words) == 4
    assert re.findall(r"'(.*?)'", words[3]) == ["/var/backups/meowbridge.db"]
    return journal, words[3].replace("/var/backups/meowbridge.db", str(target))


def test_a_backup_beside_a_bridge_under_load_is_whole(tmp_path, bridges, broker, subscribers):  # noqa: F811
    bridge = bridges(config={"mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"}, "log": {"level": "info"}})  # no broker: all of it waits
    answers, ids, stop = [], [], threading.Event()

    def push():
        connection = bridge.connection()
        while not stop.is_set():
            body = event(payload=b'"' + b"x" * 2000 + b'"')
            answers.append(bridge.post(body, connection=connection).status)
            ids.append(json.loads(body)["id"])

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        while len(ids) < 500:
            stop.wait(0.01)
        before = len(ids)
        expected = set(ids[:before])
        journal, statement = the_command(bridge.config["journal"]["path"], tmp_path / "copy.db")
        with sqlite3.connect(journal) as db:
            db.execute(statement)
        after = len(ids)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200} and len(ids) > after  # it went on taking events, before and behind
    bridge.stop()

    with sqlite3.connect(tmp_path / "copy.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    subscriber = subscribers(broker.port)
    bridges(broker, folder="restored", config={"journal": {"path": str(tmp_path / "copy.db")}, "log": {"level": "info"}})
    assert expected <= {m.property("id") for m in subscriber.wait(len(expected))}

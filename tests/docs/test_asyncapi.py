"""docs/asyncapi.yaml is valid (@asyncapi/parser), and what the bridge publishes is what it describes (ajv)."""

import json
import os
import re
import subprocess

import documents
import yaml
from conftest import bridges, broker, subscribers  # noqa: F401
from harness import DEADLINE, event, wait_until

FILE = os.path.join(documents.ROOT, "docs/asyncapi.yaml")
PAYLOAD = (b'{"id":152066840347062275,"createdAt":"2024-08-31T19:59:30.125+08:00","updatedAt":"2024-08-31T20:00:00.000+08:00","customId":"order-7",'
           b'"workflowId":152066840347062001,"viewStatus":3,"reason":null,"startExecutionAt":"2024-08-31T19:59:31.000+08:00",'
           b'"completedAt":"2024-08-31T20:00:00.000+08:00","duration":29,"totalPrice":"1.50","currency":"CNY","processOutputs":{"a":"b"}}')
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}


def judge(messages, path=FILE):
    done = subprocess.run(["node", os.path.join(os.path.dirname(__file__), "asyncapi.mjs"), path], input=json.dumps(messages), capture_output=True,
                          text=True, timeout=DEADLINE, env={**os.environ, "MEOWBRIDGE_NPM": documents.NPM})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def received(message, channel, name):
    assert len({k for k, _ in message.properties}) == len(message.properties)
    return {"channel": channel, "message": name, "topic": message.topic, "headers": dict(message.properties), "payload": message.payload.decode(),
            "qos": message.qos, "retain": message.retain, "contentType": message.content_type, "format": message.format}


def test_the_document_is_valid_and_describes_what_is_received(bridges, broker, subscribers):  # noqa: F811
    early = subscribers(broker.port, "#", client_id="early")
    bridge = bridges(broker).connected()
    assert bridge.post(event(payload=PAYLOAD)).status == 200
    assert bridge.post(event(payload=PAYLOAD, objectId="", pushTime=""), headers=TRACE).status == 200
    assert bridge.post(event(payload=b'"any"', event="task.started")).status == 200
    wait_until(lambda: sum(m.topic.startswith("meowflow/") for m in early.messages) == 3, "three events")
    completed, bare, other = [m for m in early.messages if m.topic.startswith("meowflow/")]
    late = subscribers(broker.port, "meowbridge/+/status", client_id="late")
    (status,) = late.wait(1)
    assert bare.property("traceparent") == TRACE["traceparent"] and bare.property("subject") is None

    good = [received(completed, "workflowTaskCompleted", "workflowTaskCompleted"), received(bare, "workflowTaskCompleted", "workflowTaskCompleted"),
            received(completed, "anyEvent", "event"), received(other, "anyEvent", "event"), received(status, "status", "status")]
    first = good[0]

    def headers(**changes):
        return {**first, "headers": {k: v for k, v in {**first["headers"], **changes}.items() if v is not None}}

    bad = [{**first, "topic": "meowflow/workflowTask/started"}, {**first, "qos": 0}, {**first, "retain": True}, {**first, "contentType": None},
           {**first, "format": None}, headers(id=None), headers(source="/meowflow/apps/12345"), headers(type="workflowTask.completed"),
           headers(time="yesterday"), headers(specversion="0.3"), headers(replay="yes"), headers(appId="12345"),
           {**first, "payload": PAYLOAD.decode().replace("152066840347062275", '"152066840347062275"')},
           {**first, "payload": PAYLOAD.decode().replace('"1.50"', "1.5")}, {**first, "payload": "[]"},
           {**first, "payload": PAYLOAD.decode().replace("2024-08-31T20:00:00.000+08:00", "noon")}, {**good[-1], "payload": "away"}]
    judged = judge(good + bad)
    assert judged["document"] == []
    assert judged["messages"][: len(good)] == [[]] * len(good)
    assert [message for message, found in zip(bad, judged["messages"][len(good):]) if not found] == []


def test_a_broken_document_is_noticed(tmp_path):
    broken = tmp_path / "asyncapi.yaml"
    broken.write_text(documents.read("docs/asyncapi.yaml").replace("'#/channels/status'", "'#/channels/nothing'"))
    done = subprocess.run(["node", os.path.join(os.path.dirname(__file__), "asyncapi.mjs"), broken], input="[]", capture_output=True, text=True,
                          timeout=DEADLINE, env={**os.environ, "MEOWBRIDGE_NPM": documents.NPM})
    assert done.returncode != 0 or json.loads(done.stdout)["document"]


def test_the_version_and_the_properties_are_those_of_the_program():
    document = yaml.safe_load(documents.read("docs/asyncapi.yaml"))
    assert f'MEOWBRIDGE_VERSION "{document["info"]["version"]}"' in documents.read("include/meowbridge/version.h")
    described = set(document["components"]["messageTraits"]["cloudEvent"]["headers"]["properties"])
    listed = re.search(r"\| property \|.*?\n\n", documents.read("docs/consumers.md"), re.DOTALL)[0]
    assert described == {name for row in listed.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}

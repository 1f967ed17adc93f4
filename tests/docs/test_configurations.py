"""Every configuration in the documents and in conf/ is one: for `meowbridge check` and for the JSON Schema, which agree on bad ones too.

In a document a `jsonc` block is a configuration, and a `json` block is something else."""

import glob
import json
import os
import subprocess

import documents
import harness
from harness import DEADLINE

SCHEMA = os.path.join(documents.ROOT, "conf/meowbridge.schema.json")
NOT_CONFIGURATIONS = {"conf/meowbridge.schema.json", "conf/example-event.json", "conf/grafana.json"}


def documents_configurations():
    """{where: text}"""
    found = {}
    for path in ["README.md", "README.zh-CN.md", *sorted(os.path.relpath(p, documents.ROOT) for p in glob.glob(documents.ROOT + "/docs/*.md"))]:
        for number, (_, language, text) in enumerate(documents.blocks(path)):
            if language == "jsonc":
                found[f"{path}, block {number}"] = text
            elif language == "json":
                assert not looks_like_one(text), f"{path}, block {number} is a configuration: mark it as jsonc"
    return found


def looks_like_one(text):
    value = json.loads(text)
    return isinstance(value, dict) and set(value) & set(json.load(open(SCHEMA))["properties"]) - {"$schema"}


def files():
    paths = {os.path.relpath(p, documents.ROOT) for p in glob.glob(documents.ROOT + "/conf/**/*.json", recursive=True)}
    return {path: documents.read(path) for path in sorted(paths - NOT_CONFIGURATIONS)}


class Place:
    """A folder that stands for / and for the service's credentials: the files that a configuration names are there."""

    def __init__(self, folder):
        self.folder = str(folder)
        certificates = harness.Certificates(self.folder + "/certificates")
        self.certificate, self.key = certificates.issue("host")
        self.ca = certificates.ca

    def check(self, text):
        """Of a configuration with its files moved into the folder: (exit status, what was said)."""
        def paths(value):
            if isinstance(value, dict):
                for member, v in value.items():
                    if member.endswith("_file") and isinstance(v, str) and v:
                        yield member, v
                    yield from paths(v)
            elif isinstance(value, list):
                for item in value:
                    yield from paths(item)

        try:
            for member, path in set(paths(json.loads(documents.without_comments(text)))):
                moved = path.replace("${CREDENTIALS_DIRECTORY}", self.folder + "/credentials")
                if not moved.startswith(self.folder):
                    moved = self.folder + os.path.join("/root", path)
                    text = text.replace(json.dumps(path), json.dumps(moved))
                self.make(member, moved)
        except ValueError:
            pass  # not JSON: check says so
        file = os.path.join(self.folder, "meowbridge.json")
        with open(file, "w", encoding="utf-8") as f:
            f.write(text)
        done = harness.run("check", "-c", file, env={"CREDENTIALS_DIRECTORY": self.folder + "/credentials", "MEOWFLOW_SECRET": "secret"})
        return done.returncode, done.stdout + done.stderr

    def make(self, member, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        source = {"certificate_file": self.certificate, "key_file": self.key, "ca_file": self.ca}.get(member)
        with open(path, "w") as f:
            f.write(open(source).read() if source else "secret\n")


def ajv(values):
    done = subprocess.run(["node", os.path.join(os.path.dirname(__file__), "schema.mjs"), SCHEMA], input=json.dumps(values), capture_output=True,
                          text=True, timeout=DEADLINE, env={**os.environ, "MEOWBRIDGE_NPM": documents.NPM})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complete(text):
    """The examples show what they are about; an app and its secret are taken as given."""
    value = json.loads(documents.without_comments(text))
    return text if "apps" in value else text.replace("{", '{ "apps": [{ "secret_file": "/secret" }],', 1)


def test_every_configuration_in_the_documents_and_in_conf_is_accepted_by_check_and_by_the_schema(tmp_path):
    place = Place(tmp_path)
    found = {**documents_configurations(), **files()}
    assert len(found) >= 8 and "conf/meowbridge.json" in found
    for (where, text), errors in zip(found.items(), ajv([json.loads(documents.without_comments(text)) for text in found.values()])):
        status, said = place.check(complete(text))
        assert (status, errors) == (0, []), f"{where}: {said}"


APP = '"apps": [{ "secret": "s" }]'
GOOD = [
    "", '"http": {}', '"http": { "listen": "[::]:8080" }', '"http": { "listen": "unix:/run/x.sock" }', '"http": { "threads": 64 }',
    '"http": { "max_body": "64MiB", "timeout": "100ms" }', '"mqtt": { "url": ["mqtt://a", "mqtts://[::1]:8883"] }', '"mqtt": { "url": "mqtt://a:1,mqtt://b:2" }',
    '"mqtt": { "version": 3 }', '"mqtt": { "status_topic": "" }', '"mqtt": { "inflight": 65535, "max_rate": 1000000 }', '"journal": false', '"journal": true',
    '"journal": { "max_size": "0B", "retention": "3650d" }', '"routes": []', '"routes": [{ "topics": ["{event}/{appId}/{webhookId}/{objectId}/{id}"], "qos": 2 }]',
    '"routes": [{ "body": "cloudevent", "unheard": "dead", "retain": true, "expiry": "1s" }]', '"log": { "level": "debug", "format": "json" }', '"$schema": "x"',
    '"mqtt": { "username": "${MEOWFLOW_SECRET}" }', '"mqtt": { "url": "mqtt://${MEOWFLOW_SECRET}" }',
]
BAD = [
    '"htp": {}', '"http": []', '"http": null', '"http": { "listn": "0.0.0.0:1" }', '"http": { "listen": 8080 }', '"http": { "listen": "8080" }',
    '"http": { "listen": "localhost:8080" }', '"http": { "listen": "unix:" }', '"http": { "threads": 0 }', '"http": { "threads": 65 }', '"http": { "threads": 1.5 }',
    '"http": { "threads": "1" }', '"http": { "max_body": 1048576 }', '"http": { "max_body": "1MB" }', '"http": { "max_body": "1 MiB" }', '"http": { "max_body": "-1B" }',
    '"http": { "timeout": "15" }', '"http": { "timeout": "15 s" }', '"http": { "timeout": 15 }', '"http": { "timeout": "1w" }', '"http": { "max_connections": 0 }',
    '"http": { "max_connections_per_ip": -1 }', '"http": { "tls": { "cert": "x" } }', '"http": { "tls": true }', '"admin": { "listen": "" }', '"admin": { "token": "x" }',
    '"admin": { "$schema": "x" }', '"mqtt": { "url": "broker" }', '"mqtt": { "url": "tcp://broker" }', '"mqtt": { "url": "mqtt://" }', '"mqtt": { "url": "mqtt://user:password@broker" }',
    '"mqtt": { "url": "mqtt://broker/path" }', '"mqtt": { "url": [] }', '"mqtt": { "url": [5] }', '"mqtt": { "url": "" }', '"mqtt": { "version": 4 }', '"mqtt": { "version": "5" }',
    '"mqtt": { "password": "x" }', '"mqtt": { "inflight": 0 }', '"mqtt": { "inflight": 65536 }', '"mqtt": { "max_rate": -1 }', '"mqtt": { "keepalive": "10" }',
    '"mqtt": { "status_topic": "a/#" }', '"mqtt": { "status_topic": "a/{event}" }', '"journal": "meowbridge.db"', '"journal": null', '"journal": { "path": "" }',
    '"journal": { "path": false }', '"journal": { "retention": 7 }', '"journal": { "max_size": "4GB" }', '"journal": { "sync": false }', '"routes": {}', '"routes": [5]',
    '"routes": [{ "topic": "x" }]', '"routes": [{ "topics": [] }]', '"routes": [{ "topics": "x" }]', '"routes": [{ "topics": [""] }]', '"routes": [{ "topics": ["a/+"] }]',
    '"routes": [{ "topics": ["a/{evnt}"] }]', '"routes": [{ "topics": ["a/{event"] }]', '"routes": [{ "topics": ["a/}"] }]', '"routes": [{ "event": "" }]', '"routes": [{ "qos": 3 }]',
    '"routes": [{ "qos": "1" }]', '"routes": [{ "retain": 1 }]', '"routes": [{ "expiry": "never" }]', '"routes": [{ "body": "raw" }]', '"routes": [{ "unheard": "drop" }]',
    '"log": { "level": "warning" }', '"log": { "format": "xml" }', '"log": "debug"', '"log": { "file": "x" }',
]
BAD_APPS = [
    '{}', '[5]', '[{ "secret": "s", "id": 12345 }]', '[{ "secret": "" }]', '[{ "secret": 5 }]', '[{ "secret": "s", "secret_file": "f" }]', '[{ "secret": "s", "path": "webhook" }]',
    '[{ "secret": "s", "path": "/a?b" }]', '[{ "secret": "s", "public_url": "example.com" }]', '[{ "secret": "s", "public_url": "ftp://example.com" }]',
    '[{ "secret": "s", "rate_limit": -1 }]', '[{ "secret": "s", "rate_limit": 1.5 }]', '[{ "secret": "s", "previous_secret": "p" }]', '[{ "secrt": "s" }]',
]
# What depends on two places, on a file or on the environment only check can see.
ONLY_CHECK = [
    ('"http": { "tls": { "certificate_file": "/c" } }', "key_file"), ('"admin": { "listen": "0.0.0.0:9090" }', "token"), ('"http": { "timeout": "2h" }', "timeout"),
    ('"http": { "listen": "0.0.0.0:70000" }', "listen"), ('"mqtt": { "client_id": "${NOBODY_SET_THIS}" }', "NOBODY_SET_THIS"), ('"log": {}, "log": {}', "twice"),
    ('"journal": false, "routes": [{ "qos": 0 }]', "qos"),
]


def test_check_and_the_schema_agree_on_good_and_bad_configurations(tmp_path):
    place = Place(tmp_path)

    def whole(members):
        return "{ " + ", ".join(filter(None, [APP, members])) + " }"

    good = [whole(members) for members in GOOD]
    bad = [whole(members) for members in BAD] + ["{ \"apps\": " + apps + " }" for apps in BAD_APPS] + ["[]", "5", "null"]
    only = [whole(members) for members, _ in ONLY_CHECK]
    verdicts = ajv([json.loads(text) for text in good + bad + only])
    disagreed = []
    for i, (text, errors) in enumerate(zip(good + bad, verdicts)):
        status, said = place.check(text)
        if (status, not errors) != ((0, True) if i < len(good) else (2, False)):
            disagreed.append((text, status, said[-200:], errors))
    assert disagreed == []
    for (members, word), text in zip(ONLY_CHECK, only):
        status, said = place.check(text)
        assert status == 2 and word in said, (members, said)


def test_the_defaults_in_the_schema_are_those_that_check_prints():
    done = harness.run("check", env={"MEOWBRIDGE_SECRET": "s"})
    assert done.returncode == 0, done.stderr
    printed, schema = json.loads(done.stdout), json.load(open(SCHEMA))

    def resolved(node):
        return {**schema["$defs"][node["$ref"].rsplit("/", 1)[1]], **node} if "$ref" in node else node

    def compare(node, value, path):
        """Every leaf that check prints has this default in the schema, and the schema has no more."""
        node = resolved(node)
        if path == "apps[].secret":
            assert "default" not in node
            return 1
        if path == "journal":
            assert node["default"] is True
            node = next(choice for choice in node["oneOf"] if choice["type"] == "object")
        if isinstance(value, dict):
            names = set(node["properties"]) - {"$schema"}
            assert names == set(value), path
            return sum(compare(node["properties"][name], value[name], f"{path}.{name}".lstrip(".")) for name in names)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return sum(compare(node["items"], item, path + "[]") for item in value)
        assert node["default"] == value, path
        return 1

    assert compare(schema, printed, "") > 35

"""What an end-to-end test needs: a broker, a bridge, a sender and a subscriber, each real, each on its own port and folder.

Nothing here waits for a time: wait_until() waits for a condition and fails loudly at its deadline."""

import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

BINARY = os.environ.get("MEOWBRIDGE_BIN", os.path.join(os.path.dirname(__file__), "../../build/dev/meowbridge"))
SECRET = "meow-secret-0123456789abcdef"
DEADLINE = float(os.environ.get("MEOWBRIDGE_TEST_DEADLINE", "30"))


def wait_until(condition, what, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline} s for {what}"
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def binary_for_anybody(folder):
    """A copy of the program in a folder that another user can reach; the checkout may lie in a home directory that is closed."""
    path = os.path.join(folder, "meowbridge")
    shutil.copy(BINARY, path)
    os.chmod(path, 0o755)
    return path


def accepts(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


# --- events as MeowFlow sends them ---

_counter = iter(range(152066840347062275, 1 << 62))


def event(payload=b'{"status":"success"}', **members):
    """A request body as bytes; members override the fields, None leaves one out."""
    fields = {
        "id": str(next(_counter)),
        "webhookId": "1234567",
        "appId": "12345",
        "event": "workflowTask.completed",
        "objectId": "task_123456",
        "pushTime": "2024-08-31T12:00:00Z",
    }
    fields.update(members)
    head = ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in fields.items() if v is not None)
    return b"{" + head.encode() + (b',"payload":' + payload if payload is not None else b"") + b"}"


def sign(body, host, path="/webhook", secret=SECRET, timestamp=None, method="POST"):
    timestamp = str(int(time.time() * 1000)) if timestamp is None else str(timestamp)
    domain = re.sub(r":(80|443)$", "", host)
    text = f"{method} {domain}{path} ".encode() + body + timestamp.encode()
    return {
        "X-Meowflow-Timestamp": timestamp,
        "X-Meowflow-Signature": hmac.new(secret.encode(), text, hashlib.sha256).hexdigest(),
    }


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        try:
            self.json = json.loads(body)
        except ValueError:
            self.json = None

    @property
    def message(self):
        return self.json["message"]

    @property
    def duplicate(self):
        return self.json["data"]["duplicate"]


# --- the broker ---


class Broker:
    def __init__(self, folder, *lines, port=None, anonymous=True):
        self.folder, self.port, self.process = str(folder), port or free_port(), None
        os.makedirs(self.folder, exist_ok=True)
        self.config = os.path.join(self.folder, "mosquitto.conf")
        with open(self.config, "w") as f:
            if not any(line.startswith("listener") for line in lines):
                f.write(f"listener {self.port} 127.0.0.1\n")
            f.write(f"allow_anonymous {'true' if anonymous else 'false'}\nmax_queued_messages 0\n"
                    f"log_type all\nuser root\n" + "".join(line.format(port=self.port) + "\n" for line in lines))
        self.log = os.path.join(self.folder, "mosquitto.log")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", self.config], stdout=log, stderr=log)
        wait_until(lambda: accepts(self.port) or self.process.poll() is not None, "the broker")
        assert self.process.poll() is None, open(self.log).read()
        return self

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(DEADLINE)
        self.process = None

    def signal(self, number):
        self.process.send_signal(number)


# --- the subscriber ---


class Message:
    def __init__(self, message):
        self.topic, self.payload, self.qos, self.retain = message.topic, message.payload, message.qos, bool(message.retain)
        properties = getattr(message, "properties", None)
        self.properties = list(getattr(properties, "UserProperty", []) or [])
        self.content_type = getattr(properties, "ContentType", None)
        self.format = getattr(properties, "PayloadFormatIndicator", None)
        self.expiry = getattr(properties, "MessageExpiryInterval", None)

    def property(self, name):
        values = [v for k, v in self.properties if k == name]
        return values[0] if len(values) == 1 else (None if not values else values)


class Subscriber:
    """A persistent MQTT 5 session at QoS 2 (so that it never adds duplicates of its own), subscribed before it returns."""

    def __init__(self, port, *filters, client_id="subscriber", version=5, username=None, password=None):
        self.messages, self._lock, self._granted = [], threading.Lock(), threading.Event()
        self.filters = filters or ("meowflow/#",)
        self.client = mqtt.Client(client_id, protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311,
                                  clean_session=None if version == 5 else False)
        if username:
            self.client.username_pw_set(username, password)
        self.client.on_connect = lambda *_: self.client.subscribe([(f, self._options(version)) for f in self.filters])
        self.client.on_subscribe = lambda *_: self._granted.set()
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(1, 1)
        arguments = {}
        if version == 5:
            arguments["properties"] = Properties(PacketTypes.CONNECT)
            arguments["properties"].SessionExpiryInterval = 3600
            arguments["clean_start"] = False
        self.client.connect("127.0.0.1", port, keepalive=60, **arguments)
        self.client.loop_start()
        assert self._granted.wait(DEADLINE), "the subscription was not granted"

    @staticmethod
    def _options(version):
        return mqtt.SubscribeOptions(qos=2) if version == 5 else 2

    def _on_message(self, _client, _user, message):
        with self._lock:
            self.messages.append(Message(message))

    def count(self):
        with self._lock:
            return len(self.messages)

    def wait(self, count, deadline=DEADLINE):
        wait_until(lambda: self.count() >= count, f"{count} messages (there are {self.count()})", deadline)
        with self._lock:
            return list(self.messages)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


# --- the bridge ---


class Bridge:
    def __init__(self, folder, broker=None, config=None, env=None, secret=SECRET, wait=True, start=True):
        self.folder, self.process, self.secret = str(folder), None, secret
        os.makedirs(self.folder, exist_ok=True)
        self.config_path = os.path.join(self.folder, "meowbridge.json")
        self.log_path = os.path.join(self.folder, "log")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("MEOWBRIDGE_")}
        self.env.update({"MEOWBRIDGE_SECRET": secret} if env is None else env)
        self.config = {
            "http": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "journal": {"path": os.path.join(self.folder, "journal.db")},
            "log": {"level": "debug"},
        }
        if broker:
            self.config["mqtt"] = {"url": f"mqtt://127.0.0.1:{broker.port}"}
        self.configure(config or {})
        if start:
            self.start(wait)

    def configure(self, changes):
        def merge(into, changes):
            for key, value in changes.items():
                if isinstance(value, dict) and isinstance(into.get(key), dict):
                    merge(into[key], value)
                else:
                    into[key] = value

        merge(self.config, changes)
        with open(self.config_path + ".new", "w") as f:
            json.dump(self.config, f)
        os.replace(self.config_path + ".new", self.config_path)

    def start(self, wait=True):
        self._log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([BINARY, "serve", "-c", self.config_path], stdout=log, stderr=log, env=self.env,
                                            cwd=self.folder)
        if wait:
            wait_until(lambda: " INFO ready" in self.log() or self.process.poll() is not None, "the bridge")
            assert self.process.poll() is None, self.log()
        return self

    def log(self):
        with open(self.log_path, errors="replace") as f:
            f.seek(self._log_start)
            return f.read()

    def wait_log(self, text, count=1, deadline=DEADLINE):
        wait_until(lambda: self.log().count(text) >= count, f"{text!r} in the log:\n{self.log()[-3000:]}", deadline)

    def _address(self, what):
        return re.search(what + r" address=(\S+)", self.log()).group(1)

    @property
    def host(self):
        return self._address("listening for webhooks")

    @property
    def port(self):
        return int(self.host.rsplit(":", 1)[1])

    @property
    def admin_port(self):
        return int(self._address("listening for probes").rsplit(":", 1)[1])

    def connection(self, timeout=DEADLINE):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def post(self, body, path="/webhook", headers=None, connection=None, secret=None, signed=True, host=None, timestamp=None,
             sign_path=None):
        """Posts one signed body; headers override, None removes one."""
        own = connection is None
        connection = connection or self.connection()
        host = host or self.host
        all_headers = {"Host": host, "Content-Type": "application/json"}
        if signed:
            all_headers.update(sign(body, host, (sign_path or path).split("?")[0], secret or self.secret, timestamp))
        all_headers.update(headers or {})
        try:
            connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
            for name, value in all_headers.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            if own:
                connection.close()

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=DEADLINE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def send(self, *arguments, check=True, timeout=300, secret=None, url=None):
        """Runs `meowbridge send` against this bridge; returns the finished process."""
        command = [BINARY, "send", "--url", url or f"http://{self.host}/webhook", *map(str, arguments)]
        done = subprocess.run(command, env={**self.env, "MEOWBRIDGE_SECRET": secret or self.secret}, capture_output=True,
                              text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.log()[-3000:]}"
        return done

    def reload(self):
        before = self.log().count("configuration read again") + self.log().count("the configuration is not taken")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count("configuration read again") + self.log().count("the configuration is not taken") > before,
                   "the reload")

    def connected(self):
        self.wait_log("connected to the broker")
        return self

    def stop(self, how=signal.SIGTERM, deadline=DEADLINE):
        """Stops it and returns the exit status (negative: the signal that ended it)."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(deadline)
        self.process = None
        return status

    def kill(self):
        return self.stop(signal.SIGKILL)


def run(*arguments, env=None, stdin=None, cwd=None, timeout=60):
    """Runs a command of the binary with exactly these MEOWBRIDGE_ variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MEOWBRIDGE_")}
    return subprocess.run([BINARY, *map(str, arguments)], env={**clean, **(env or {})}, input=stdin, capture_output=True, cwd=cwd,
                          timeout=timeout, text=not isinstance(stdin, bytes))


class Certificates:
    """A CA and whatever it signs, made by openssl in a folder."""

    def __init__(self, folder):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.ca = self._path("ca.pem")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self._path("ca.key"),
                      "-out", self.ca, "-days", "2", "-subj", "/CN=Test CA")

    def _path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def issue(self, name, san="IP:127.0.0.1,DNS:localhost"):
        key, request, certificate, extensions = (self._path(f"{name}.{e}") for e in ("key", "csr", "pem", "ext"))
        with open(extensions, "w") as f:
            f.write(f"subjectAltName={san}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, "-subj",
                      f"/CN={name}")
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._path("ca.key"), "-CAcreateserial", "-out",
                      certificate, "-days", "2", "-extfile", extensions)
        return certificate, key


def tls_context(ca):
    return ssl.create_default_context(cafile=ca)

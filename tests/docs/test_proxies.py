"""docs/operations.md and README, "Behind a proxy": a signed push through a real nginx and a real Caddy with the files that are printed there."""

import http.client
import json
import os
import re
import socket
import subprocess

import documents
import harness
import pytest
from conftest import bridges, broker, subscribers  # noqa: F401
from harness import event, free_port, tls_context, wait_until

PAGE, HOST = "docs/operations.md", "hooks.example.com"
PAYLOAD = '{ "id":152066840347062275, "喵":"\\u55b5 %2f" ,"pad":"'.encode() + b" " * 300_000 + b'"}'


class Proxy:
    def __init__(self, folder, upstream):
        self.folder, self.upstream, self.port, self.process = str(folder), upstream, free_port(), None
        os.makedirs(self.folder)
        self.certificates = harness.Certificates(self.folder + "/certificates")
        self.certificate, self.key = self.certificates.issue("hooks", f"DNS:{HOST}")

    def run(self, command, **env):
        with open(self.folder + "/log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": self.folder, **env})
        wait_until(lambda: harness.accepts(self.port) or self.process.poll() is not None, "the proxy")
        assert self.process.poll() is None, open(self.folder + "/log").read()
        return self

    def write(self, name, text, **replace):
        for old, new in replace.values():
            assert old in text, old
            text = text.replace(old, new)
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def nginx(self, server):
        own = self.write("site.conf", server, port=("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
                         upstream=("127.0.0.1:8080", f"127.0.0.1:{self.upstream}"),
                         certificate=(f"/etc/letsencrypt/live/{HOST}/fullchain.pem", self.certificate),
                         key=(f"/etc/letsencrypt/live/{HOST}/privkey.pem", self.key))
        folders = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = self.write("nginx.conf", f"daemon off;\nuser root;\npid {self.folder}/pid;\nerror_log stderr;\nevents {{}}\n"
                                        f"http {{\naccess_log off;\n{folders}include {own};\n}}\n")
        return self.run(["/usr/sbin/nginx", "-p", self.folder, "-e", "stderr", "-c", path])

    def caddy(self, site):
        """Without certificates from elsewhere, and without the ports 80 and 2019."""
        path = self.write("Caddyfile", "{\nadmin off\nauto_https disable_redirects\n}\n" + site,
                          port=(HOST + " {", f"{HOST}:{self.port} {{\n    bind 127.0.0.1\n    tls {self.certificate} {self.key}"),
                          upstream=("127.0.0.1:8080", f"127.0.0.1:{self.upstream}"))
        return self.run(["caddy", "run", "--adapter", "caddyfile", "--config", path], XDG_DATA_HOME=self.folder, XDG_CONFIG_HOME=self.folder)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def post(self, bridge, body, path):
        connection = http.client.HTTPConnection(HOST, timeout=30)
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        connection.sock = tls_context(self.certificates.ca).wrap_socket(plain, server_hostname=HOST)
        try:
            return bridge.post(body, path=path, connection=connection, host=HOST)
        finally:
            connection.close()


@pytest.fixture
def proxies(tmp_path):
    made = []

    def make(kind, text, upstream):
        proxy = Proxy(tmp_path / f"proxy{len(made)}", upstream)
        made.append(proxy)
        return getattr(proxy, kind)(text)

    yield make
    for proxy in made:
        proxy.stop()


def block(name):
    return documents.block(PAGE, name)


def inside_the_server(location):
    """The page's whole server with another location in it."""
    return re.sub(r"    location.*?\n    }\n", lambda _: location, block("nginx.conf"), flags=re.DOTALL)


def of_the_readme(path):
    (location,) = [text for _, language, text in documents.blocks(path) if language == "nginx"]
    return inside_the_server(location.replace("http://127.0.0.1:8080", "http://meowbridge"))


@pytest.mark.parametrize("kind, text", [
    ("nginx", block("nginx.conf")), ("nginx", of_the_readme("README.md")), ("nginx", of_the_readme("README.zh-CN.md")), ("caddy", block("Caddyfile")),
], ids=["nginx", "nginx of the README", "nginx of the Chinese README", "caddy"])
def test_a_signed_push_passes_through_unchanged(bridges, broker, subscribers, proxies, kind, text):  # noqa: F811
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    proxy = proxies(kind, text, bridge.port)
    answer = proxy.post(bridge, event(payload=PAYLOAD), "/webhook")
    assert (answer.status, answer.message) == (200, "OK"), answer.body
    assert subscriber.wait(1)[0].payload == PAYLOAD
    if text in (block("nginx.conf"), block("Caddyfile")):  # what is too large is refused by the bridge, in its own words
        answer = proxy.post(bridge, event(payload=b'"' + b"x" * (1 << 20) + b'"'), "/webhook")
        assert answer.status == 413 and answer.json["code"] == 413


@pytest.mark.parametrize("kind, text", [("nginx", inside_the_server(block("nginx-rewriting.conf"))), ("caddy", block("Caddyfile-rewriting"))],
                         ids=["nginx", "caddy"])
def test_a_proxy_that_rewrites_needs_public_url(bridges, broker, subscribers, proxies, kind, text):  # noqa: F811
    subscriber = subscribers(broker.port)
    bridge = bridges(broker)
    proxy = proxies(kind, text, bridge.port)
    answer = proxy.post(bridge, event(payload=PAYLOAD), "/meowflow")
    assert (answer.status, answer.message) == (403, "signature verification failed")

    app = json.loads(documents.without_comments(block("public-url.json")))["apps"][0]
    assert app["public_url"] == f"https://{HOST}/meowflow"
    bridge.configure({"apps": [{**{k: v for k, v in app.items() if k != "secret_file"}, "secret": bridge.secret}]})
    bridge.reload()
    assert proxy.post(bridge, event(payload=PAYLOAD), "/meowflow").status == 200
    assert subscriber.wait(1)[0].payload == PAYLOAD

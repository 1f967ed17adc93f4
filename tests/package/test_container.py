"""Dockerfile, compose file and Kubernetes manifest, as far as they can be tried without an engine: what they name exists, the
image's build has all that it needs, and the program behaves as the first process of a container must."""

import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
import yaml

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "conf/compose.yaml").read_text())
KUBERNETES = {item["kind"]: item for item in yaml.safe_load_all((ROOT / "conf/kubernetes.yaml").read_text())}


def instructions():
    """The Dockerfile's, (name, arguments), one a line."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()))
    return [line.split(None, 1) for line in lines.splitlines() if line.strip()]


def arguments(name):
    return [argument for instruction, argument in instructions() if instruction == name]


def secrets_in(folder, text):
    """The text with /run/secrets in the folder, where each of the secrets that it names lies."""
    for path in re.findall(r"/run/secrets/[\w/-]+", text):
        own = folder / path[1:]
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(harness.SECRET + "\n")
        own.chmod(0o400)
    return text.replace("/run/secrets", f"{folder}/run/secrets")


# --- the image ---


def test_the_build_has_all_that_it_needs(tmp_path):
    """What COPY takes, and .dockerignore lets through, is enough to configure and to build."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    for argument in arguments("COPY"):
        *sources, target = argument.split()
        if sources[0].startswith("--from"):
            continue
        for source in sources:
            assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    build = next(argument for argument in arguments("RUN") if argument.startswith("cmake"))
    configure, make, strip = build.split(" && ")
    quick = " -D CMAKE_C_FLAGS_RELEASE=-O0 -D CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF -D MEOWBRIDGE_HARDEN=OFF"
    done = subprocess.run(["sh", "-c", f"{configure}{quick} && {make} && {strip}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    made = next(argument for argument in arguments("COPY") if "--from=build" in argument).split()[1].replace("/src", str(tmp_path))
    assert subprocess.run([made, "--version"], capture_output=True, text=True).stdout.startswith("meowbridge ")
    assert_libraries_are_there(made)


def assert_libraries_are_there(program):
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.run(["readelf", "-d", program], capture_output=True, text=True).stdout)
    image = " ".join(arguments("RUN")[1:])
    for library in needed:
        owner = subprocess.run(["dpkg-query", "-S", f"*/{library}"], capture_output=True, text=True).stdout.split(":")[0]
        assert owner in ("libc6", "libgcc-s1") or re.search(rf"\b{re.escape(owner)}\b", image), f"{library} of {owner}"


def test_the_image_says_who_it_runs_as_and_what_it_is():
    user = arguments("USER")[-1]
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", user)
    labels = arguments("LABEL")[0]
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)) == {"title", "description", "version", "revision", "licenses"}
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    entry = json.loads(arguments("ENTRYPOINT")[0])  # the form without a shell, which would swallow the signal
    health = json.loads(re.search(r"CMD (\[.*\])", arguments("HEALTHCHECK")[0]).group(1))
    installed = next(argument for argument in arguments("COPY") if "--from=build" in argument).split()[-1]
    assert entry == [installed] and health == [installed, "healthcheck"]
    assert arguments("CMD") == ['["serve"]']


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a namespace of processes")
def test_as_the_first_process_it_ends_at_sigterm(tmp_path, broker):
    bridge = harness.Bridge(tmp_path / "bridge", broker, start=False)
    with open(bridge.log_path, "wb") as log:
        outside = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", harness.BINARY, "serve", "-c",
                                    bridge.config_path], stdout=log, stderr=log, env=bridge.env)
    bridge._log_start = 0
    try:
        bridge.connected()
        first = int(open(f"/proc/{outside.pid}/task/{outside.pid}/children").read())
        assert re.search(r"^NSpid:\s+\d+\s+1$", open(f"/proc/{first}/status").read(), re.M)
        assert bridge.post(harness.event()).status == 200
        # As docker does it: from outside, where the kernel protects a first process that has no handler.
        os.kill(first, signal.SIGTERM)
        assert outside.wait(harness.DEADLINE) == 0, bridge.log()
    finally:
        if outside.poll() is None:
            outside.kill()
            outside.wait()


def test_healthcheck_finds_the_bridge_by_the_containers_variables(tmp_path, broker):
    port = harness.free_port()
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o400)
    environment = {"MEOWBRIDGE_SECRET": harness.SECRET, "MEOWBRIDGE_ADMIN_LISTEN": f"0.0.0.0:{port}",
                   "MEOWBRIDGE_ADMIN_TOKEN_FILE": str(token)}
    assert harness.run("healthcheck", env=environment).returncode == 1
    bridge = harness.Bridge(tmp_path / "bridge", broker, env=environment)
    try:
        assert harness.run("healthcheck", env=environment).returncode == 0
    finally:
        assert bridge.stop() == 0


# --- secrets in files ---


def test_a_secret_is_given_by_its_variable_or_by_its_file_and_never_by_both(tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "secret").chmod(0o400)
    by_file = {"MEOWBRIDGE_SECRET_FILE": str(tmp_path / "secret")}
    assert harness.run("check", env=by_file).returncode == 0
    both = harness.run("check", env={**by_file, "MEOWBRIDGE_SECRET": "x"})
    assert both.returncode == 2 and "MEOWBRIDGE_SECRET: is set beside MEOWBRIDGE_SECRET_FILE" in both.stderr
    gone = harness.run("check", env={"MEOWBRIDGE_SECRET_FILE": str(tmp_path / "none")})
    assert gone.returncode == 2 and "MEOWBRIDGE_SECRET_FILE" in gone.stderr


def test_password_and_token_come_from_files_alone(tmp_path):
    """Where only the _FILE form exists, the other one is named as unknown rather than silently ignored."""
    for name in ("MEOWBRIDGE_MQTT_PASSWORD", "MEOWBRIDGE_ADMIN_TOKEN"):
        done = harness.run("check", env={"MEOWBRIDGE_SECRET": "x", name: "y"})
        assert f"{name}: unknown variable, did you mean {name}_FILE?" in done.stderr


# --- compose ---


def test_compose_gives_the_bridge_what_it_understands(tmp_path):
    service = COMPOSE["services"]["meowbridge"]
    environment = json.loads(secrets_in(tmp_path, json.dumps(service["environment"])))
    assert all(name.startswith("MEOWBRIDGE_") for name in environment)
    done = harness.run("check", env={**environment, **dict(line.split("=", 1) for line in arguments("ENV"))})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["mqtt"]["username"] == "meowbridge"


def test_compose_names_nothing_that_is_not_there():
    secrets = {name for service in COMPOSE["services"].values() for name in service.get("secrets", [])}
    assert secrets == set(COMPOSE["secrets"])
    for path in re.findall(r"/run/secrets/([\w-]+)", json.dumps(COMPOSE["services"]["meowbridge"])):
        assert path in COMPOSE["services"]["meowbridge"]["secrets"]
    for config in COMPOSE["configs"].values():
        assert (ROOT / "conf" / config["file"]).is_file()
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (ROOT / "conf" / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    bridge = COMPOSE["services"]["meowbridge"]
    assert bridge["read_only"] and bridge["cap_drop"] == ["ALL"]
    assert f"meowbridge:{arguments('VOLUME')[0]}" in bridge["volumes"]


def test_mosquitto_takes_the_containers_configuration(tmp_path):
    """With its access list: the bridge's user may write, and a consumer hears it."""
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in ("meowbridge", "consumer"):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, user + "-password"], check=True, capture_output=True)
    (tmp_path / "data").mkdir()
    port = harness.free_port()
    own = tmp_path / "mosquitto.conf"
    text = (ROOT / "conf/mosquitto/container.conf").read_text().replace("/run/secrets/mosquitto-passwords", str(passwords))
    text = text.replace("/mosquitto/config/acl", str(ROOT / "conf/mosquitto/acl")).replace("/mosquitto/data", str(tmp_path / "data"))
    own.write_text(text.replace("listener 1883", f"listener {port} 127.0.0.1") + "user root\n")
    password = tmp_path / "mqtt-password"
    password.write_text("meowbridge-password\n")
    password.chmod(0o400)
    log = open(tmp_path / "mosquitto.log", "w")
    mosquitto = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(own)], stdout=log, stderr=log)
    bridge = harness.Bridge(tmp_path / "bridge", start=False, config={
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}", "username": "meowbridge", "password_file": str(password)}})
    try:
        harness.wait_until(lambda: harness.accepts(port) or mosquitto.poll() is not None, "mosquitto")
        consumer = ["mosquitto_sub", "-p", str(port), "-u", "consumer", "-P", "consumer-password", "-t", "meowflow/#", "-q", "1", "-c",
                    "-i", "consumer"]
        subprocess.run([*consumer, "-E"], check=True)  # its session begins before the event
        bridge.start().connected()
        assert bridge.post(harness.event()).status == 200
        heard = subprocess.run([*consumer, "-C", "1", "-W", "20", "-F", "%t"], capture_output=True, text=True)
        assert heard.stdout == "meowflow/workflowTask/completed\n"
    finally:
        assert bridge.stop() == 0
        mosquitto.terminate()
        mosquitto.wait(harness.DEADLINE)
        log.close()


# --- Kubernetes ---


def pod():
    return KUBERNETES["StatefulSet"]["spec"]["template"]["spec"]


def test_kubernetes_gives_the_bridge_what_it_understands(tmp_path):
    configuration = tmp_path / "meowbridge.json"
    configuration.write_text(secrets_in(tmp_path, KUBERNETES["ConfigMap"]["data"]["meowbridge.json"]))
    done = harness.run("check", "-c", configuration)
    assert (done.returncode, done.stderr) == (0, "")
    (container,) = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert json.loads(done.stdout)["http"]["listen"].endswith(f":{ports['webhooks']}")
    assert json.loads(done.stdout)["admin"]["listen"].endswith(f":{ports['admin']}")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert container["args"] == ["serve", "-c", "/etc/meowbridge/meowbridge.json"] and "/etc/meowbridge" in mounts
    assert os.path.dirname(json.loads(done.stdout)["journal"]["path"]) in mounts


def test_kubernetes_runs_it_alone_locked_up_and_watched():
    state, (container,) = KUBERNETES["StatefulSet"]["spec"], pod()["containers"]
    assert state["replicas"] == 1
    user = int(arguments("USER")[-1].split(":")[0])
    context = pod()["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, user, user)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    volumes = {volume["name"] for volume in pod()["volumes"]} | {v["metadata"]["name"] for v in state["volumeClaimTemplates"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}
    labels = state["selector"]["matchLabels"]
    assert labels == state["template"]["metadata"]["labels"] == KUBERNETES["Service"]["spec"]["selector"]
    assert state["serviceName"] == KUBERNETES["Service"]["metadata"]["name"]

"""The manual pages say what the program says, and the completion offers it."""

import json
import pathlib
import re
import subprocess

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs/meowbridge.8", ROOT / "docs/meowbridge.json.5"]
COMMANDS = re.findall(r"^  ([a-z]+) ", subprocess.run([harness.BINARY, "--help"], capture_output=True, text=True).stdout, re.M)


def options_of(command):
    help_text = harness.run(command, "--help").stdout
    return re.findall(r"^  (?:(-\w), |    )(--[a-z-]+)", help_text, re.M)


def section(command):
    """The command's part of meowbridge(8) as mdoc, from its .Ss to the next."""
    text = PAGES[0].read_text()
    return re.search(rf"^\.Ss {command}\b.*?(?=^\.S[sh] )", text, re.M | re.S).group(0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_against_a_page(page):
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_the_manual(command):
    general = PAGES[0].read_text().split(".Ss ")[0]
    known = section(command) + general
    for letter, name in options_of(command):
        if letter:
            assert re.search(rf"\bFl {letter[1:]}\b", known), f"{command} {letter}"
        assert re.search(rf"\bFl Fl {name[2:]}\b(?!-)", known), f"{command} {name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_in_the_manual_is_unknown(command):
    names = {name[2:] for _, name in options_of(command)}
    assert set(re.findall(r"\bFl Fl ([a-z-]+)", section(command))) <= names
    letters = {letter[1:] for letter, _ in options_of(command) if letter}
    assert set(re.findall(r"\bFl (\w)\b", section(command))) <= letters


def keys(schema, properties, prefix=""):
    """Every key of the JSON Schema that has a value of its own."""
    for name, value in properties.items():
        if "$ref" in value:
            value = {**schema["$defs"][value["$ref"].rsplit("/", 1)[1]], **value}
        choices = [value, value.get("items", {}), *value.get("oneOf", []), *value.get("anyOf", [])]
        choices = [schema["$defs"][c["$ref"].rsplit("/", 1)[1]] if "$ref" in c else c for c in choices]
        inner = next((c["properties"] for c in choices if "properties" in c), None)
        if inner:
            yield from keys(schema, inner, prefix + name + ("[]." if value.get("type") == "array" else "."))
        else:
            yield prefix + name


def test_every_key_of_the_configuration_is_in_the_manual_and_no_other():
    schema = json.loads((ROOT / "conf/meowbridge.schema.json").read_text())
    known = set(keys(schema, schema["properties"])) - {"$schema"}
    assert {"http.tls.key_file", "apps[].secret_file", "routes[].unheard", "log.format", "journal.max_size"} <= known
    items = " ".join(re.findall(r"^\.It Ic (.*)$", PAGES[1].read_text(), re.M))
    assert set(items.replace(" , ", " ").split()) == known


# --- completion ---


def complete(*words, cwd=None):
    """What bash offers for a line that ends in the last of the words."""
    script = f"""
        PATH={pathlib.Path(harness.BINARY).parent}:$PATH
        . /usr/share/bash-completion/bash_completion
        . {ROOT}/conf/bash-completion
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_KEY=9
        _meowbridge "$1" "${{@: -1}}" "${{@: -2:1}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, cwd=cwd)
    assert done.stderr == "", done.stderr
    return {line for line in done.stdout.split("\n") if line}


def test_completion_knows_the_commands():
    assert complete("meowbridge", "") == {*COMMANDS, "help", "--help", "--version"}
    assert complete("meowbridge", "he") == {"help", "healthcheck"}
    assert complete("meowbridge", "help", "re") == {"replay"}


@pytest.mark.parametrize("command", COMMANDS)
def test_completion_knows_every_option(command):
    assert complete("meowbridge", command, "-") == {name for _, name in options_of(command)}


def test_completion_knows_values_and_files(tmp_path):
    (tmp_path / "one.json").touch()
    (tmp_path / "one.txt").touch()
    assert complete("meowbridge", "events", "--state", "") == {"pending", "published", "dead"}
    assert complete("meowbridge", "serve", "-c", "o", cwd=tmp_path) == {"one.json"}
    assert complete("meowbridge", "sign", "--secret-file", "o", cwd=tmp_path) == {"one.json", "one.txt"}
    assert complete("meowbridge", "route", "o", cwd=tmp_path) == {"one.json", "one.txt"}
    assert complete("meowbridge", "send", "--count", "o", cwd=tmp_path) == set()

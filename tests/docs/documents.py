"""The documents' own code blocks, for tests: what is run is what is printed. `<!-- test: NAME -->` before a block names it."""

import os
import re
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
NPM = os.environ.get("MEOWBRIDGE_NPM", os.path.join(ROOT, "build/npm"))
sys.path.insert(0, os.path.join(ROOT, "tests/e2e"))

BLOCK = re.compile(r"^(?:<!-- test: (?P<name>\S+) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def blocks(path):
    """(name or None, language, text) of each code block, those in lists too."""
    return [(m["name"], m["language"], re.sub("^" + m["indent"], "", m["text"], flags=re.MULTILINE)) for m in BLOCK.finditer(read(path))]


def block(path, name):
    (text,) = [t for n, _, t in blocks(path) if n == name]
    return text


def without_comments(text):
    """JSON with comments as JSON; what stands in strings stays."""
    token = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
    return token.sub(lambda m: m[0] if m[0][0] == '"' else " ", text)

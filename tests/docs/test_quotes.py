"""Each test that a document names is there: a table of promises is worth what its tests are."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUOTE = re.compile(r"`([a-z_0-9]+\.(?:py|c))::(\w+)`|`fault::(\w+)`|`fuzz::(\w+)`")
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


def is_there(file, name, scenario, target):
    if target:
        return (ROOT / f"tests/fuzz/fuzz_{target}.c").exists()
    if scenario:
        text = "".join(path.read_text() for path in (ROOT / "tests/fault").glob("scenarios_*.py"))
        return re.search(rf'(?m)^@scenario\(.*\)\ndef {scenario}\(', text) is not None
    definition = rf"(?m)^def {name}\(" if file.endswith(".py") else rf"(?m)^static void {name}\(void \*\*"
    found = [path for path in (ROOT / "tests").glob(f"*/{file}")]
    entered = rf"\((?:unit_test_)?{name}\b(?!\(void)"
    return any(re.search(definition, path.read_text()) and (file.endswith(".py") or re.search(entered, path.read_text())) for path in found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_each_test_that_is_named_exists(document):
    quotes = QUOTE.findall(document.read_text())
    missing = [quote for quote in quotes if not is_there(*quote)]
    assert not missing
    assert quotes or document.name != "reliability.md"

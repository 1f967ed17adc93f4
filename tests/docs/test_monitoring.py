"""conf/alerts.yml and conf/grafana.json name only what the running bridge exports, every alert fires when it should, and docs/operations.md says what each means."""

import json
import os
import re
import subprocess

import documents
import yaml
from conftest import bridges, broker  # noqa: F401
from harness import event

HERE = os.path.dirname(os.path.abspath(__file__))
ALERTS, DASHBOARD = os.path.join(documents.ROOT, "conf/alerts.yml"), os.path.join(documents.ROOT, "conf/grafana.json")
METRIC = re.compile(r"\b((?:meowbridge|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|=|!=|!~)"([^"]*)"')
OF_PROMETHEUS = {"instance", "job"}


def rules():
    return [rule for group in yaml.safe_load(open(ALERTS))["groups"] for rule in group["rules"]]


def dashboard():
    return json.load(open(DASHBOARD))


def dashboard_queries():
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exported(bridge):
    """{name: {label: values}} of what /metrics says."""
    names = {}
    for line in bridge.get("/metrics").body.decode().splitlines():
        if line and not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            into = names.setdefault(name, {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels or ""):
                into.setdefault(label, set()).add(value)
    return names


def unknown(expression, names):
    """What an expression names that is not exported: metrics, labels, values of labels, labels that it sums or prints by."""
    found = []
    for name, selector in METRIC.findall(expression):
        if name not in names:
            found.append(name)
            continue
        for label, _, values in MATCHER.findall(selector):
            if label not in OF_PROMETHEUS:
                found += [f'{name}{{{label}="{v}"}}' for v in values.split("|") if v not in names[name].get(label, ())]
        for by in re.findall(r"by \(([^)]*)\) \((?:rate|increase)\(" + name + r"\b", expression):
            found += [f"{name} by {label}" for label in re.split(r",\s*", by) if label not in OF_PROMETHEUS and label not in names[name]]
    return found


def test_every_name_and_label_of_alerts_and_dashboard_is_exported(bridges, broker):  # noqa: F811
    bridge = bridges(broker).connected()
    assert bridge.post(event()).status == 200
    names = exported(bridge)
    queries = [rule["expr"] for rule in rules()] + dashboard_queries() + [v["definition"] for v in dashboard()["templating"]["list"][1:]]
    assert len(queries) > 35 and all(METRIC.search(query) for query in queries if not query.startswith("up{"))
    assert [wrong for query in queries for wrong in unknown(query, names)] == []
    # and the test can see what is wrong
    assert unknown("meowbridge_nothing_total > 0", names) == ["meowbridge_nothing_total"]
    assert unknown('rate(meowbridge_webhook_requests_total{outcome=~"accepted|parked"}[5m])', names) != []
    assert unknown("sum by (topic) (rate(meowbridge_webhook_requests_total[5m]))", names) != []
    # what the documents name is exported too
    for path in ("README.md", "README.zh-CN.md", "docs/operations.md", "docs/consumers.md"):
        words = set(re.findall(r"`((?:meowbridge|process)_\w+)", documents.read(path)))
        assert {w for w in words if w not in names and w + "_bucket" not in names} == set(), path


def test_promtool_takes_the_alerts_and_each_fires_when_it_should():
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", os.path.join(HERE, "alerts_test.yml"))
    tests = yaml.safe_load(open(os.path.join(HERE, "alerts_test.yml")))["tests"]
    alerts = {rule["alert"] for rule in rules()}
    assert {t["alertname"] for test in tests for t in test["alert_rule_test"] if t.get("exp_alerts")} == alerts
    assert {t["alertname"] for t in tests[0]["alert_rule_test"] if not t.get("exp_alerts")} == alerts


def test_the_operations_page_says_of_every_alert_what_to_do():
    headings = set(re.findall(r"^### (Meowbridge\w+)", documents.read("docs/operations.md"), re.MULTILINE))
    assert headings == {rule["alert"] for rule in rules()}


def test_promtool_takes_every_query_of_the_dashboard(tmp_path):
    queries = [q.replace("$__rate_interval", "5m").replace("$instance", ".*") for q in dashboard_queries()]
    assert not any("$" in query for query in queries)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "d", "rules": [
        {"record": f"d:{i}", "expr": query} for i, query in enumerate(queries)]}]}))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_the_dashboard_can_be_imported_and_its_panels_do_not_overlap():
    board = dashboard()
    assert board["id"] is None and board["uid"] == "meowbridge" and board["schemaVersion"] >= 39
    assert board["__inputs"][0]["pluginId"] == "prometheus" and board["templating"]["list"][0]["type"] == "datasource"
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    cells = [(x, y) for p in panels for g in [p["gridPos"]] for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) == 23
    for panel in panels:
        sources = [panel["datasource"]] + [target["datasource"] for target in panel["targets"]]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources), panel["title"]
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])

"""The alerts and the dashboard, checked with Prometheus' own programs and a real scrape."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.http_endpoints import ask, free_port
from tests.test_documents import rows

FOLDER = Path(__file__).parents[1] / "monitoring"
RULES = FOLDER / "soulspot.rules.yml"
DASHBOARD = json.loads((FOLDER / "soulspot.dashboard.json").read_text())
ALERTS = re.findall(r"^      - alert: (\w+)$", RULES.read_text(), re.MULTILINE)
FOREIGN = {"up", "node_textfile_mtime_seconds"}


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=text, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Return every query of the dashboard, with values for Grafana's variables."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [query.replace("$job", "soulspot").replace("$__rate_interval", "1m") for query in found]


def names(query: str) -> set[str]:
    return set(re.findall(r"\b(?:soulspot|process|node)_\w+|\bup\b", re.sub(r'"[^"]*"', "", query)))


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """Run Prometheus with our rules, scraping a port; yield its address."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{RULES}]\n"
        "scrape_configs:\n  - job_name: soulspot\n    static_configs:\n"
        f"      - targets: ['127.0.0.1:{target}']\n"
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or b"ready to receive" in (folder / "prometheus.log").read_bytes())
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def api(address: str, path: str, **arguments: str) -> Any:
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=10) as answer:
        reply = json.load(answer)
    assert reply["status"] == "success"
    return reply["data"]


@pytest.mark.prometheus
@pytest.mark.usefixtures("monitor")
def test_promtool_accepts_the_rules_and_each_fires_when_it_should() -> None:
    for command in ("check", "test"):
        file = RULES.name if command == "check" else "soulspot.tests.yml"
        result = promtool(command, "rules", file)
        assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_is_tested_and_documented_with_its_remedy() -> None:
    tested = set(re.findall(r"alertname: (\w+)$", (FOLDER / "soulspot.tests.yml").read_text(), re.MULTILINE))
    documented = [row[0].strip("`") for row in rows("docs/operations.md", "prometheus-alerts")]

    assert tested == set(ALERTS)
    assert documented == ALERTS


@pytest.mark.prometheus
@pytest.mark.usefixtures("monitor")
def test_prometheus_answers_every_query_of_the_dashboard(soulspot: Soulspot, tmp_path: Path) -> None:
    port = free_port()
    soulspot.watch(
        SOULSPOT_METRICS__LISTEN=f"127.0.0.1:{port}",
        SOULSPOT_ON_BATCH__COMMAND='["true"]',
        SOULSPOT_ON_BATCH__QUIET="0",
    )
    write_song(soulspot.music / "song.mp3")
    until(lambda: 'soulspot_hook_deliveries_total{hook="command",result="delivered"} 1.0' in ask(port, "/metrics").text)
    text = ask(port, "/metrics").text
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")

    with prometheus(tmp_path, port) as address:
        until(lambda: api(address, "query", query='soulspot_files_total{outcome="added"}')["result"])
        [series] = api(address, "query", query='soulspot_files_total{outcome="added"}')["result"]
        assert series["value"][1] == "1"
        assert series["metric"]["job"] == "soulspot"
        until(lambda: api(address, "query", query="rate(soulspot_files_total[1m])")["result"])
        for query in queries():
            api(address, "query", query=query)  # fails if Prometheus cannot parse it
        scraped = set(api(address, "label/__name__/values"))
        [group] = api(address, "rules")["groups"]
        assert [rule["name"] for rule in group["rules"]] == ALERTS
        until(lambda: all(rule["health"] == "ok" for rule in api(address, "rules")["groups"][0]["rules"]))
        assert {rule["state"] for rule in api(address, "rules")["groups"][0]["rules"]} == {"inactive"}

    expressions = [*queries(), *re.findall(r"expr: (?:>\n)?((?:.|\n)*?)\n        (?:for|labels)", RULES.read_text())]
    assert len(expressions) == len(queries()) + len(ALERTS)
    used = {name for expression in expressions for name in names(expression)}
    assert used - FOREIGN <= scraped


@pytest.mark.prometheus
@pytest.mark.usefixtures("monitor")
def test_node_exporter_reads_the_textfile(soulspot: Soulspot, tmp_path: Path) -> None:
    folder, port = tmp_path / "collector", free_port()
    folder.mkdir()
    soulspot.watch(SOULSPOT_METRICS__TEXTFILE=str(folder / "soulspot.prom"), SOULSPOT_METRICS__TEXTFILE_INTERVAL="1")
    until((folder / "soulspot.prom").exists)
    program = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]
    options = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    exporter = subprocess.Popen([*program, *options], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port))
        text = ask(port, "/metrics").text
    finally:
        exporter.terminate()
        exporter.wait()

    assert 'soulspot_health{state="ok"} 1' in text
    assert "node_textfile_scrape_error 0" in text
    assert re.search(r'node_textfile_mtime_seconds\{file="[^"]*soulspot.prom"\}', text)


def _answers(port: int) -> bool:
    try:
        return ask(port, "/metrics").status == 200
    except OSError:
        return False


def test_each_panel_has_a_description_and_no_two_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        area = panel["gridPos"]
        own = {(x, y) for x in range(area["x"], area["x"] + area["w"]) for y in range(area["y"], area["y"] + area["h"])}
        assert not taken & own, panel["title"]
        assert max(x for x, _y in own) < 24
        taken |= own
    assert all(panel["description"] and panel["targets"] for panel in panels())
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {"${datasource}"}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval"} == variables

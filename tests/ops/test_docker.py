"""The files in docker/, checked by schemas, linters and parsers. `make images` runs the image."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from backchannel.ops.serve.metrics import ServiceMetrics
from backchannel.streams.config import Config, parse
from backchannel.streams.monitoring.metrics import Metrics
from tests.support.servers import missing

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "backchannel.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def tool(name: str, how: str) -> str:
    """Return the path of a program that checks files."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or missing(f"no {name}: {how}")


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def series(registry: CollectorRegistry) -> set[str]:
    """Return the names under which Prometheus stores a worker's metrics."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return {
        metric.name + suffix
        for metric in registry.collect()
        for suffix in suffixes.get(metric.type, [""])
        if not (metric.type == "counter" and metric.name.endswith("_total"))
    }


SERIES = series(Metrics(("lexical",)).registry)
OF_THE_SERVICE = series(ServiceMetrics(shared=False)._shown)
OF_PROMETHEUS = {"up"}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for group in yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_the_compose_file_follows_its_schema() -> None:
    check(tool("check-jsonschema", "make install"), "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


def test_compose_names_what_it_has() -> None:
    services, volumes = COMPOSE["services"], set(COMPOSE["volumes"])
    for name, service in services.items():
        for dependency, condition in service.get("depends_on", {}).items():
            assert dependency in services, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[dependency], f"{name} waits for {dependency}, which nobody asks"
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in volumes or (DOCKER / source).exists(), volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    build = services["worker"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    assert services["worker"]["deploy"]["replicas"] == 2


def test_every_secret_of_compose_is_made_up(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    check(
        tool("make", "install Debian's package `make`"),
        "-f",
        str(ROOT / "Makefile"),
        "-C",
        str(tmp_path),
        "docker/.env",
    )
    made = dict(line.split("=") for line in (tmp_path / "docker" / ".env").read_text().splitlines())
    assert set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text())) == made.keys()
    assert all(re.fullmatch("[0-9a-f]{32}", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / "docker" / ".env").stat().st_mode & 0o077 == 0


def test_the_dockerfile_is_well_made() -> None:
    check(tool("hadolint", "make docker-checks"), "docker/Dockerfile")


def test_the_image_runs_as_nobody_and_is_asked_for_its_health() -> None:
    last = (DOCKER / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n.*127\.0\.0\.1:(\d+)/healthz", last, re.MULTILINE)
    settings = parse(tomllib.loads((DOCKER / "backchannel.toml").read_text()), "docker/backchannel.toml").metrics
    assert f"127.0.0.1:{settings.port}/healthz" in last
    assert f"EXPOSE {settings.port}" in last


def test_the_image_gets_all_that_the_package_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {line.removeprefix("!").rstrip("/") for line in ignored if line.startswith("!")}
    links = {one.resolve().relative_to(ROOT).parts[0] for one in (ROOT / "backchannel").iterdir() if one.is_symlink()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "requirements.lock", project["readme"], *project["license-files"]}
    assert links | needed | {"backchannel"} <= copied
    assert all((ROOT / name).exists() for name in copied)


def test_prometheus_takes_its_files() -> None:
    promtool = tool("promtool", "install Debian's package `prometheus`")
    check(promtool, "check", "config", "docker/prometheus/prometheus.yml")
    check(promtool, "test", "rules", "docker/prometheus/alerts.test.yml")


def test_prometheus_finds_the_workers_and_the_service() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (workers,), (service,) = (job["dns_sd_configs"] for job in jobs)
    assert workers["names"] == ["worker"]
    assert workers["port"] == parse(tomllib.loads((DOCKER / "backchannel.toml").read_text()), "").metrics.port
    assert service["names"] == ["serve"]
    assert COMPOSE["services"]["serve"]["ports"] == [f"127.0.0.1:8766:{service['port']}"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_that_is_asked_for_exists(where: str, expression: str) -> None:
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|group_left|group_right)\s*\([^)]*\)", "", expression)
    names = set(re.findall(r"\b(?:backchannel|process)_\w+\b|\bup\b", bare))
    assert names
    assert names <= SERIES | OF_THE_SERVICE | OF_PROMETHEUS, where


def test_every_label_that_is_asked_for_exists() -> None:
    metrics = Metrics(Config().bandit.expected)
    labels = {"job", "instance", "le"}
    for metric in vars(metrics).values():
        labels.update(getattr(metric, "_labelnames", ()))
    for where, expression in expressions():
        grouped = [name for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(",")]
        assert {name.strip() for name in grouped} <= labels, where


def test_the_operations_guide_names_every_metric() -> None:
    (section,) = re.findall(r"\n## Metrics\n(.*?)\n## ", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    named = {f"backchannel_{name}" for name in re.findall(r"`(\w+)`", section)}
    ours = {name for name in SERIES if name.startswith("backchannel_") and not name.endswith("_bucket")}
    ours = {re.sub(r"_seconds_(sum|count)$", "_seconds", name) for name in ours}
    assert ours <= named


def test_grafana_reads_what_is_provisioned() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "backchannel.yaml").read_text())["providers"]
    grafana = COMPOSE["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_kubernetes_example_follows_its_schemas() -> None:
    check(
        tool("kubernetes-validate", "make docker-checks"), "--strict", "--quiet", "docker/kubernetes/backchannel.yaml"
    )


def test_the_kubernetes_example_fits_together() -> None:
    objects = {one["kind"]: one for one in yaml.safe_load_all((DOCKER / "kubernetes" / "backchannel.yaml").read_text())}
    settings = parse(tomllib.loads(objects["ConfigMap"]["data"]["backchannel.toml"]), "ConfigMap")
    pod = objects["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"] == objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    (container,) = pod["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": settings.metrics.port}]
    assert {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness")} == {"/healthz"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"

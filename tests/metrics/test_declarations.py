"""The declaration of a metric determines how its values are shown, never its name."""

import json
from collections.abc import Callable

import pytest

from helpers.bench import Edit, Tool
from vlm_harness.metrics import METRICS, display


@pytest.fixture
def primary(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a metric of another package the primary metric of the toy task."""

    def use(name: str) -> None:
        monkeypatch.setitem(METRICS._builtin, name, f"helpers.metrics:{name}")
        monkeypatch.delitem(METRICS._loaded, name, raising=False)
        edit("metrics: [", f"metrics: [{name}, ")
        edit("primary_metric: pair_accuracy", f"primary_metric: {name}")

    return use


def shown(tool: Tool, *arguments: str) -> dict[str, str]:
    """The one row of the table of a run, by heading."""
    out = tool.run("--protocol", "generate", "--run-id", "r", *arguments).out
    heads = next(line for line in out.splitlines() if line.startswith("┃"))
    row = next(line for line in out.splitlines() if line.startswith("│"))
    return dict(zip(heads.replace("┃", "").split(), row.replace("│", "").split(), strict=True))


def better(tool: Tool) -> dict[str, bool | None]:
    export = json.loads(tool("export", "results/r", "-f", "lm-eval").out)
    found: dict[str, bool | None] = export["higher_is_better"]["sides"]
    return found


def test_an_undeclared_metric_is_a_plain_number(tool: Tool, primary: Callable[[str], None]) -> None:
    primary("options_per_sample")
    assert shown(tool)["options_per_sample"] == "2.000"
    assert better(tool)["options_per_sample"] is None
    assert "**2.000**" not in tool("export", "results/r", "-f", "markdown").out


def test_a_primary_metric_is_shown_regardless_of_its_name(
    tool: Tool, primary: Callable[[str], None]
) -> None:
    primary("mmvp_official_score")
    assert shown(tool)["official"] == "100.0"
    assert better(tool)["mmvp_official_score"] is True


def test_unit_and_direction_do_not_depend_on_the_name(
    tool: Tool, primary: Callable[[str], None]
) -> None:
    primary("relaxed_cosine_sum")
    assert shown(tool, "--model", "fake:first")["loss"] == "125.000"
    assert better(tool)["relaxed_cosine_sum"] is False


def test_every_built_in_metric_is_declared() -> None:
    for name in METRICS.names():
        metric = METRICS.declared(name)
        low, high = metric.range
        assert low < high
        assert metric.description
        if metric.equals is not None:
            assert metric.equals.metric in METRICS
            assert METRICS.declared(metric.equals.metric).unit == metric.unit
    units = {METRICS.declared(name).unit for name in METRICS.names()}
    assert units == {"share", "cosine"}


def test_metrics_of_a_package_that_is_not_installed_are_plain_numbers() -> None:
    assert display.number("perplexity_of_elsewhere", 2.0) == "2.000"
    assert display.signed("perplexity_of_elsewhere", -0.5) == "-0.500"
    assert METRICS.declared("perplexity_of_elsewhere").best([1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("pair_accuracy", [0.2, 0.7, 0.1], 0.7),
        ("mean_pair_cosine", [0.2, 0.7], None),
        ("pair_accuracy", [], None),
    ],
)
def test_the_best_value(name: str, values: list[float], best: float | None) -> None:
    assert METRICS.declared(name).best(values) == best

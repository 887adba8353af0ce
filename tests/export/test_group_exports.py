"""Scores of groups of tasks in the export formats."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from helpers.bench import Tool, refused
from helpers.exports import Go
from helpers.groups import GROUP, add_group
from helpers.runs import first
from vlm_harness.export import lm_eval, model_card, tables, wandb_logger
from vlm_harness.export.rows import load


@pytest.fixture
def run(bench: Path, go: Go) -> Path:
    add_group(bench)
    return go(tasks=["toys"], models={"first": first})


@pytest.fixture
def both(bench: Path, go: Go) -> Path:
    add_group(bench)
    return go(tasks=["toys"])


def test_lm_eval(run: Path) -> None:
    found = lm_eval.document(load([run]))
    assert found["group_subtasks"] == {"toys": ["sides", "sides2"], "sides": [], "sides2": []}
    (group,) = found["groups"].values()
    assert group == found["results"]["toys"]
    assert group["mean_accuracy,generate"] == 0.5
    low, high = (
        load([run])[-1].row.metrics["mean_accuracy"].to_dict()[k] for k in ("ci_low", "ci_high")
    )
    assert group["mean_accuracy_stderr,generate"] == pytest.approx((high - low) / (2 * lm_eval.Z))
    assert group["total,generate"] == 1.0
    assert group["sample_len"] == 24
    assert found["versions"] == {"sides": 1, "sides2": 1, "toys": 1}
    assert found["higher_is_better"]["toys"] == {"mean_accuracy": True, "total": True}
    assert set(found["configs"]) == set(found["n-samples"]) == {"sides", "sides2"}


def test_lm_eval_counts_samples_once_for_all_orders(bench: Path, go: Go) -> None:
    add_group(bench)
    run = go(tasks=["toys"], models={"first": first}, order="both")
    assert lm_eval.document(load([run]))["groups"]["toys"]["sample_len"] == 24
    assert load([run])[-1].row.n_samples == 48


def test_without_groups_there_is_no_key(go: Go) -> None:
    found = lm_eval.document(load([go(models={"first": first})]))
    assert "groups" not in found
    assert found["group_subtasks"] == {"sides": []}


def test_csv(run: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv(load([run])))))
    found = {row["metric"]: row for row in rows if row["task"] == "toys"}
    assert list(found) == ["mean_accuracy", "total"]
    row = found["mean_accuracy"]
    assert (row["value"], row["n"], row["chance"], row["version"]) == ("0.5", "24", "0.5", "1")
    assert (row["n_samples"], row["complete"], row["protocol"]) == ("24", "true", "generate")
    assert found["total"]["chance"] == "1.5"


def test_tables(both: Path) -> None:
    table = tables.table(load([both]), "in brackets")
    assert [(c.task, c.metric) for c in table.columns[-2:]] == [
        ("toys", "mean accuracy"), ("toys", "total"),
    ]  # fmt: skip
    values = [[cell and (cell.value, cell.best) for cell in row.cells[-2:]] for row in table.rows]
    assert values == [[("50.0", False), ("100.0", False)], [("100.0", True), ("400.0", True)]]
    assert table.chance[-2:] == ["50", "150"]
    assert "toys: mean accuracy" in tables.markdown(load([both]))
    assert "{toys}" in tables.latex(load([both]))


def test_names_of_groups_do_not_shorten_those_of_tasks(run: Path) -> None:
    """Tasks lose their common prefix; groups keep their whole name."""
    columns = tables.table(load([run]), "").columns
    assert {column.task for column in columns} == {"sides", "sides2", "toys"}


def test_model_card(run: Path) -> None:
    text = model_card.dump(load([run]))
    (index,) = yaml.safe_load(text.split("---\n")[1])["model-index"]
    (found,) = (each for each in index["results"] if each["dataset"]["type"] == "toys")
    scores = {each["type"]: each for each in found["metrics"]}
    assert scores["mean_accuracy"]["value"] == 0.5
    assert scores["mean_accuracy"]["name"] == "toys: mean accuracy (generate)"
    assert scores["mean_accuracy"]["args"]["group"] == "toys"
    assert "task" not in scores["mean_accuracy"]["args"]


def test_wandb(run: Path) -> None:
    results = load([run])
    summary = wandb_logger._summary(results[-1], "toys/generate")
    assert summary["toys/generate/mean_accuracy"] == 0.5
    rows = [row for row in wandb_logger._rows(results) if row[1] == "toys"]
    assert [row[len(wandb_logger.RESULT)] for row in rows] == ["mean_accuracy", "total"]


@pytest.mark.parametrize(
    ("chosen", "tasks", "metrics"),
    [
        ({"tasks": ["toys"]}, ["toys"], {"mean_accuracy", "total"}),
        ({"tasks": ["sides"]}, ["sides"], {"individual_accuracy", "pair_accuracy"}),
        ({"metrics": ["total"]}, ["toys"], {"total"}),
        ({"metrics": ["pair_accuracy"]}, ["sides", "sides2", "toys"], {"pair_accuracy", "total"}),
    ],
)
def test_selection(
    run: Path, chosen: dict[str, list[str]], tasks: list[str], metrics: set[str]
) -> None:
    found = load([run], **chosen)  # type: ignore[arg-type]
    assert [result.row.task for result in found] == tasks
    assert {name for result in found for name in result.metrics} == metrics


def test_a_group_that_was_not_computed_is_left_out(bench: Path, go: Go) -> None:
    text = GROUP.replace("aggregates", "members: [sides, sides2, mmvp]\naggregates")
    add_group(bench, text)
    run = go(tasks=["sides", "sides2"], models={"first": first})
    assert json.loads((run / "results.json").read_text())["groups"][0]["missing"] == ["mmvp"]
    assert {result.row.task for result in load([run])} == {"sides", "sides2"}


def test_an_unknown_group_is_refused(run: Path, tool: Tool) -> None:
    message = refused(tool("export", str(run), "--format", "csv", "--task", "tosy"))
    assert "no result has a task 'tosy'; did you mean 'toys'?" in message

"""Groups of tasks in runs: results.json, the manifest, reruns, rescoring, and the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import TASK, Result, Tool
from helpers.groups import GROUP, add_group
from helpers.runs import first, go, lines
from vlm_harness import InputError, open_run, rescore
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.logs.lines import read_manifest
from vlm_harness.runs.evaluator import FinishedRun, evaluate
from vlm_harness.types import Request


@pytest.fixture
def toys(bench: Path) -> Path:
    """The toy benchmark with a second task, and a group of both."""
    add_group(bench)
    return bench


def ask(place: Path, tasks: str = "toys", handler: Any = first, **options: Any) -> FinishedRun:
    backend = FakeBackend(handler, "toy")
    backend.revision = "1"
    settings: dict[str, Any] = {
        "data_dir": str(place / "data"),
        "include_path": [str(place / "specs")],
        "output_dir": str(place / "results"),
        "protocol": ["generate"],
        "run_id": "r",
        **options,
    }
    return evaluate([backend], tasks.split(","), **settings)


def written(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def test_results_hold_the_scores_of_a_group(toys: Path) -> None:
    run = ask(toys)
    content = written(run.path)
    assert open_run(run.path).results.to_dict() == content
    assert run.results.groups == open_run(run.path).results.groups
    assert list(content) == ["schema", "results", "groups"]
    (row,) = content["groups"]
    values = [each["metrics"]["individual_accuracy"]["value"] for each in content["results"]]
    found = row.pop("aggregates")
    assert found["mean_accuracy"]["value"] == pytest.approx(sum(values) / 2) == 0.5
    assert found["total"]["value"] == pytest.approx(sum(values)) == 1.0  # no pair is correct
    assert found["total"]["of"] == ["individual_accuracy", "pair_accuracy"]
    assert row == {
        "group": "toys", "group_version": 1, "model": "toy", "protocol": "generate",
        "command": "default", "order": "fixed", "decoding": "greedy", "image_mode": "normal",
        "labels": "corrected", "limit": None, "seed": 0, "headline": "mean_accuracy",
        "members": ["sides", "sides2"], "missing": [], "incomplete": [], "n_samples": 24,
        "n_unparsed": 0, "n_errors": 0, "n_tied": 0, "complete": True,
    }  # fmt: skip


def test_without_groups_nothing_changes(toys: Path) -> None:
    with_file = ask(toys, "sides", run_id=None)
    (toys / "specs" / "toys.group.yaml").unlink()
    before = {path: path.read_bytes() for path in with_file.path.rglob("*.json*")}
    without = ask(toys, "sides", run_id=None, fresh=True)
    assert without.path == with_file.path
    assert list(written(without.path)) == ["schema", "results"]
    assert "groups" not in json.loads((without.path / "manifest.json").read_text())
    for path, content in before.items():
        assert path.name == "manifest.json" or path.read_bytes() == content


def test_a_group_does_not_change_the_run(toys: Path) -> None:
    """Run id and logs depend on the tasks only."""
    run = ask(toys, run_id=None)
    logged = lines(run)
    (toys / "specs" / "toys.group.yaml").unlink()
    again = ask(toys, run_id=None)
    assert (again.path, again.n_new, lines(again)) == (run.path, 0, logged)
    assert "groups" not in json.loads((run.path / "manifest.json").read_text())
    assert "groups" not in written(run.path)


@pytest.mark.parametrize("tasks", ["sides,sides2", "toys", "*oys", "sides*"])
def test_a_group_is_reported_however_its_tasks_were_chosen(toys: Path, tasks: str) -> None:
    (row,) = ask(toys, tasks).results.groups
    assert (row.task, row.complete) == ("toys", True)


def test_a_limit_makes_the_group_incomplete(toys: Path) -> None:
    (row,) = ask(toys, limit=4).results.groups
    assert (row.complete, row.incomplete, row.missing) == (False, ["sides", "sides2"], [])
    assert row.limit == 4
    assert row.primary.value == 0.5


def test_failed_samples_make_the_group_incomplete(toys: Path) -> None:
    def handler(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing0-left":
            raise ValueError("no")
        return first(request)

    (row,) = ask(toys, handler=handler, max_errors="100%").results.groups
    assert (row.complete, row.n_errors) == (False, 2)


def test_missing_tasks_are_named(toys: Path) -> None:
    spec = GROUP.replace("aggregates", "members: [sides, sides2, sides3]\naggregates")
    (toys / "specs" / "toys.group.yaml").write_text(spec)
    (toys / "specs" / "sides3.yaml").write_text(
        TASK.replace("task: sides", "task: sides3").replace("groups: [toys]\n", "")
    )
    (row,) = ask(toys, "sides,sides2").results.groups
    assert (row.missing, row.complete) == (["sides3"], False)
    assert {each.value for each in row.aggregates.values()} == {None}
    assert ask(toys, "sides", run_id="one").results.groups == []
    (row,) = ask(toys, "toys", run_id="all").results.groups
    assert row.complete


def test_a_rerun_updates_the_groups_of_a_finished_run(toys: Path) -> None:
    """So that runs of earlier versions, and runs before a group was added, get their scores."""
    path = toys / "specs" / "toys.group.yaml"
    path.unlink()
    run = ask(toys)
    before = read_manifest(run.path)
    assert "groups" not in written(run.path)
    path.write_text(GROUP)
    again = ask(toys)
    assert again.n_new == 0
    (row,) = written(run.path)["groups"]
    assert row["aggregates"]["mean_accuracy"]["value"] == 0.5
    manifest = read_manifest(run.path)
    assert [each["group"] for each in manifest.groups] == ["toys"]
    assert manifest.to_dict() == {**before.to_dict(), "groups": manifest.groups}
    path.write_text(GROUP.replace("mean_accuracy", "accuracy"))
    ask(toys)
    assert list(written(run.path)["groups"][0]["aggregates"]) == ["accuracy", "total"]


def test_rescoring_uses_the_groups_of_the_manifest(toys: Path) -> None:
    run = ask(toys)
    content = written(run.path)
    (toys / "specs" / "toys.group.yaml").unlink()
    (run.path / "results.json").unlink()
    assert rescore(run.path).to_dict() == content
    assert written(run.path) == content
    rows = rescore(run.path, "original")
    assert [row.labels for row in rows.groups] == ["original"]


def test_an_invalid_group_is_refused_before_anything_runs(toys: Path) -> None:
    path = toys / "specs" / "toys.group.yaml"
    path.write_text(GROUP.replace("of: individual_accuracy", "of: f1"))
    with pytest.raises(InputError, match="task sides does not have the metric 'f1'") as caught:
        ask(toys)
    assert str(caught.value.where) == f"{path}:4"
    assert not (toys / "results").exists()
    assert go(toys).results.groups == []  # a run of one of its tasks is not affected


def test_a_group_whose_tasks_differ_in_their_default_command(toys: Path) -> None:
    text = TASK.replace("task: sides", "task: sides2").replace("{default:", "{other:")
    (toys / "specs" / "sides2.yaml").write_text(text)
    (row,) = ask(toys).results.groups
    assert (row.command, row.complete) == ("per task", True)
    found = {each.command: each for each in ask(toys, command=["all"], run_id="all").results.groups}
    assert {name: each.missing for name, each in found.items()} == {
        "default": ["sides2"], "short": [], "other": ["sides"],
    }  # fmt: skip


# --- the Python API -------------------------------------------------------------------------------


def test_pandas_and_notebooks(toys: Path) -> None:
    results = ask(toys).results
    table = results.groups.to_pandas()
    assert list(table["group"]) == ["toys", "toys"]
    assert list(table["aggregate"]) == ["mean_accuracy", "total"]
    assert list(table["value"]) == pytest.approx([0.5, 1.0])
    assert "toys" not in set(results.to_pandas()["task"])  # would count samples twice
    assert "mean accuracy" in results._repr_html_()
    plain = ask(toys, "sides", run_id="plain").results
    assert plain.groups.to_pandas().empty
    assert plain._repr_html_().count("<table>") == 1


# --- the command line -----------------------------------------------------------------------------


def test_the_terminal_and_json(toys: Path, tool: Tool) -> None:
    shown = tool.run("--tasks", "toys", "--protocol", "generate", "--run-id", "r")
    assert shown.code == 0, shown.err
    table = shown.out[shown.out.index("Groups of tasks") :]
    assert "mean accuracy" in table
    assert "100.0" in table
    printed = tool.run("--tasks", "toys", "--protocol", "generate", "--run-id", "r", "--json")
    content = json.loads(printed.out)
    run = Path(content["run"])
    assert content["groups"] == written(run)["groups"]
    assert json.loads(tool("rescore", str(run), "--json").out)["groups"] == content["groups"]
    assert "Groups of tasks" in tool("rescore", str(run)).out


def test_the_terminal_names_what_is_missing(toys: Path, tool: Tool) -> None:
    spec = GROUP.replace("aggregates", "members: [sides, sides2, mmvp]\naggregates")
    (toys / "specs" / "toys.group.yaml").write_text(spec)
    partial: Result = tool.run("--tasks", "sides,sides2", "--protocol", "generate")
    assert "Groups of tasks" not in partial.out
    assert "group toys: not computed, missing tasks: mmvp (1 of 3)" in partial.out
    (toys / "specs" / "toys.group.yaml").write_text(GROUP)
    limited = tool.run("--tasks", "toys", "--protocol", "generate", "--limit", "2")
    assert "group toys: incomplete tasks: sides, sides2" in limited.out

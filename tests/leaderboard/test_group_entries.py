"""Scores of groups of tasks on the leaderboard: entries, their checks, and the page."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import TASK, write_sides
from helpers.browser import data_of
from helpers.groups import GROUP, add_group
from helpers.leaderboard import RealBackend, edit, put, specs
from helpers.runs import first
from vlm_harness.errors import InputError
from vlm_harness.leaderboard.entry import Entry, group_rows, load_entries
from vlm_harness.leaderboard.site import build
from vlm_harness.leaderboard.submit import entries_of
from vlm_harness.runs.evaluator import evaluate

Change = Callable[[Any], Any]


def ask(place: Path, **options: Any) -> Path:
    backend = RealBackend(first, "toy")
    backend.revision = "1"
    settings: dict[str, Any] = {
        "data_dir": str(place / "data"),
        "include_path": [str(place / "specs")],
        "output_dir": str(place / "results"),
        "protocol": ["generate"],
        "run_id": "r",
        **options,
    }
    return evaluate([backend], ["toys"], **settings).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("groups")
    (place / "specs").mkdir()
    (place / "specs" / "sides.yaml").write_text(TASK)
    write_sides(place / "data")
    add_group(place)
    ask(place)
    return place


@pytest.fixture(scope="module")
def plain(made: Path) -> Any:
    (entry,) = entries_of(made / "results" / "r", specs(made))
    return entry.plain()


@pytest.fixture
def entry(plain: Any) -> Any:
    return copy.deepcopy(plain)


def test_an_entry_has_the_scores_of_groups(made: Path, plain: Any) -> None:
    (group,) = plain["groups"]
    (row,) = json.loads((made / "results" / "r" / "results.json").read_text())["groups"]
    assert group["aggregates"] == row["aggregates"]
    assert set(row) - set(group) == {
        "model", "limit", "seed", "missing", "incomplete", "complete", "n_errors",
    }  # fmt: skip


def test_entries_without_groups_stay_as_they_are(plain: Any, entry: Any) -> None:
    del entry["groups"]
    assert "groups" not in Entry.model_validate(entry).plain()
    assert Entry.model_validate(plain).plain() == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["aggregates"]["mean_accuracy"].update(value=0.6), "mean_accuracy is 0.6, but"),
        (lambda g: g["aggregates"]["total"].update(value=None, ci_low=None, ci_high=None), "total"),
        (lambda g: g["aggregates"]["total"].update(ci_high=9.0), "expected 0 to 4"),
        (
            lambda g: g["aggregates"]["total"].update(ci_high=1.0, ci_low=1.5),
            "outside its interval",
        ),
        (lambda g: g["aggregates"]["mean_accuracy"].update(how="sum"), "do not match group toys"),
        (lambda g: g["aggregates"].pop("total"), "do not match group toys"),
        (lambda g: g.update(headline="total"), "do not match group toys"),
        (lambda g: g.update(headline="none"), "headline 'none' is not among"),
        (lambda g: g.update(members=["sides"]), "do not match group toys"),
        (lambda g: g.update(members=["sides", "mmvp"]), "group toys: no result of mmvp"),
        (lambda g: g.update(command="short"), "group toys: no result of sides, sides2"),
        (lambda g: g.update(group="tosy"), "unknown group 'tosy'; did you mean 'toys'"),
        (lambda g: g.update(group_version=2), "group toys has no version 2"),
        (lambda g: g.update(n_unparsed=99), "n_unparsed is more than n_samples"),
        (lambda g: g.update(extra=1), "unknown key 'groups.0.extra'"),
        (lambda g: g.update(order="sideways"), "groups.0.order"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    made: Path, entry: Any, tmp_path: Path, change: Change, message: str
) -> None:
    change(entry["groups"][0])
    put(tmp_path / "board", entry)
    with pytest.raises(InputError) as caught:
        load_entries([tmp_path / "board"], specs(made))
    assert message in str(caught.value)


def test_a_group_is_given_once(entry: Any) -> None:
    entry["groups"] *= 2
    with pytest.raises(ValueError, match="duplicate result: toys"):
        Entry.model_validate(entry)


def test_older_versions_are_accepted(made: Path, entry: Any, tmp_path: Path) -> None:
    """A later version of the group or of a task may be scored differently."""
    put(tmp_path / "board", entry)
    folder = tmp_path / "specs"
    folder.mkdir()
    for path in (made / "specs").iterdir():
        (folder / path.name).write_text(path.read_text())
    (folder / "toys.group.yaml").write_text(
        GROUP.replace("group: toys", "group: toys\nversion: 2").replace("total", "other")
    )
    place = tmp_path
    assert load_entries([tmp_path / "board"], specs(place))


def test_edited_scores_are_found(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made / "results" / "r", run)
    edit(
        run / "results.json",
        lambda content: content["groups"][0]["aggregates"]["total"].update(value=2.0),
    )
    with pytest.raises(InputError, match=r"groups 0 aggregates total value is 2\.0, but"):
        entries_of(run, specs(made))


def test_a_group_that_changed_since_the_run(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(made, place)
    (place / "specs" / "toys.group.yaml").write_text(GROUP.replace("total", "other"))
    run = place / "results" / "r"
    with pytest.raises(InputError, match="group toys of the run differs from the current one"):
        entries_of(run, specs(place))
    ask(place)
    (entry,) = entries_of(run, specs(place))
    assert list(entry.groups[0].aggregates) == ["mean_accuracy", "other"]
    (place / "specs" / "toys.group.yaml").unlink()
    (entry,) = entries_of(run, specs(place))
    assert entry.groups == []  # nobody else knows the group


def test_the_page_has_a_column_for_the_group(made: Path, plain: Any, tmp_path: Path) -> None:
    entry = Entry.model_validate(plain)
    build(tmp_path, [entry], [], specs(made))
    data = data_of(tmp_path / "index.html")
    (family,) = data["families"]
    assert [task["name"] for task in family["tasks"]] == ["sides", "sides2", "toys"]
    column = family["tasks"][-1]
    assert column["members"] == ["sides", "sides2"]
    assert column["primary"] == "mean_accuracy of individual_accuracy"
    assert column["chance"][column["primary"]] == {"value": 0.5, "text": "50"}
    (row,) = family["rows"]
    found = row["cells"]["toys"]["metrics"][column["primary"]]
    assert (found["text"], found["chance_text"]) == ("50.0", "50")
    assert data["metrics"][column["primary"]] == {
        "short": "mean accuracy", "unit": "share", "direction": "higher",
    }  # fmt: skip
    assert json.loads((tmp_path / "results.json").read_text())["entries"][0]["groups"]


def test_the_newest_run_is_shown(plain: Any, entry: Any) -> None:
    entry["run"].update(identity_sha256="f" * 64, finished="2020-01-01T00:00:00+00:00")
    old, new = Entry.model_validate(entry), Entry.model_validate(plain)
    assert [row.newest for row in group_rows([old, new])] == [False, True]

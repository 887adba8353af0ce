"""Scores of groups of tasks in the report."""

import re
from pathlib import Path

import pytest

from helpers.groups import GROUP, add_group
from helpers.runs import first
from helpers.runs import laconic as oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.report.page import Options
from vlm_harness.report.report import write
from vlm_harness.runs.evaluator import evaluate


@pytest.fixture
def run(bench: Path) -> Path:
    add_group(bench)
    return ask(bench, "toys")


def ask(bench: Path, *tasks: str, run_id: str = "r", limit: int | None = None) -> Path:
    return evaluate(
        [FakeBackend(first, "first"), FakeBackend(oracle, "oracle")],
        tasks,
        protocol=["generate"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(bench / "results"),
        run_id=run_id,
        limit=limit,
    ).path


def table(page: Path) -> str:
    """The text of the table of groups, with one space between its cells; empty if there is none."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'id="groups-title".*?</section>', text, re.DOTALL)
    return "" if found is None else " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


def test_the_scores_of_groups(run: Path, tmp_path: Path) -> None:
    write([run], tmp_path / "r.html", Options(image_size=0))
    text = table(tmp_path / "r.html")
    assert "first toys generate mean accuracy 50.0" in text
    assert "oracle toys generate total 400.0" in text
    write([run], tmp_path / "one.html", Options(image_size=0, tasks=["sides"]))
    assert table(tmp_path / "one.html") == ""
    write([run], tmp_path / "both.html", Options(image_size=0, tasks=["sides", "sides2"]))
    assert "mean accuracy" in table(tmp_path / "both.html")


def test_incomplete_groups_say_so(bench: Path, tmp_path: Path) -> None:
    add_group(bench, GROUP.replace("aggregates", "members: [sides, sides2, mmvp]\naggregates"))
    runs = [ask(bench, "sides", "sides2"), ask(bench, "sides", "sides2", run_id="s", limit=4)]
    write(runs, tmp_path / "r.html", Options(image_size=0))
    text = table(tmp_path / "r.html")
    assert "toys (first, generate): not computed, missing tasks: mmvp (1 of 3)" in text
    assert "incomplete tasks: sides, sides2" in text
    assert re.search("first toys generate r mean accuracy –", text)

"""A package that only has entry points: its plugins are shown like the built-in ones.

The package is ``examples/plugin``, installed by pip into a separate folder: an unbounded metric
where less is better, an extractor, a reader and a model family.
"""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT, TASK, Result, python, write_sides
from helpers.browser import visit

Shell = Callable[..., Result]
CHANGES = (
    ("{reader: jsonl, path: sides/rows.jsonl}",
     "{reader: sqlite, path: sides/rows.db, args: {table: rows}}"),
    ("extract: keyword", "extract: last_line"),
    ("metrics: [", "metrics: [words_per_answer, "),
    ("primary_metric: pair_accuracy", "primary_metric: words_per_answer"),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy benchmark in a database, two models of the plugin's family, and the package."""
    place = tmp_path_factory.mktemp("plugin")
    (place / "specs").mkdir()
    task = TASK
    for old, new in CHANGES:
        assert old in task
        task = task.replace(old, new)
    (place / "specs" / "sides.yaml").write_text(task)
    for model, reason in (("chatty", "true"), ("terse", "false")):
        (place / "specs" / f"{model}.yaml").write_text(
            f"model: {model}\nbackend: brighter_half\ncheckpoint: none\n"
            f"args: {{reason: {reason}}}\n"
        )
    sides = write_sides(place / "data") / "sides"
    rows = [json.loads(line) for line in (sides / "rows.jsonl").read_text().splitlines()]
    with sqlite3.connect(sides / "rows.db") as connection:
        connection.execute("CREATE TABLE rows (name, thing, side, kind)")
        connection.executemany("INSERT INTO rows VALUES (:name, :thing, :side, :kind)", rows)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(place / "site")]
    subprocess.run([*install, str(ROOT / "examples" / "plugin")], check=True)
    return place


@pytest.fixture(scope="module")
def shell(place: Path) -> Shell:
    """The command line, with the package installed."""

    def call(*args: str) -> Result:
        path = f"{ROOT}{os.pathsep}{place / 'site'}"
        return python("-m", "vlm_harness", *args, cwd=place, PYTHONPATH=path)

    return call


@pytest.fixture(scope="module")
def shown(shell: Shell) -> str:
    """Output of a run of both models."""
    done = shell(
        "--model", "chatty,terse", "--tasks", "sides", "--run-id", "both",
        "--include-path", "specs", "--data-dir", "data",
    )  # fmt: skip
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("metrics", "words_per_answer", "Mean number of generated words"),
        ("extractors", "last_line", "the last line affirms"),
        ("readers", "sqlite", "one table of an SQLite file"),
        ("backends", "brighter_half", "which half of an image is brighter"),
    ],
)
def test_plugins_are_listed(shell: Shell, kind: str, name: str, words: str) -> None:
    rows = {row["name"]: row for row in json.loads(shell("list", kind, "--json").out)}
    assert words in rows[name]["description"]


def test_the_terminal_shows_raw_values(shown: str) -> None:
    heads, chatty, terse = (
        next(line for line in shown.splitlines() if name in line.split())
        for name in ("words", "chatty", "terse")
    )
    assert heads.replace("┃", "").split() == ["model", "Indiv.", "Pairs", "words"]
    assert chatty.replace("│", "").split() == ["chatty", "100.0", "100.0", "12.000"]
    assert terse.replace("│", "").split() == ["terse", "100.0", "100.0", "1.000"]
    assert "percent, except numbers" in shown


def test_the_extractor_reads_only_the_last_line(place: Path, shown: str) -> None:
    for path in (place / "results" / "both" / "samples").glob("chatty*"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 12
    assert all("left half" in line["response"]["text"] for line in lines)
    assert all(line["correct"] and line["extraction"].startswith("last_line") for line in lines)


def test_exports_know_the_direction(shell: Shell, shown: str) -> None:
    markdown = shell("export", "results/both", "-f", "markdown").out
    assert "| chatty | **100.0** (61.0–100.0) | **100.0** (61.0–100.0) | 12.000 (" in markdown
    assert "| **1.000** (1.000–1.000) |" in markdown
    latex = shell("export", "results/both", "-f", "latex").out
    assert r"\textbf{1.000}" in latex
    assert r"\textbf{12.000}" not in latex
    rows = csv.DictReader(io.StringIO(shell("export", "results/both", "-f", "csv").out))
    values = {r["model"]: r["value"] for r in rows if r["metric"] == "words_per_answer"}
    assert values == {"chatty": "12.0", "terse": "1.0"}
    found = json.loads(shell("export", "results/both", "-f", "lm-eval", "-m", "chatty").out)
    assert found["results"]["sides"]["words_per_answer,generate"] == 12.0
    assert found["higher_is_better"]["sides"]["words_per_answer"] is False
    card = shell("export", "results/both", "-f", "model-card", "-m", "chatty").out
    assert "type: words_per_answer\n      value: 12.0\n" in card
    assert "sides: words per answer (generate)" in card


def test_a_comparison_does_not_turn_it_into_percent(shell: Shell, shown: str) -> None:
    done = shell("compare", "results/both", "--metric", "words_per_answer")
    (row,) = (line.split() for line in done.out.splitlines() if line.strip().startswith("words"))
    assert row == ["words", "12", "12.000", "1.000", "-11.000", "-", "-"]


def test_the_report_shows_it(place: Path, shell: Shell, shown: str, browser: Any) -> None:
    assert shell("report", "results/both").code == 0
    with visit(browser, (place / "results" / "both" / "report.html").as_uri()) as seen:
        text = seen.text("main")
        assert "words" in text
        assert "12.000" in text
        assert "1200" not in text


def test_the_leaderboard_accepts_and_ranks_it(
    place: Path, shell: Shell, shown: str, browser: Any
) -> None:
    specs = ["--include-path", "specs", "--results-dir", "entries"]
    added = shell("leaderboard", "add", "results/both", *specs)
    assert (added.code, added.err) == (0, "")
    assert shell("leaderboard", "check", "entries", "--include-path", "specs").code == 0
    assert shell("leaderboard", "build", "--output", "board", *specs).code == 0
    with visit(browser, (place / "board" / "index.html").as_uri()) as seen:
        seen.page.get_by_role("tab", name="toys").click()
        # The best value, here the smallest, is first.
        first, second = seen.column("#scores table", 1)
        assert "terse" in first
        assert "chatty" in second
        assert "12.000" in seen.text("#scores")

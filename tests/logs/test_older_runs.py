"""Run folders of earlier versions: resumed, scored, compared, reported and exported as before."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command
from helpers.browser import data_of
from helpers.runs import key_of
from vlm_harness import open_run

FIXTURE = Path(__file__).parents[1] / "data" / "run_0_1_0"
PLACES = ["--include-path", "specs", "--data-dir", "data", "--output-dir", "runs"]
RESUMED = ["--tasks", "sides", *PLACES, "--model", "fake:first,recorded", "--protocol", "generate"]


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "older"
    shutil.copytree(FIXTURE, folder)
    monkeypatch.chdir(folder)
    return folder


def read(path: Path) -> Any:
    return parsed(path.read_text())


def parsed(text: str) -> Any:
    """JSON with numbers rounded to a precision that is the same on every processor."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


def logs(run: Path) -> dict[str, list[Any]]:
    """Lines by file, sorted, since their order may differ."""
    return {
        path.name: sorted(map(parsed, path.read_text().splitlines()), key=key_of)
        for path in (run / "samples").iterdir()
    }


def test_an_interrupted_run_is_resumed(older: Path, command: Command) -> None:
    code, _, err = command(*RESUMED, "--order", "both", "--run-id", "interrupted")
    assert code == 0, err
    interrupted, complete = older / "runs" / "interrupted", older / "runs" / "whole"
    assert logs(interrupted) == logs(complete)
    assert read(interrupted / "results.json") == read(complete / "results.json")
    assert open_run(interrupted).manifest.finished


def test_a_finished_run_is_read(older: Path, command: Command) -> None:
    before = {path: path.read_bytes() for path in (older / "runs" / "recorded").rglob("*.json*")}
    code, _, err = command(*RESUMED, "--command", "all", "--run-id", "recorded")
    assert code == 0, err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("labels", ["corrected", "original"])
def test_it_is_rescored(older: Path, command: Command, labels: str) -> None:
    name = "results.json" if labels == "corrected" else "results.original.json"
    expected = read(older / "runs" / "recorded" / name)
    (older / "runs" / "recorded" / name).unlink()
    assert command("rescore", "runs/recorded", "--labels", labels)[0] == 0
    assert read(older / "runs" / "recorded" / name) == expected


def test_it_is_compared(older: Path, command: Command) -> None:
    sides = ["--model-a", "first", "--model-b", "recorded", "--only", "command=default"]
    code, out, _ = command("compare", "runs/recorded", *sides, "--flips", "all", "--json")
    assert code == 0
    expected = read(older / "expected" / "compare.json")
    # Added since: the note that one side has many unparsed answers.
    expected["notes"].insert(0, parsed(out)["notes"][0])
    assert "0.0% of the answers of side A are unparsed, 25.0% of side B" in expected["notes"][0]
    assert parsed(out) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-f", "csv"], "finished.csv"),
        (["-f", "markdown"], "finished.md"),
        (["-f", "latex"], "finished.tex"),
        (["-f", "lm-eval", "-m", "tiny-llava"], "lm-eval.json"),
        (["-f", "model-card", "-m", "tiny-llava"], "model-card.yaml"),
    ],
)
def test_it_is_exported(older: Path, command: Command, arguments: list[str], expected: str) -> None:
    code, out, _ = command("export", "runs/finished", *arguments)
    assert code == 0
    assert out == (older / "expected" / expected).read_text()


@pytest.mark.parametrize("name", ["finished", "recorded", "interrupted"])
def test_it_is_reported(older: Path, command: Command, name: str) -> None:
    arguments = ["--data-dir", "data", "-o", "page.html"]
    code, _, err = command("report", f"runs/{name}", *arguments)
    assert code == 0, err
    (task,) = data_of(older / "page.html")["tasks"]
    lines = list(open_run(older / "runs" / name).lines())
    assert sum(len(sample["lines"]) for sample in task["samples"]) == len(lines) > 0


def test_it_is_opened(older: Path) -> None:
    run = open_run(older / "runs" / "finished")
    assert len(list(run.lines())) == 40
    assert run.manifest.vlm_harness == "0.1.0"
    assert {model.dtype for model in run.manifest.models.values()} == {"float32"}
    assert [row.primary_metric for row in run.results] == ["pair_accuracy"] * 3


def test_reading_and_writing_preserves_the_data(older: Path) -> None:
    """Our types neither lose nor add any data of lines, manifests or results."""
    for name in ("finished", "recorded", "whole"):
        run = open_run(older / "runs" / name)
        assert run.manifest.to_dict() == json.loads((run.path / "manifest.json").read_text())
        assert run.results.to_dict() == json.loads((run.path / "results.json").read_text())
        written = [
            json.loads(text)
            for path in sorted((run.path / "samples").iterdir())
            for text in path.read_text().splitlines()
        ]
        found = [line.to_dict() for line in run.lines()]
        assert sorted(found, key=key_of) == sorted(written, key=key_of)

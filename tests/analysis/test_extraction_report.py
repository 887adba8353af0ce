"""``extraction-report``, and what a run says about unparsed answers and other readings."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command, Edit
from vlm_harness.analysis.extraction import extraction_report
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.logs.run import Run
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.types import Request

TEXTS = {"left": ["left", "I cannot tell.", "It is left or right."], "right": ["right"]}


def answers(request: Request) -> str:
    """Half of the samples with the option left are answered in ways that choose nothing."""
    assert request.sample is not None
    sample = request.sample
    texts = TEXTS[sample.options[sample.target]]
    return texts[sum(map(ord, sample.id)) % len(texts)]


@pytest.fixture
def run(bench: Path, edit: Edit) -> Run:
    edit("extract: keyword", "extract: keyword, readings: {lenient: contains}")
    return evaluate(
        [FakeBackend(answers, "verbose")], ["sides"], protocol=["generate"],
        include_path=[str(bench / "specs")], data_dir=str(bench / "data"),
        output_dir=str(bench / "results"), run_id="r",
    )  # fmt: skip


def test_shapes_reasons_and_other_scores(run: Run) -> None:
    (report,) = extraction_report(Run(run.path))
    lines = list(run.lines())
    unparsed = [line for line in lines if line.status == "unparsed"]
    assert (report.n, report.n_unparsed) == (len(lines), len(unparsed))
    assert unparsed
    assert set(report.reasons) <= {"refusal", "ambiguous"}
    assert {shape.text for shape in report.shapes} <= {
        "I cannot tell.", "It is <option> or <option>.",
    }  # fmt: skip
    assert sum(shape.n for shape in report.shapes) == len(unparsed)
    own = report.scores["this run's"]
    assert own == {
        "n_unparsed": len(unparsed),
        "n_different": 0,
        "value": run.results[0].primary.value,
    }
    assert report.scores["keyword (first)"]["n_unparsed"] < len(unparsed)
    assert "lenient" in report.scores
    assert "yes_no" not in report.scores  # does not apply to left and right


def test_the_command(run: Run, command: Command) -> None:
    code, out, _ = command("extraction-report", run.path)
    assert code == 0
    for text in ("verbose", "I cannot tell.", "keyword (first)", "lenient"):
        assert text in out
    code, out, _ = command("extraction-report", run.path, "--json", "--shapes", "1")
    cell: dict[str, Any] = json.loads(out)["cells"][0]
    assert (code, cell["task"], len(cell["shapes"])) == (0, "sides", 1)
    code, _, err = command("extraction-report", run.path, "--task", "side")
    assert (code, "did you mean 'sides'" in err) == (2, True)


def test_results_have_the_other_readings(run: Run) -> None:
    row = run.results[0]
    assert set(row.readings) == {"lenient"}
    assert set(row.readings["lenient"]) == set(row.metrics)
    # "It is left or right." is ambiguous under both; refusals name no option.
    assert row.readings["lenient"][row.primary_metric].value == row.primary.value


def test_the_share_of_unparsed_answers_is_printed(run: Run, command: Command) -> None:
    code, out, _ = command("rescore", run.path)
    share = run.results[0].n_unparsed / run.results[0].n_samples
    assert code == 0
    assert f"unparsed, {share:.1%} (count as wrong)" in " ".join(out.split())
    assert "extraction-report" in out
    assert "as read by lenient" in out


def test_a_run_without_texts(bench: Path, command: Command) -> None:
    run = evaluate(
        ["fake:oracle"], ["sides"], protocol=["choice"], include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"), output_dir=str(bench / "results"),
    )  # fmt: skip
    code, out, _ = command("extraction-report", run.path)
    assert (code, "no generated answers" in out) == (0, True)

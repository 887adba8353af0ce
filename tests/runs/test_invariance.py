"""``--check-invariance`` detects answers that depend on the batch size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT
from helpers.runs import log_line
from vlm_harness.runs.evaluator import evaluate_config
from vlm_harness.runs.invariance import _sample_ids, check_invariance, compare
from vlm_harness.specs.schemas import RunConfig


def line(prediction: int, scores: Sequence[float] | None = None, text: str | None = None) -> Any:
    response = {"scores": scores} if scores else {"text": text}
    return log_line(prediction=prediction, response=response)


def test_differences_by_hand() -> None:
    pairs = [
        (line(0, [0.5, 0.4]), line(0, [0.5, 0.42])),
        (line(1, [0.1, 0.2]), line(0, [0.2, 0.15])),
        (line(1, None, "right"), line(1, None, "right.")),
    ]
    assert compare(pairs) == {
        "n": 3, "flips": 1, "texts": 1, "max_score_difference": pytest.approx(0.1),
    }  # fmt: skip
    assert compare([])["max_score_difference"] is None


def test_sample_ids_are_spread_over_the_run_in_complete_pairs() -> None:
    pairs = {f"s{n}": f"p{n // 2}" for n in range(100)}
    lines = [log_line(sample_id=name, pair=pair) for name, pair in pairs.items()]
    chosen = _sample_ids(lines, 20)
    assert 16 <= len(chosen) <= 20
    assert {pairs[name] for name in chosen} == {f"p{n}" for n in range(0, 50, 5)}
    unpaired = [log_line(sample_id=name) for name in ("a", "b", "a")]
    assert _sample_ids(unpaired, 64) == ["a", "b"]


def test_a_run_is_the_same_at_every_batch_size(bench: Path) -> None:
    config = RunConfig(
        model=["fake:oracle"], tasks=["sides"], protocol=["generate", "choice"], order="both",
        data_dir=str(bench / "data"), include_path=[str(bench / "specs")],
        output_dir=str(bench / "results"),
    )  # fmt: skip
    run = evaluate_config(config)
    rows = check_invariance(config, run.path, sizes=(1, 5))
    assert [(row["batch_size"], row["protocol"]) for row in rows] == [
        (1, "choice"), (1, "generate"), (5, "choice"), (5, "generate"),
    ]  # fmt: skip
    assert all(row["n"] == 24 and row["flips"] == row["texts"] == 0 for row in rows)
    assert sorted(path.name for path in (bench / "results").iterdir()) == [run.path.name]


def test_a_grid_with_different_tasks_and_protocols(bench: Path) -> None:
    """Dual encoders and generative models, on two tasks that share some sample ids."""
    other = (bench / "specs" / "sides.yaml").read_text().replace("task: sides", "task: more")
    (bench / "specs" / "more.yaml").write_text(f"{other}where: '{{{{ row_index % 2 == 0 }}}}'\n")
    (bench / "specs" / "encoder.yaml").write_text(
        f"model: encoder\nbackend: hf_dual_encoder\ncheckpoint: {ROOT / 'models' / 'tiny-clip'}\n"
    )
    config = RunConfig(
        model=["encoder", "fake:oracle"], tasks=["sides", "more"],
        protocol=["similarity", "choice"], limit=6,
        data_dir=str(bench / "data"), include_path=[str(bench / "specs")],
        output_dir=str(bench / "results"),
    )  # fmt: skip
    rows = check_invariance(config, evaluate_config(config).path, sizes=(1,), count=3)
    assert {(row["model"], row["protocol"]) for row in rows} == {
        ("encoder", "similarity"), ("oracle", "similarity"), ("oracle", "choice"),
    }  # fmt: skip
    assert all(row["n"] >= 4 and row["flips"] == 0 for row in rows)

"""Sensitivity to command and option order, on models with a known bias."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from vlm_harness import evaluate
from vlm_harness.analysis.sweeps import _agreement, protocol_agreement, sweeps
from vlm_harness.cli.console import print_protocol_agreement, print_sweeps
from vlm_harness.types import Model, Request, Response


def swept(bench: Path, model: str, **options: Any) -> list[dict[str, Any]]:
    run = evaluate(
        [model],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(bench / "results"),
        **options,
    )
    return sweeps(run.path)


def test_a_model_that_follows_the_content_never_flips(bench: Path) -> None:
    (row,) = swept(bench, "fake:oracle", protocol=["generate"], command=["all"], order="both")
    assert row["n_cells"] == 4  # two commands, two orders
    assert (row["mean"], row["flip_rate"]) == (1.0, 0.0)
    assert (row["first_position"], row["first_position_expected"]) == (0.5, 0.5)
    assert row["metric"] == "pair_accuracy"


def test_a_model_that_picks_the_first_option_always_flips(bench: Path) -> None:
    (row,) = swept(bench, "fake:first", protocol=["choice"], order="both")
    assert (row["mean"], row["flip_rate"], row["first_position"]) == (0.0, 1.0, 1.0)


def test_no_position_bias_if_options_were_not_reordered(bench: Path) -> None:
    (row,) = swept(bench, "fake:first", protocol=["generate"], command=["all"])
    assert row["flip_rate"] == 0.0
    assert row["first_position"] is None


def test_no_row_for_a_single_command_and_order(bench: Path) -> None:
    assert swept(bench, "fake:oracle", protocol=["generate", "choice"]) == []
    assert swept(bench, "fake:oracle", protocol=["generate"], order="random") == []


class Scripted:
    """Answers by command and sample."""

    answers: ClassVar = {
        "One.": {"a0": "left", "a1": "right", "b0": "left", "b1": "left"},
        "Two.": {"a0": "right", "a1": "right", "b0": "left", "b1": "left"},
    }

    def info(self) -> Model:
        return Model(name="scripted", backend="fake", checkpoint="x")

    def respond(self, requests: Sequence[Request], loader: Any) -> list[Response]:
        return [
            Response(text=self.answers[request.prompt[-4:]][request.sample.id])
            for request in requests
            if request.sample is not None
        ]


def test_best_worst_and_mean_of_commands(tmp_path: Path) -> None:
    """By hand: 1 of 2 pairs correct under one command, 0 of 2 under the other."""
    (tmp_path / "d").mkdir()
    rows = [{"n": f"{pair}{side}", "side": side, "pair": pair} for pair in "ab" for side in (0, 1)]
    (tmp_path / "d" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.yaml").write_text(
        "task: t\nversion: 1\ndataset: {reader: jsonl, path: rows.jsonl}\n"
        "sample: {id: '{{ n }}', options: [left, right], target: '{{ side }}',"
        " pair: '{{ row.pair }}'}\n"
        "prompt: {question: Q, commands: {one: One., two: Two.}}\n"
        "protocols: {generate: {extract: keyword}}\n"
        "metrics: [pair_accuracy]\nprimary_metric: pair_accuracy\n"
    )
    run = evaluate(
        [Scripted()], ["t"], include_path=[str(tmp_path)],
        data_dir=str(tmp_path / "d"), output_dir=str(tmp_path / "r"), command=["all"],
    )  # fmt: skip
    (row,) = sweeps(run.path)
    assert row["mean"] == pytest.approx(0.25)
    assert row["best"] == {"command": "one", "order_index": 0, "value": 0.5}
    assert row["worst"] == {"command": "two", "order_index": 0, "value": 0.0}
    assert row["best_command"] == {"command": "one", "value": 0.5}
    assert row["flip_rate"] == pytest.approx(1 / 4)  # only the first sample


def test_the_table_is_not_truncated_at_80_columns(bench: Path) -> None:
    rows = swept(bench, "fake:first", protocol=["choice"], order="both")
    console = Console(width=80, record=True, file=io.StringIO())
    print_sweeps(rows, console)
    text = console.export_text()
    assert "…" not in text
    assert "100.0" in text


def test_agreement_of_protocols(bench: Path) -> None:
    """By hand: the first option is correct for every second sample, under every protocol."""
    run = evaluate(
        ["fake:oracle", "fake:first"],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(bench / "results"),
        protocol=["generate", "choice"],
    )
    oracle, first = protocol_agreement(run.path)
    assert oracle["protocols"] == ["generate", "choice"]
    assert oracle["matrix"] == first["matrix"] == [[1.0, 1.0], [1.0, 1.0]]
    console = Console(width=80, record=True, file=io.StringIO())
    print_protocol_agreement([oracle, first], console)
    assert "100.0" in console.export_text()


def test_agreement_counts_samples_answered_under_both() -> None:
    p, q = {"a": 0, "b": 1, "c": None, "d": 1}, {"a": 0, "b": 0, "c": 1, "d": None}
    assert _agreement(p, q) == 1 / 2  # a and b
    assert _agreement(p, p) == 3 / 4
    assert _agreement({}, {"a": 1}) is None

"""Cosine against outcome: bins, quadrants and correlations by hand, and the command on runs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from helpers.bench import TASK, Command
from helpers.models import tiny_clip
from vlm_harness.analysis.agreement import (
    Row,
    Similarity,
    compare,
    quantile_bins,
    rank_correlations,
)
from vlm_harness.analysis.agreement import spearman as correlation
from vlm_harness.metrics.metric import Record
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Cell


def row(outcomes: Sequence[str], model: str = "m", orders: int = 1, command: str = "c") -> Row:
    """A model's answers: ``outcomes[i]`` marks the correct samples of pair i, e.g. "10"."""
    records = [
        Record(f"{pair}{side}", order, 2, mark == "1", pair=str(pair))
        for order in range(orders)
        for pair, marks in enumerate(outcomes)
        for side, mark in enumerate(marks)
    ]
    cell = Cell(
    model=model, task="t", protocol="choice", command=command, order_mode="fixed",
    decoding="greedy", image_mode="normal", labels="corrected",
)  # fmt: skip
    return Row("r", cell, records)


def report(cosines: Sequence[float], *rows: Row, bins: int = 2, threshold: float = 0.95) -> Any:
    by_pair = {str(pair): cosine for pair, cosine in enumerate(cosines)}
    return compare("t", Similarity("e", by_pair), rows, GroupRules(), threshold, bins)


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "n", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 3, [0, 0, 1, 1, 2, 2]),
        ([6, 1, 4, 3, 2, 5], 2, [1, 0, 1, 0, 0, 1]),
        ([1, 2, 3], 1, [0, 0, 0]),
        ([1, 1, 1, 2], 4, [0, 0, 0, 1]),  # equal values share a bin
        ([1, 1, 1, 2], 2, [0, 0, 0, 0]),  # the second bin would start among the ones
        ([0.5, 0.5], 5, [0, 0]),
        ([0.1, 0.2], 5, [0, 1]),  # no more bins than values
        ([], 3, []),
    ],
)
def test_quantile_bins(values: list[float], n: int, expected: list[int]) -> None:
    assert quantile_bins(np.array(values, float), n).tolist() == expected


def test_bins_and_quadrants() -> None:
    cosines = [0.99, 0.97, 0.95, 0.90, 0.80, 0.70]  # 0.95 is not above 0.95
    found = report(cosines, row(["11", "10", "11", "01", "11", "11"]))
    assert [(b["low"], b["high"], b["n"]) for b in found["bins"]] == [
        (0.7, 0.9, 3), (0.95, 0.99, 3),
    ]  # fmt: skip
    (only,) = found["rows"]
    values = [
        (b["pair_accuracy"]["value"], b["individual_accuracy"]["value"]) for b in only["bins"]
    ]
    assert values == [(pytest.approx(2 / 3), pytest.approx(5 / 6))] * 2
    assert only["bins"][0]["pair_accuracy"]["chance"] == 0.25
    low, high = (only["bins"][0]["pair_accuracy"][key] for key in ("ci_low", "ci_high"))
    assert 0 <= low < 2 / 3 < high <= 1
    quadrants = only["quadrants"]
    assert (quadrants["agree"]["right"], quadrants["agree"]["wrong"]) == (1, 1)
    assert (quadrants["disagree"]["right"], quadrants["disagree"]["wrong"]) == (3, 1)
    assert quadrants["disagree"]["pair_accuracy"]["value"] == 0.75
    assert found["share_above"]["value"] == pytest.approx(2 / 6)
    assert found["mean_cosine"]["value"] == pytest.approx(sum(cosines) / 6)
    assert (found["n_pairs"], only["n_pairs"], found["rank_correlation"]) == (6, 6, None)


def test_correlation_of_cosine_and_outcome() -> None:
    # Ranks 1 2 3 4 and (tied) 3.5 3.5 1.5 1.5: covariance -4, variances 5 and 4.
    assert report([0.1, 0.2, 0.3, 0.4], row(["11", "11", "00", "10"]))["rows"][0][
        "spearman"
    ] == pytest.approx({"rho": -4 / np.sqrt(5 * 4), "p": 0.10557, "n": 4}, abs=1e-4)
    for cosines, outcomes in (
        ([0.1, 0.2, 0.3], [1, 1, 1]),
        ([0.1] * 3, [0, 1, 0]),
        ([1, 2], [0, 1]),
    ):
        assert correlation(cosines, outcomes) is None


def test_a_pair_in_two_orders_is_one_observation() -> None:
    twice = row(["11", "10", "11"], orders=2)
    for each in twice.records:
        if each.order_index == 1 and each.pair == "2":
            object.__setattr__(each, "correct", False)
    (found,) = report([0.99, 0.98, 0.5], twice)["rows"]
    assert found["n_pairs"] == 3
    assert found["spearman"]["n"] == 3
    expected = spearmanr([0.99, 0.98, 0.5], [1, 0, 0.5])
    assert found["spearman"]["rho"] == pytest.approx(expected.statistic)
    assert found["quadrants"]["agree"]["right"] == found["quadrants"]["agree"]["wrong"] == 2


def test_the_example_of_the_paper() -> None:
    """Section 3.2: a cosine above 0.989, and opposite ranks."""
    a, b = np.array([[10.0, 11, 12]]), np.array([[12.0, 11, 10]])
    assert (a @ b.T / np.linalg.norm(a) / np.linalg.norm(b)).item() > 0.989
    assert rank_correlations(a, b).tolist() == [-1]


def test_rank_correlations_against_scipy() -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 20, 12)).astype(float)  # with ties
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlations(a, b), expected)
    assert np.isnan(rank_correlations(np.ones((1, 3)), a[:1, :3])).all()


def test_what_is_left_out_of_a_row() -> None:
    """An incomplete pair, and pairs without a cosine."""
    some = row(["11", "00", "11"])
    del some.records[0]
    found = report([0.99, 0.5], some)
    assert found["rows"][0]["n_pairs"] == 1
    assert found["rows"][0]["bins"][1]["pair_accuracy"]["value"] is None
    assert found["rows"][0]["quadrants"]["agree"]["pair_accuracy"]["n"] == 0


def test_labels() -> None:
    rows = row(["11"]), row(["11"], command="d"), row(["11"], "other")
    assert [each["label"] for each in report([0.9], *rows)["rows"]] == [
        "m / command c",
        "m / command d",
        "other",
    ]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def run(bench: Path, command: Command) -> Callable[..., Path]:
    def call(models: str, *args: object, name: str = "r") -> Path:
        places = "--include-path", bench / "specs", "--data-dir", bench / "data"
        where = "--output-dir", bench / "runs", "--run-id", name
        code, _, err = command("run", "--model", models, "--tasks", "sides", *places, *where, *args)
        assert code == 0, err
        return bench / "runs" / name

    return call


def reports(command: Command, *args: object) -> list[dict[str, Any]]:
    code, out, err = command("agreement", *args, "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)["reports"]
    return found


def test_encoder_and_log_give_the_same_cosines(
    clip: Path, run: Callable[..., Path], command: Command
) -> None:
    folder = run(f"{clip},fake:oracle", "--protocol", "similarity")
    (logged,) = reports(command, folder, "--from-log")
    (computed,) = reports(command, folder, "--encoder", clip)
    assert logged["encoder"] == computed["encoder"] == "clip"
    assert [each["pair"] for each in logged["pairs"]] == [f"thing{n}" for n in range(6)]
    for a, b in zip(logged["pairs"], computed["pairs"], strict=True):
        assert a["cosine"] == pytest.approx(b["cosine"], abs=1e-5)
        assert (a["rank_correlation"], b["rank_correlation"] is None) == (None, False)
    assert computed["rank_correlation"]["n"] == 6
    results = json.loads((folder / "results.json").read_text())["results"]
    expected = next(r["metrics"]["mean_pair_cosine"] for r in results if r["model"] == "clip")
    assert logged["mean_cosine"]["value"] == pytest.approx(expected["value"])
    for each in results:
        found = next(r for r in logged["rows"] if r["model"] == each["model"])
        right = sum(side["right"] for side in found["quadrants"].values())
        assert right / 6 == each["metrics"]["pair_accuracy"]["value"]


def test_models_of_several_runs(clip: Path, run: Callable[..., Path], command: Command) -> None:
    one = run("fake:oracle", "--images", "none", "--protocol", "choice", name="blind")
    other = run("fake:oracle,fake:first", "--protocol", "choice")
    (found,) = reports(command, one, other, one, "--encoder", clip, "--bins", 3)
    assert [each["label"] for each in found["rows"]] == [
        "oracle / images none", "oracle / images normal", "first",
    ]  # fmt: skip
    assert len(found["bins"]) == 3
    assert [each["n_pairs"] for each in found["rows"]] == [6, 6, 6]


def test_table_and_plot(
    clip: Path, run: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    folder = run("fake:oracle,fake:first")
    path = tmp_path / "plot.png"
    code, out, err = command("agreement", folder, "-e", clip, "--plot", path, "--threshold", 0.5)
    assert code == 0, err
    assert err == "sides: embedding 12 images with clip\n"
    assert "6 pairs; mean cosine " in out
    assert "Spearman correlation within each embedding pair: mean " in out
    assert out.rstrip().endswith(str(path))
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.width) == ("PNG", 1350)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(0x09, 0x69, 0xDA), (0xCF, 0x22, 0x2E)} <= colours  # of both models
    for other in ("svg", "pdf"):
        code, _, err = command(
            "agreement", folder, "-e", clip, "--plot", path.with_suffix(f".{other}")
        )
        assert code == 0, err
    code, out, err = command("agreement", folder, "-e", clip, "--plot", path, "--threshold", 1)
    assert code == 0, err


def test_missing_and_changed_images_are_left_out(
    clip: Path, bench: Path, run: Callable[..., Path], command: Command
) -> None:
    data = bench / "data" / "sides"
    folder = run(f"{clip},fake:oracle", "--protocol", "similarity")
    (data / "thing0-left.png").unlink()
    shutil.copy(data / "thing2-left.png", data / "thing1-left.png")
    (found,) = reports(command, folder, "-e", clip)
    assert found["left_out"] == {"image not readable": 1, "image changed since the run": 1}
    assert found["n_pairs"] == 4
    assert found["rows"][0]["n_pairs"] == 4


@pytest.mark.parametrize("source", ["log", "encoder"])
def test_the_same_image_twice_is_not_an_agreement(
    source: str, clip: Path, bench: Path, run: Callable[..., Path], command: Command
) -> None:
    data = bench / "data" / "sides"
    shutil.copy(data / "thing0-left.png", data / "thing0-right.png")
    folder = run(str(clip), "--protocol", "similarity")
    args = ["--from-log"] if source == "log" else ["--encoder", clip]
    (found,) = reports(command, folder, *args)
    assert (found["n_pairs"], found["left_out"]) == (5, {"same image twice": 1})


def test_data_that_have_moved(
    clip: Path, bench: Path, run: Callable[..., Path], command: Command
) -> None:
    folder = run("fake:oracle")
    shutil.move(bench / "data", bench / "moved")
    assert command("agreement", folder, "-e", clip)[0] == 2
    (found,) = reports(command, folder, "-e", clip, "--data-dir", bench / "moved")
    assert found["n_pairs"] == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--encoder: give --encoder MODEL, or --from-log"),
        (["-e", "{clip}", "--from-log"], "give either --encoder MODEL or --from-log, not both"),
        (["--from-log"], "no pair has a cosine"),
        (["-e", "clipp"], "--encoder: unknown model 'clipp'"),
        (
            ["-e", "{clip}", "-t", "side"],
            "no task 'side' with paired samples; did you mean",
        ),
        (
            ["-e", "{clip}", "--plot", "x.jpg"],
            "--plot: expected a file name with a known extension (pdf, png, svg), got x.jpg",
        ),
        (
            ["-e", "{clip}", "--plot", "nowhere/x.png"],
            "--plot: folder not found: 'nowhere'",
        ),
        (["-e", "{clip}", "nowhere"], "nowhere: not a run folder: it has no manifest.json"),
        (["-e", "{clip}", "--threshold", "2"], "--threshold"),
    ],
)
def test_refused(
    args: Sequence[str], message: str, clip: Path, run: Callable[..., Path], command: Command
) -> None:
    folder = run("fake:oracle")
    code, out, err = command("agreement", folder, *(arg.format(clip=clip) for arg in args))
    assert (code, out) == (2, "")
    assert message in err


def test_runs_with_different_data(
    clip: Path, bench: Path, run: Callable[..., Path], command: Command
) -> None:
    one = run("fake:oracle", name="one")
    rows = bench / "data" / "sides" / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:8]))
    other = run("fake:oracle", name="other")
    code, _, err = command("agreement", one, other, "-e", clip)
    assert code == 2
    assert "have different data or versions of the task sides" in err


def test_pairs_of_three(
    clip: Path, bench: Path, run: Callable[..., Path], command: Command
) -> None:
    (bench / "specs" / "sides.yaml").write_text(
        TASK.replace('  pair: "{{ thing }}"', '  pair: "{{ kind }}"')
        + "grouping: {pair: {size: 6}}\n"
    )
    code, _, err = command("agreement", run("fake:oracle"), "-e", clip)
    assert code == 2
    assert "task sides: expected pairs of two samples, got pairs of 6" in err


@pytest.mark.parametrize(
    "args",
    [["agreement", "--help"], ["mine-pairs", "--help"], ["agreement", "{run}", "--from-log"]],
)
def test_no_torch(args: Sequence[str], clip: Path, run: Callable[..., Path]) -> None:
    folder = run(str(clip), "--protocol", "similarity")
    given = [arg.format(run=folder) for arg in args]
    code = "import sys; from vlm_harness.cli import main; main(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.realdata
def test_mmvp(clip: Path, realdata: Path, tmp_path: Path, command: Command) -> None:
    """The 150 pairs of MMVP, with an untrained encoder."""
    args = "--tasks", "mmvp", "--data-dir", realdata, "--output-dir", tmp_path, "--run-id", "r"
    assert (
        command("run", "--model", "fake:first,fake:oracle", *args, "--protocol", "choice")[0] == 0
    )
    (found,) = reports(command, tmp_path / "r", "-e", clip)
    assert (found["n_pairs"], found["left_out"]) == (150, {})
    assert sum(each["n"] for each in found["bins"]) == 150
    first, oracle = found["rows"]
    assert [side["right"] for side in first["quadrants"].values()] == [0, 0]
    assert sum(side["right"] for side in oracle["quadrants"].values()) == 150

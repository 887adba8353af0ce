"""Paired comparison: hand-computed statistics, matching of cells, and errors."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from helpers.bench import TASK, Command
from helpers.runs import first, log_line
from helpers.runs import laconic as oracle
from vlm_harness.analysis.compare import Comparison, compare
from vlm_harness.analysis.differences import Row, _records, _row
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import InputError, SampleError
from vlm_harness.metrics import METRICS, Record
from vlm_harness.metrics.stats import Units, difference_interval, holm, mcnemar
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Cell, OptionScore, Request, Response

FOUR_WAY = "whatsup_rendered_a_four_way"
TWO_WAY = "whatsup_rendered_a_left_right"
CELL = Cell(
    model="m", task="t", protocol="generate", command="default", order_mode="fixed",
    decoding="greedy", image_mode="normal", labels="corrected",
)  # fmt: skip


def wrong_on(*ids: str) -> Callable[[Request], Any]:
    """Correct on all samples except these, which it answers with the other option."""

    def handler(request: Request) -> Any:
        assert request.sample is not None
        correct = request.sample.id not in ids
        target = request.sample.target if correct else 1 - request.sample.target
        return request.sample.options[target]

    return handler


@pytest.fixture
def go(bench: Path) -> Callable[..., Path]:
    """Run fake models (name: handler) on the toy task or others; returns the run folder."""

    def call(run_id: str, tasks: str = "sides", /, *, models: Any = None, **options: Any) -> Path:
        models = models or {"toy": oracle}
        backends = [FakeBackend(handler, name) for name, handler in models.items()]
        settings: dict[str, Any] = {
            "data_dir": str(bench / "data"),
            "include_path": [str(bench / "specs")],
            "output_dir": str(bench / "results"),
            "protocol": ["generate"],
            "run_id": run_id,
            **options,
        }
        return evaluate(backends, tasks.split(","), **settings).path

    return call


def rows(found: Comparison, task: str | None = None) -> dict[str, Row]:
    return {row.metric: row for row in found.rows if task in (None, row.a.task)}


def edit_lines(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    for path in (run / "samples").glob("*.jsonl"):
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        for line in lines:
            change(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_manifest(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


# --- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (1, 5, 14 / 64),  # 2 (1 + 6) / 2^6 = 0.21875
        (5, 1, 14 / 64),
        (0, 6, 2 / 64),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, abs=1e-12)


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06, and 0.04 x 1 raised to the one before it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


def differences(*values: float, proportion: bool = True) -> Units:
    clusters = [str(index) for index in range(len(values))]
    return Units.of(list(values), clusters, proportion=proportion)


def test_interval_if_all_clusters_differ_equally() -> None:
    # Wilson's lower bound for 6 of 6: 1 / (1 + 1.96^2 / 6) = 0.60967
    for value, low, high in (
        (0, -0.39033, 0.39033),
        (1, 0.60967, 1.0),
        (-1, -1.0, -0.60967),
        (-0.5, -0.89033, -0.10967),
    ):
        found = difference_interval(differences(*[value] * 6))
        assert found == pytest.approx((low, high), abs=1e-5)
    assert difference_interval(differences(*[0.25] * 6, proportion=False)) == (0.25, 0.25)
    assert difference_interval(differences(1)) == (None, None)


def test_interval_is_about_the_difference_and_follows_the_seed() -> None:
    units = differences(*[1] * 20, *[0] * 70, *[-1] * 10)
    low, high = difference_interval(units, seed=1)
    assert low is not None
    assert high is not None
    # By the normal approximation: 0.1 +- 1.96 sqrt((0.3 - 0.01) / 100) = -0.006 to 0.206
    assert (low, high) == pytest.approx((-0.006, 0.206), abs=0.03)
    assert difference_interval(units, seed=1) == (low, high)


# --- units ----------------------------------------------------------------------------------------


def table(text: str) -> list[Record]:
    """``a1+ a2-``: samples by pair, correct or incorrect."""
    return [
        Record(word[:-1], 0, 2, word[-1] == "+", pair=word[0], scores=None) for word in text.split()
    ]


def one(metric: str, a: list[Record], b: list[Record]) -> Row | None:
    return _row(CELL, CELL, metric, METRICS.get(metric), a, b, GroupRules(), 0)


def test_samples_and_pairs_by_hand() -> None:
    a = table("a1+ a2+ b1+ b2- c1+ c2+ d1- d2-")
    b = table("a1+ a2- b1+ b2+ c1- c2- d1- d2+")
    samples = one("individual_accuracy", a, b)
    assert samples is not None
    assert (samples.unit, samples.n, samples.n_clusters) == ("sample", 8, 4)
    assert (samples.value_a, samples.value_b, samples.difference) == (5 / 8, 4 / 8, -1 / 8)
    assert (samples.only_a, samples.only_b) == (3, 2)  # a2 c1 c2; b2 d2
    assert samples.p == 1.0
    pairs = one("pair_accuracy", a, b)
    assert pairs is not None
    assert (pairs.unit, pairs.n, pairs.n_clusters) == ("pair", 4, 4)
    assert (pairs.value_a, pairs.value_b, pairs.difference) == (2 / 4, 1 / 4, -1 / 4)
    assert (pairs.only_a, pairs.only_b, pairs.p) == (2, 1, 1.0)  # a c; b
    assert one("set_accuracy", a, b) is None  # there are no sets


def test_incomplete_pairs_are_in_no_pair_metric() -> None:
    a, b = table("a1+ a2+ b1+"), table("a1+ a2- b1+")
    pairs = one("pair_accuracy", a, b)
    assert pairs is not None
    assert (pairs.n, pairs.only_a, pairs.only_b) == (1, 1, 0)
    # What'sUp's formula divides by all samples: pairs are not correct or incorrect, so no test.
    official = one("whatsup_official_pair_accuracy", a, b)
    assert official is not None
    assert (official.value_a, official.value_b) == pytest.approx((2 / 3, 0))
    assert official.p is None


def scored(*scores: tuple[float, float] | None) -> list[Record]:
    return [
        Record(f"{i}", 0, 2, False, pair=str(i // 2), scores=each, target=i % 2)
        for i, each in enumerate(scores)
    ]


def test_metrics_of_scores() -> None:
    a = scored((0.9, 0.1), (0.1, 0.9), (0.9, 0.1), (0.8, 0.2), (0.5, 0.4), (0.4, 0.5))
    b = scored((0.1, 0.9), (0.9, 0.1), (0.9, 0.1), (0.1, 0.9), (-0.5, 0.4), (0.4, 0.5))
    found = one("relaxed_pair_accuracy", a, b)
    assert found is not None
    # B has a cosine below zero in the last pair, which is left out on both sides.
    assert (found.n, found.only_a, found.only_b) == (2, 1, 0)
    assert (found.value_a, found.value_b) == (1.0, 0.5)
    found = one("relaxed_pair_accuracy_sum", a, b)
    assert found is not None
    assert (found.n, found.only_a, found.only_b) == (3, 2, 0)
    # Two outcomes per pair, so a pair is not correct or incorrect: an interval, but no test.
    found = one("text_to_image_accuracy", a, b)
    assert found is not None
    assert (found.unit, found.n, found.p) == ("pair", 3, None)
    assert found.difference == pytest.approx((0 + 2 + 1) / 6 - 6 / 6)
    assert found.ci_low is not None


def test_f1_is_compared_directly_since_its_units_differ_between_the_sides() -> None:
    def answers(text: str) -> list[Record]:
        """``yn``: the correct answer is yes, the prediction is no."""
        return [
            Record(
                str(i), 0, 2, correct == answer,
                target="yn".index(correct), prediction="yn".index(answer), positive=0,
            )
            for i, (correct, answer) in enumerate(text.split())
        ]  # fmt: skip

    a = answers("yy yy yn yn nn nn ny nn " * 10)  # TP 2, FN 2, FP 1
    b = answers("yy yy yy yn ny nn nn nn " * 10)  # TP 3, FN 1, FP 1
    found = one("f1", a, b)
    assert found is not None
    assert (found.value_a, found.value_b) == pytest.approx((4 / 7, 6 / 8))
    assert found.difference == pytest.approx(6 / 8 - 4 / 7)
    assert (found.n, found.n_clusters, found.only_a, found.p) == (80, 80, None, None)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.ci_low < found.difference < found.ci_high
    same = one("precision", a, a)
    assert same is not None
    assert same.difference == 0
    assert same.ci_low is not None
    assert same.ci_low < 0  # thirty equal answers are not certainty
    # A yes is not correct or incorrect: no test either.
    yes_ratio = one("yes_ratio", a, b)
    assert yes_ratio is not None
    assert (yes_ratio.value_a, yes_ratio.value_b, yes_ratio.p) == (3 / 8, 4 / 8, None)
    silent = [replace(each, prediction=None, correct=False) for each in b[:5]] + b[5:]
    yes_ratio = one("yes_ratio", a, silent)  # four of b's first five answers are yes
    assert yes_ratio is not None
    assert (yes_ratio.value_a, yes_ratio.value_b) == pytest.approx((30 / 80, 36 / 75))
    # The denominator of recall depends only on the targets, so samples are paired.
    recall = one("recall", a, b)
    assert recall is not None
    assert (recall.n, recall.only_a, recall.only_b) == (40, 0, 10)
    assert (recall.value_a, recall.value_b) == (2 / 4, 3 / 4)


def test_a_failed_pair_counts_as_incorrect_as_in_the_results(go: Callable[..., Path]) -> None:
    def failing(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.pair == "thing0":
            raise SampleError("the image is broken")
        return oracle(request)

    run = go(
        "r", models={"fine": oracle, "failing": failing}, protocol=["similarity"],
        max_errors="50%",
    )  # fmt: skip
    found = rows(compare(run))["pair_accuracy"]
    assert (found.n, found.value_b, found.only_a) == (6, pytest.approx(5 / 6), 1)
    results = json.loads((run / "results.json").read_text())["results"]
    for name, row in rows(compare(run)).items():
        assert row.value_a == pytest.approx(results[0]["metrics"][name]["value"])


def test_scores_of_a_failed_line_are_nan() -> None:
    line = {"options": ["a", "b"], "pair": "p"}
    responses: list[dict[str, Any]] = [{}, {"scores": [None, 1]}, {"scores": [1, 0]}]
    failed, nan, fine = _records(log_line(**line, response=response) for response in responses)
    for each in (failed, nan):
        assert each.scores is not None
        assert np.isnan(each.scores).all()
    assert fine.scores == (1, 0)
    assert _records([log_line(**line, response={})])[0].scores is None
    both = METRICS.get("group_accuracy")([failed, replace(fine, target=1)], GroupRules())
    assert (both.value, both.n) == (0, 1)


# --- runs -----------------------------------------------------------------------------------------


def test_two_runs_by_hand(go: Callable[..., Path]) -> None:
    a = go("a", models={"one": wrong_on("thing0-left")})
    b = go("b", models={"two": wrong_on(*(f"thing{i}-right" for i in range(1, 6)))})
    found = compare(a, b)
    samples, pairs = rows(found)["individual_accuracy"], rows(found)["pair_accuracy"]
    assert (samples.only_a, samples.only_b, samples.p) == (5, 1, 0.21875)
    assert (samples.value_a, samples.value_b) == pytest.approx((11 / 12, 7 / 12))
    assert (pairs.only_a, pairs.only_b, pairs.p) == (5, 1, 0.21875)
    assert samples.p_holm == pairs.p_holm == 0.4375
    assert samples.ci_low is not None
    assert samples.ci_high is not None
    assert samples.ci_low < samples.difference < samples.ci_high
    back = rows(compare(b, a))["pair_accuracy"]
    assert (back.only_a, back.only_b, back.p) == (1, 5, 0.21875)
    assert back.difference == -pairs.difference
    # relaxed and cosine metrics need scores: undefined here
    assert set(rows(found)) == {"individual_accuracy", "pair_accuracy"}
    assert rows(compare(a, b, metrics=["pair_accuracy"]))["pair_accuracy"].p_holm == 0.21875


def test_identical_runs_do_not_differ(go: Callable[..., Path]) -> None:
    handler = wrong_on("thing0-left", "thing3-right")
    found = compare(go("a", models={"one": handler}), go("b", models={"two": handler}))
    for row in found.rows:
        assert (row.difference, row.only_a, row.only_b, row.p, row.p_holm) == (0, 0, 0, 1, 1)
        assert row.ci_low is not None
        assert row.ci_high is not None
        assert row.ci_low < 0 < row.ci_high


def test_rendered_tasks_with_sets(go: Callable[..., Path]) -> None:
    models = {"oracle": oracle, "first": first}
    run = go("r", f"{TWO_WAY},{FOUR_WAY}", models=models, limit=8)
    found = compare(run)
    assert [found.a.cells[0].model, found.b.cells[0].model] == ["oracle", "first"]
    two, four = rows(found, TWO_WAY), rows(found, FOUR_WAY)
    assert (two["individual_accuracy"].only_a, two["pair_accuracy"].only_a) == (4, 4)
    assert "set_accuracy" not in two
    assert {name: (row.unit, row.n, row.only_a) for name, row in four.items()} == {
        "individual_accuracy": ("sample", 8, 6),
        "pair_accuracy": ("pair", 4, 4),
        "set_accuracy": ("set", 2, 2),
    }
    assert four["pair_accuracy"].n_clusters == 2
    assert all(row.p_holm is not None and row.p_holm >= row.p for row in found.rows if row.p)
    assert {row.a.task for row in compare(run, tasks=[TWO_WAY]).rows} == {TWO_WAY}
    assert compare(run, only_a={"model": "first"}).b.cells[0].model == "oracle"


def test_values_equal_the_results(go: Callable[..., Path]) -> None:
    models = {"oracle": oracle, "first": first}
    run = go(
        "r", f"{FOUR_WAY},sides", models=models, limit=8, protocol=["similarity", "choice"],
        order="both",
    )  # fmt: skip
    results = json.loads((run / "results.json").read_text())["results"]
    values = {
        (row["model"], row["task"], row["protocol"], name): metric["value"]
        for row in results
        for name, metric in row["metrics"].items()
    }
    found = compare(run)
    assert len(found.rows) > 12
    for row in found.rows:
        for cell, value in ((row.a, row.value_a), (row.b, row.value_b)):
            key = (cell.model, cell.task, cell.protocol, row.metric)
            assert value == pytest.approx(values[key])


def test_one_model_with_two_decodings(go: Callable[..., Path]) -> None:
    run = go("r", decoding=["greedy", "m3id:alpha=0.5"])
    with pytest.raises(InputError, match="side A has 2 results for sides with generate") as error:
        compare(run)
    assert "Choose one: --only decoding=greedy" in str(error.value)
    found = compare(
        run,
        only_a={"decoding": "greedy"},
        only_b={"decoding": "m3id:alpha=0.5"},
    )
    assert rows(found)["pair_accuracy"].n == 6


def test_one_model_with_and_without_images(go: Callable[..., Path]) -> None:
    found = compare(go("a"), go("b", models={"toy": first}, images="none"))
    assert [found.rows[0].a.image_mode, found.rows[0].b.image_mode] == ["normal", "none"]
    assert rows(found)["individual_accuracy"].only_a == 6
    assert found.notes == []
    swapped = compare(found.a.path, go("c", models={"toy": oracle}, images="swapped"))
    assert rows(swapped)["individual_accuracy"].n == 12


def test_a_dual_encoder_with_a_generating_model(go: Callable[..., Path]) -> None:
    a, b = go("a", protocol=["similarity"]), go("b", models={"vlm": first})
    (samples, pairs) = compare(a, b).rows
    assert (samples.a.protocol, samples.b.protocol) == ("similarity", "generate")
    assert (samples.only_a, pairs.only_a) == (6, 6)


def test_a_dual_encoder_gives_the_same_answer_in_every_order(go: Callable[..., Path]) -> None:
    a = go("a", protocol=["similarity"], models={"clip": oracle})
    found = compare(a, go("b", models={"vlm": first}, order="both"))
    samples = rows(found)["individual_accuracy"]
    # The second option of an order is never picked: incorrect in half of the lines.
    assert (samples.n, samples.n_clusters, samples.only_a, samples.only_b) == (24, 6, 12, 0)
    assert found.notes == [
        "sides: A has one order; each of its answers is compared with every order of B."
    ]
    assert rows(compare(found.b.path, a))["individual_accuracy"].only_b == 12


def test_redundant_metrics_are_tested_once(go: Callable[..., Path]) -> None:
    def log_probabilities(seed: int) -> Callable[[Request], Any]:
        def handler(request: Request) -> Any:
            assert request.sample is not None
            random = Random(f"{seed} {request.sample.id}")
            sums = [-random.random() for _ in request.candidates]
            return Response(scores=tuple(OptionScore(each / 2, each, 2) for each in sums))

        return handler

    a, b = (
        go(str(n), TWO_WAY, protocol=["likelihood"], limit=20, models={"x": log_probabilities(n)})
        for n in (1, 2)
    )
    found = compare(a, b)
    assert "relaxed_pair_accuracy" in rows(found)
    assert "relaxed_pair_accuracy_sum" not in rows(found)


def test_a_partial_run_with_a_complete_one(go: Callable[..., Path]) -> None:
    a, b = go("a", limit=4), go("b", models={"other": first})
    with pytest.raises(InputError, match="4 answers on side A, 12 on side B, 4 in common") as error:
        compare(a, b)
    assert "--common" in str(error.value)
    for found in (compare(a, b, common=True), compare(b, a, common=True)):
        assert rows(found)["individual_accuracy"].n == 4
        assert "4 answers in common" in found.notes[0]


def test_notes(go: Callable[..., Path], bench: Path) -> None:
    a = go("a", order="random", seed=0)
    b = go("b", models={"x": lambda _: "well"}, order="random", seed=3)
    notes = compare(a, b).notes
    assert any("option order differs in" in note for note in notes)
    assert any("12 unparsed on side B" in note for note in notes)
    path = bench / "specs" / "sides.yaml"
    path.write_text(TASK.replace("Is the {{ thing }} on", "Say, is the {{ thing }} on"))
    notes = compare(go("c"), go("d", models={"x": first})).notes
    assert notes == []
    path.write_text(TASK)
    (note,) = compare(tmp := go("e"), tmp.parent / "c").notes
    assert note == "sides / generate: prompts differ in 12 of 12 lines"


# --- errors ---------------------------------------------------------------------------------------


def test_other_task_version_or_samples(go: Callable[..., Path], bench: Path) -> None:
    a, b = go("a"), go("b")
    edit_manifest(b, lambda m: m["identity"]["tasks"]["sides"]["spec"].update(version=2))
    with pytest.raises(InputError, match="version 1 on side A and version 2 on side B"):
        compare(a, b)
    c = go("c")
    edit_manifest(c, lambda m: m["identity"]["tasks"]["sides"]["spec"].update(where="{{ x }}"))
    with pytest.raises(InputError, match="was changed without a new version: where differ"):
        compare(a, c)
    d = go("d")  # descriptive keys of a task may differ
    edit_manifest(d, lambda m: m["identity"]["tasks"]["sides"]["spec"].update(description="x"))
    edit_manifest(
        d, lambda m: m["identity"]["tasks"]["sides"]["spec"]["dataset"].update(verified=False)
    )
    # A run by an older version lacks newer keys.
    edit_manifest(d, lambda m: m["identity"]["tasks"]["sides"]["spec"].pop("each"))
    assert compare(a, d).rows


def test_other_data(go: Callable[..., Path], bench: Path) -> None:
    a = go("a")
    with (bench / "data" / "sides" / "rows.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match=r"different data: checksums differ for sides/rows\.jsonl"):
        compare(a, go("b"))


def test_other_images(go: Callable[..., Path]) -> None:
    a, b = go("a"), go("b")
    for run, digit in ((a, "0"), (b, "1")):
        edit_lines(run, lambda line, digit=digit: line["images"][0].update(sha256=digit * 64))
    with pytest.raises(InputError, match=r"12 images differ between A and B, e\.g\. sides/thing0"):
        compare(a, b)
    c = go("c")  # a model that reads no images
    edit_lines(c, lambda line: line["images"][0].update(sha256=None))
    assert compare(a, c).rows


def test_other_labels(go: Callable[..., Path]) -> None:
    a = go("a")
    with pytest.raises(InputError, match="labels are corrected on side A and original on side B"):
        compare(a, go("b", labels="original"))
    c = go("c")

    def relabel(line: dict[str, Any]) -> None:
        if line["sample_id"] == "thing2-left":
            line["target"] = 1

    edit_lines(c, relabel)
    with pytest.raises(InputError, match=r"labels differ in 1 of 12 lines.*thing2-left"):
        compare(a, c)


def test_other_samples(go: Callable[..., Path]) -> None:
    a, b = go("a", samples=["thing0-left"]), go("b", samples=["thing1-left"])
    for common in (False, True):
        with pytest.raises(InputError, match="0 in common") as error:
            compare(a, b, common=common)
        assert "Neither is a subset of the other" in str(error.value)


def test_nothing_answered(go: Callable[..., Path]) -> None:
    a, b = go("a"), go("b")
    for path in (b / "samples").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="side B has no answers for sides"):
        compare(a, b)


def test_no_common_task_or_protocol(go: Callable[..., Path]) -> None:
    a, b = go("a"), go("b", TWO_WAY, limit=2)
    with pytest.raises(InputError, match="no common task") as error:
        compare(a, b)
    assert f"Tasks of B: {TWO_WAY}" in str(error.value)
    with pytest.raises(InputError, match="no common task 'side'; did you mean 'sides'"):
        compare(a, go("c"), tasks=["side"])
    with pytest.raises(InputError, match="no common protocol on sides") as error:
        compare(a, go("d", protocol=["choice", "likelihood"]))
    assert "--only-b protocol=NAME" in str(error.value)


def test_selections_that_match_no_or_several_cells(go: Callable[..., Path]) -> None:
    models = {"one": oracle, "two": first, "three": first}
    run, other = go("r", models=models), go("o", command=["all"])
    with pytest.raises(InputError, match="side A has 3 models") as error:
        compare(run)
    assert "--model-a: one, three, two" in str(error.value)
    with pytest.raises(InputError, match="side B has no model 'tow'; did you mean 'two'"):
        compare(run, only_a={"model": "one"}, only_b={"model": "tow"})
    with pytest.raises(InputError, match="both sides are the same cell"):
        compare(run, only_a={"model": "one"}, only_b={"model": "one"})
    with pytest.raises(InputError, match=r"they differ in command \(default, short\)") as error:
        compare(run, other, only_a={"model": "one"})
    assert "--only command=default" in str(error.value)
    assert compare(run, other, only_a={"model": "two"}, only_b={"command": "default"}).rows
    with pytest.raises(InputError, match="has the metric 'par_accuracy'; did you mean"):
        compare(run, go("x"), only_a={"model": "two"}, metrics=["par_accuracy"])
    with pytest.raises(InputError, match="no metric has a value on both sides"):
        compare(run, go("y"), only_a={"model": "two"}, metrics=["mean_pair_cosine"])


# --- the command ----------------------------------------------------------------------------------


def test_output_fits_80_columns(
    go: Callable[..., Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"oracle": oracle, "first": first}
    run = go("r", FOUR_WAY, models=models, limit=16, protocol=["similarity"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, out, err = command("compare", run)
    assert (code, err) == (0, "")
    assert "two-way pair" in out
    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert "A: oracle" in out
    assert "(Holm)" in out
    assert "…" not in out
    assert max(map(cell_len, out.splitlines())) <= 80


def test_names_are_not_parsed_as_markup(go: Callable[..., Path], command: Command) -> None:
    a = go("a").rename(go("b", models={"two": first}).parent / "[red]a[blink]")
    code, out, _ = command("compare", a, a.parent / "b", "--metric", "pair_accuracy")
    assert code == 0
    assert "/[red]a[blink])" in out.replace("\n", "")
    assert "Holm" not in out  # a single test needs no adjustment


def test_json(go: Callable[..., Path], command: Command) -> None:
    run = go("r", models={"one": oracle, "two": first})
    code, out, _ = command("compare", run, "--model-a", "two", "--model-b", "one", "--json")
    found = json.loads(out)
    assert code == 0
    assert [(row["task"], row["metric"]) for row in found["comparisons"]] == [
        ("sides", "individual_accuracy"),
        ("sides", "pair_accuracy"),
    ]
    row = found["comparisons"][1]
    assert (row["a"]["model"], row["b"]["model"]) == ("two", "one")
    assert (row["only_a"], row["only_b"], row["p"], row["p_holm"]) == (0, 6, 0.03125, 0.0625)
    assert found["notes"] == []


def test_errors_are_one_message_and_exit_code_2(go: Callable[..., Path], command: Command) -> None:
    run = go("r")
    for args, message in (
        ([run], "RUN_A has only one model and RUN_B was not given: nothing to compare"),
        ([run, run.parent / "none"], "not a run folder"),
        ([run, "--only", "decode=x"], "expected FIELD=VALUE, got 'decode=x'"),
        ([run, "--model-a", "x", "--only-a", "model=y"], "names a different model"),
        ([run, "--task", "x"], "no common task 'x'"),
    ):
        code, out, err = command("compare", *args)
        assert (code, out) == (2, "")
        assert err.count("error: ") == 1
        assert message in err

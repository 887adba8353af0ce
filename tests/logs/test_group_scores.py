"""Scores of groups of tasks, with hand-computed values, and which rows they are computed from."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.records import records
from vlm_harness.logs.group_row import GroupRow
from vlm_harness.logs.groups import Scored, group_rows
from vlm_harness.logs.labels import group_caveats
from vlm_harness.logs.results import summarise
from vlm_harness.metrics import Record
from vlm_harness.specs.schemas import GroupSpec, TaskSpec
from vlm_harness.types import Cell, ExpectedCell

TASK: dict[str, Any] = {
    "version": 1,
    "dataset": {"reader": "jsonl", "path": "x"},
    "sample": {"id": "a", "options": ["a", "b"], "target": 0, "pair": "p"},
    "protocols": {"generate": {}, "choice": {}},
    "positive": "a",
    "metrics": ["individual_accuracy", "pair_accuracy", "f1", "precision", "mean_pair_cosine"],
}


def scored(
    task: str, text: str | Sequence[Record], limit: int | None = None, **cell: str
) -> Scored:
    spec = TaskSpec.model_validate({**TASK, "task": task})
    found = records(text) if isinstance(text, str) else list(text)
    settings = {
        "model": "m", "task": task, "protocol": "generate", "command": "default",
        "order_mode": "fixed", "decoding": "greedy", "image_mode": "normal", "labels": "corrected",
    } | cell  # fmt: skip
    where = Cell.model_validate(settings)
    n = len(found)
    expected = ExpectedCell(**where.grid, n_lines=n, n_available=n, n_pairs=0, n_sets=0)
    row = summarise(spec, where, found, expected, limit=limit, seed=0)
    return Scored(row, spec, found)


def spec(name: str, members: Sequence[str], *aggregates: dict[str, Any]) -> GroupSpec:
    return GroupSpec.model_validate(
        {"group": name, "members": list(members), "aggregates": list(aggregates)}
    )


def one(group: GroupSpec, *rows: Scored, **others: GroupSpec) -> GroupRow:
    found = group_rows({group.group: group, **others}, rows)
    return next(row for row in found if row.task == group.group)


ACCURACY = {"of": "individual_accuracy"}
A = "a1+ a2+ b1+ b2-"  # 3/4; 1 of 2 pairs
B = "a1- a2- b1- b2- c1+ c2+ d1- d2- e1- e2- f1- f2-"  # 2/12; 1 of 6 pairs
C = "a1+ a2+ b1+ b2+"  # 4/4; 2 of 2
YES_A = "yy yn nn nn"  # F1 2/3, precision 1/1
YES_B = "yy ny ny nn yn nn"  # F1 2/(2+2+1) = 2/5, precision 1/3

CASES = [
    # tasks, aggregate, value, n, chance
    ((A, B, C), {**ACCURACY, "how": "mean"}, (3 / 4 + 2 / 12 + 1) / 3, 20, 0.5),
    ((A, B, C), {**ACCURACY, "how": "weighted_mean"}, 9 / 20, 20, 0.5),
    ((A, B, C), {**ACCURACY, "how": "sum"}, 3 / 4 + 2 / 12 + 1, 20, 1.5),
    ((A, B), {"of": "pair_accuracy", "how": "mean"}, (1 / 2 + 1 / 6) / 2, 8, 0.25),
    ((A, B), {"of": "pair_accuracy", "how": "weighted_mean"}, 2 / 8, 8, 0.25),
    ((YES_A, YES_B), {"of": "f1", "how": "mean"}, (2 / 3 + 2 / 5) / 2, 10, 0.5 * (0.5 + 0.4)),
    ((YES_A, YES_B), {"of": "f1", "how": "weighted_mean"}, (4 * 2 / 3 + 6 * 2 / 5) / 10, 10, None),
    # precision counts the answers yes: 1 in A, 3 in B
    ((YES_A, YES_B), {"of": "precision", "how": "weighted_mean"}, (1 + 3 / 3) / 4, 4, None),
    # as in MME: accuracy + pair accuracy for each task, over all tasks
    (
        (A, B),
        {"of": ["individual_accuracy", "pair_accuracy"], "how": "sum"},
        3 / 4 + 1 / 2 + 2 / 12 + 1 / 6,
        16,
        1.5,
    ),
    (
        (A, B),
        {"of": ["individual_accuracy", "pair_accuracy"], "how": "mean"},
        (3 / 4 + 1 / 2 + 2 / 12 + 1 / 6) / 2,
        16,
        0.75,
    ),
]


@pytest.mark.parametrize(("tasks", "aggregate", "value", "n", "chance"), CASES)
def test_scores_by_hand(
    tasks: Sequence[str], aggregate: dict[str, Any], value: float, n: int, chance: float | None
) -> None:
    names = [f"t{number}" for number in range(len(tasks))]
    group = spec("g", names, {"name": "s", **aggregate})
    row = one(group, *(scored(name, text) for name, text in zip(names, tasks, strict=True)))
    found = row.aggregates["s"]
    assert found.value == pytest.approx(value)
    assert found.n == n
    if chance is not None:
        assert found.chance == pytest.approx(chance)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.ci_low <= value <= found.ci_high
    assert (row.complete, row.missing, row.incomplete) == (True, [], [])
    assert (row.headline, row.members) == ("s", names)
    assert row.n_samples == sum(len(text.split()) for text in tasks)


def test_groups_within_groups() -> None:
    rows = [scored(name, text) for name, text in (("t1", A), ("t2", B), ("t3", C))]
    inner = spec("inner", ["t1", "t2"], {"name": "s", **ACCURACY})
    over = {"name": "s", **ACCURACY, "over": "members"}
    outer = spec("outer", ["inner", "t3"], over, {"name": "flat", **ACCURACY})
    row = one(outer, *rows, inner=inner)
    assert row.aggregates["s"].value == pytest.approx(((3 / 4 + 2 / 12) / 2 + 1) / 2)
    assert row.aggregates["flat"].value == pytest.approx((3 / 4 + 2 / 12 + 1) / 3)
    assert row.members == ["t1", "t2", "t3"]
    found = group_rows({"outer": outer, "inner": inner}, rows)
    assert [each.task for each in found] == ["outer", "inner"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=5), st.data())
def test_a_mean_is_the_mean_of_its_members(answers: list[list[bool]], data: st.DataObject) -> None:
    """And a sum their sum, and a weighted mean the accuracy over all samples, in any order."""
    rows = [
        scored(f"t{number}", [Record(str(i), 0, 2, value) for i, value in enumerate(values)])
        for number, values in enumerate(answers)
    ]
    aggregates = [{"name": how, "how": how, **ACCURACY} for how in ("mean", "weighted_mean", "sum")]
    names = data.draw(st.permutations([row.row.task for row in rows]))
    row = one(spec("g", names, *aggregates), *rows)
    values = [sum(each) / len(each) for each in answers]
    assert row.aggregates["mean"].value == pytest.approx(sum(values) / len(values))
    assert row.aggregates["sum"].value == pytest.approx(sum(values))
    together = [value for each in answers for value in each]
    assert row.aggregates["weighted_mean"].value == pytest.approx(sum(together) / len(together))


# --- what is missing ------------------------------------------------------------------------------

PAIR = spec("g", ["t1", "t2", "t3"], {"name": "s", **ACCURACY})


def test_a_subset_is_never_averaged() -> None:
    row = one(PAIR, scored("t1", A), scored("t2", B))
    assert (row.missing, row.complete) == (["t3"], False)
    found = row.aggregates["s"]
    assert (found.value, found.ci_low, found.ci_high, found.chance, found.n) == (*[None] * 4, 0)
    assert group_caveats(row) == ["not computed, missing tasks: t3 (1 of 3)"]


def test_a_single_task_of_several_is_not_reported() -> None:
    assert group_rows({"g": PAIR}, [scored("t1", A)]) == []
    assert group_rows({"g": PAIR}, [scored("other", A)]) == []


def test_a_partial_task_makes_its_group_incomplete() -> None:
    row = one(PAIR, scored("t1", A), scored("t2", B, limit=12), scored("t3", C))
    assert (row.missing, row.incomplete, row.complete) == ([], ["t2"], False)
    assert row.aggregates["s"].value == pytest.approx((3 / 4 + 2 / 12 + 1) / 3)
    assert group_caveats(row) == ["incomplete tasks: t2"]


def test_failed_samples_make_a_group_incomplete() -> None:
    failed = [Record("1", 0, 2, True), Record("2", 0, 2, False, status="error")]
    row = one(PAIR, scored("t1", A), scored("t2", B), scored("t3", failed))
    assert (row.incomplete, row.complete, row.n_errors) == (["t3"], False, 1)


def test_an_undefined_metric_of_a_task_leaves_the_score_undefined() -> None:
    group = spec("g", ["t1", "t2"], {"name": "s", "of": "precision"}, {"name": "a", **ACCURACY})
    row = one(group, scored("t1", YES_A), scored("t2", "yn nn"))
    assert row.aggregates["s"].value is None
    assert row.aggregates["s"].ci_low is None
    assert row.aggregates["a"].value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert row.complete


def test_without_the_chance_of_a_task_there_is_none() -> None:
    group = spec("g", ["t1", "t2"], {"name": "s", "of": "mean_pair_cosine"})
    cosines = [
        Record(str(n), 0, 2, True, pair=str(n // 2), pair_cosine=0.9 + n // 2 / 100)
        for n in range(8)
    ]
    found = one(group, scored("t1", cosines), scored("t2", cosines)).aggregates["s"]
    assert found.value == pytest.approx(0.915)
    assert found.chance is None


# --- configurations -------------------------------------------------------------------------------


def test_one_row_per_configuration() -> None:
    cells = [
        {"model": model, "protocol": protocol, "command": command}
        for model in ("m", "n")
        for protocol in ("generate", "choice")
        for command in ("default", "short")
    ]
    group = spec("g", ["t1", "t2"], {"name": "s", **ACCURACY})
    rows = [scored(task, text, **cell) for task, text in (("t1", A), ("t2", B)) for cell in cells]
    found = group_rows({"g": group}, rows)
    assert [{name: row.grid[name] for name in cells[0]} for row in found] == cells
    assert all(row.complete for row in found)


def test_tasks_with_different_default_commands_and_orders_are_one_configuration() -> None:
    group = spec("g", ["t1", "t2"], {"name": "s", **ACCURACY})
    (row,) = group_rows(
        {"g": group},
        [
            scored("t1", A, command="letter", order_mode="both"),
            scored("t2", B, command="word", order_mode="random"),
        ],
    )
    assert (row.command, row.order_mode, row.decoding) == ("per task", "per task", "greedy")
    assert row.aggregates["s"].value == pytest.approx((3 / 4 + 2 / 12) / 2)
    assert row.includes(scored("t1", A, command="any").row)
    assert not row.includes(scored("t1", A, protocol="choice").row)
    assert not row.includes(scored("t3", A).row)


def test_commands_that_only_some_tasks_have_are_not_mixed() -> None:
    """With `--command all`, a command matches the same command of the other tasks."""
    group = spec("g", ["t1", "t2"], {"name": "s", **ACCURACY})
    found = group_rows(
        {"g": group},
        [
            scored("t1", A, command="default"),
            scored("t1", B, command="letter"),
            scored("t2", A, command="default"),
            scored("t2", B, command="word"),
        ],
    )
    assert {row.command: row.missing for row in found} == {
        "default": [], "letter": ["t2"], "word": ["t1"],
    }  # fmt: skip


def test_tasks_under_different_protocols_are_not_mixed() -> None:
    group = spec("g", ["t1", "t2"], {"name": "s", **ACCURACY})
    found = group_rows({"g": group}, [scored("t1", A), scored("t2", B, protocol="choice")])
    assert [(row.protocol, row.missing) for row in found] == [
        ("generate", ["t2"]), ("choice", ["t1"]),
    ]  # fmt: skip
    assert all(row.aggregates["s"].value is None for row in found)

"""Flipped samples, pairs and sets: hand-computed cases, terminal output, JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from helpers.bench import Command
from helpers.runs import log_line
from vlm_harness.analysis.compare import Comparison, compare
from vlm_harness.analysis.flips import Flips, flips
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.cli.compare import _column_widths
from vlm_harness.errors import SampleError
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Cell, LogLine, Request

A = Cell(
    model="a", task="t", protocol="generate", command="default", order_mode="fixed",
    decoding="greedy", image_mode="normal", labels="corrected",
)  # fmt: skip
B = A.replace(model="b")
FOUR_WAY = "whatsup_rendered_a_four_way"
OPTIONS = ["w", "x", "y", "z"]

Go = Callable[..., Path]


def lines(text: str, answers: str, **fields: Any) -> list[LogLine]:
    """``Aa1 Aa2 b1``: samples by set and pair. Answer ``w`` is correct, ``-`` is unparsed."""
    made = []
    for name, answer in zip(text.split(), answers, strict=True):
        pair = name.rstrip("0123456789")
        prediction = None if answer == "-" else OPTIONS.index(answer)
        made.append(
            log_line(**{
                "sample_id": name, "pair": pair, "set": pair[0] if pair[0].isupper() else None,
                "category": "c", "options": OPTIONS, "prediction": prediction,
                "correct": prediction == 0, "status": "unparsed" if prediction is None else "ok",
                "response": {"text": answer}, **fields,
            })
        )  # fmt: skip
    return made


def found(text: str, a: str, b: str) -> Flips:
    pairs = list(zip(lines(text, a), lines(text, b), strict=True))
    return flips(A, B, pairs, GroupRules())


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("x", "w", "gained"),
        ("-", "w", "gained"),
        ("w", "x", "lost"),
        ("w", "-", "lost"),
        ("x", "y", "other wrong answer"),
        ("x", "-", "other wrong answer"),
        ("w", "w", None),
        ("x", "x", None),
        ("-", "-", None),
    ],
)
def test_a_sample(a: str, b: str, kind: str | None) -> None:
    result = found("p1", a, b)
    assert [flip.kind for flip in result.samples] == ([] if kind is None else [kind])
    assert (result.groups, result.n) == ([], {"sample": 1})  # an incomplete pair does not count


def test_what_a_flip_holds() -> None:
    (flip,) = found("Ap1", "-", "w").samples
    assert (flip.sample_id, flip.order_index, flip.pair, flip.set) == ("Ap1", 0, "Ap", "A")
    assert (flip.category, flip.options, flip.target) == ("c", OPTIONS, 0)
    assert (flip.prediction_a, flip.status_a, flip.text_a) == (None, "unparsed", "-")
    assert (flip.prediction_b, flip.status_b, flip.text_b) == (0, "ok", "w")


def test_pairs_and_sets_by_hand() -> None:
    #               set A           set B           pairs, one incomplete
    names = "Aa1 Aa2 Ab1 Ab2 Ba1 Ba2 Bb1 Bb2 c1 c2 d1 d2 e1"
    side_a = "wwwx" + "wwww" + "xw" + "xx" + "w"
    side_b = "wwww" + "wwwy" + "ww" + "xy" + "x"
    result = found(names, side_a, side_b)
    assert [(each.kind, each.unit, each.name) for each in result.groups] == [
        ("gained", "pair", "Ab"),
        ("lost", "pair", "Bb"),
        ("gained", "pair", "c"),
        ("gained", "set", "A"),
        ("lost", "set", "B"),
    ]
    assert result.groups[3].sample_ids == ["Aa1", "Aa2", "Ab1", "Ab2"]
    assert result.counts() == {
        "sample": {"gained": 2, "lost": 2, "other wrong answer": 1, "same": 8},
        "pair": {"gained": 2, "lost": 1, "same": 3},
        "set": {"gained": 1, "lost": 1, "same": 0},
    }


def test_orders_are_compared_separately() -> None:
    both = [
        pair
        for index, b in enumerate(("ww", "xw"))
        for pair in zip(
            lines("p1 p2", "wx", order_index=index),
            lines("p1 p2", b, order_index=index),
            strict=True,
        )
    ]
    result = flips(A, B, both, GroupRules())
    assert [(flip.sample_id, flip.order_index) for flip in result.samples] == [
        ("p2", 0), ("p1", 1), ("p2", 1),
    ]  # fmt: skip
    assert [(each.kind, each.order_index) for each in result.groups] == [("gained", 0)]
    assert result.n == {"sample": 4, "pair": 2}


@given(st.lists(st.tuples(*[st.sampled_from("wxyz-")] * 2), min_size=1, max_size=24))
def test_swapped_sides_swap_gains_and_losses(answers: list[tuple[str, str]]) -> None:
    """One side's gains are the other's losses; accuracy differences are gains minus losses."""
    names = " ".join(f"{'AB'[i // 4 % 2]}{i // 2 * 'p'}p{i}" for i in range(len(answers)))
    a, b = ("".join(side) for side in zip(*answers, strict=True))
    there, back = found(names, a, b).counts(), found(names, b, a).counts()
    for unit, count in there.items():
        assert back[unit] == {**count, "gained": count["lost"], "lost": count["gained"]}
    assert there["sample"]["gained"] - there["sample"]["lost"] == b.count("w") - a.count("w")
    assert sum(there["sample"].values()) == len(answers)


# --- runs -----------------------------------------------------------------------------------------


def target(request: Request) -> int:
    assert request.sample is not None
    return request.sample.target


def right(request: Request) -> Any:
    assert request.sample is not None
    return request.sample.options[target(request)]


def left(request: Request) -> Any:
    return "left"


@pytest.fixture
def go(bench: Path) -> Go:
    def call(tasks: str = "sides", /, **options: Any) -> Path:
        models = options.pop("models", {"right": right, "left": left})
        settings: dict[str, Any] = {
            "data_dir": str(bench / "data"), "include_path": [str(bench / "specs")],
            "output_dir": str(bench / "results"), "protocol": ["generate"], "max_errors": "50%",
            **options,
        }  # fmt: skip
        backends = [FakeBackend(handler, name, revision="1") for name, handler in models.items()]
        return evaluate(backends, tasks.split(","), **settings).path

    return call


def accuracies(result: Comparison) -> set[tuple[str, str, str, int | None, int | None]]:
    """For each accuracy, the number of units correct on one side only."""
    return {
        (row.a.task, row.a.protocol, row.unit, row.only_b, row.only_a)
        for row in result.rows
        if row.metric in ("individual_accuracy", "pair_accuracy", "set_accuracy")
    }


def test_flips_are_the_counts_of_mcnemars_test(go: Go) -> None:
    """Gained and lost are McNemar's c and b: on samples, on pairs and on sets."""

    def hashed(seed: int) -> Callable[[Request], Any]:
        def handler(request: Request) -> Any:
            assert request.sample is not None
            # Differs between the orders: prompts list the options.
            hashed_value = crc32(f"{seed} {request.sample.id} {request.prompt}".encode()) % 3
            n = len(request.sample.options)
            index = target(request) if hashed_value else (target(request) + 1) % n
            if request.kind == "generate":
                return request.sample.options[index]
            return [float(i == index) for i in range(n)]

        return handler

    run = go(
        f"{FOUR_WAY},sides", models={"x": hashed(1), "y": hashed(2)}, limit=40, order="both",
        protocol=["similarity", "generate"],
    )  # fmt: skip
    result = compare(run)
    assert len(result.flips) == 4
    assert accuracies(result) == {
        (each.a.task, each.a.protocol, unit, count["gained"], count["lost"])
        for each in result.flips
        for unit, count in each.counts().items()
    }
    assert any(only_a and only_b for *_, only_a, only_b in accuracies(result))


def test_json(go: Go, command: Command) -> None:
    code, out, _ = command("compare", go(), "--json")
    assert code == 0
    (found,) = json.loads(out)["flips"]
    assert (found["task"], found["a"]["model"], found["b"]["model"]) == ("sides", "right", "left")
    assert found["counts"] == {
        "sample": {"gained": 0, "lost": 6, "other wrong answer": 0, "same": 6},
        "pair": {"gained": 0, "lost": 6, "same": 0},
    }
    assert [each["sample_id"] for each in found["samples"]] == [f"thing{i}-right" for i in range(6)]
    assert found["samples"][0] == {
        "kind": "lost", "sample_id": "thing0-right", "order_index": 0, "pair": "thing0",
        "set": None, "category": "k0", "options": ["left", "right"], "target": 1,
        "prediction_a": 1, "prediction_b": 0, "status_a": "ok", "status_b": "ok",
        "text_a": "right", "text_b": "left",
    }  # fmt: skip
    assert found["groups"][0] == {
        "kind": "lost", "unit": "pair", "name": "thing0", "order_index": 0,
        "sample_ids": ["thing0-left", "thing0-right"],
    }  # fmt: skip
    assert command("compare", go(), "--json", "--flips", "2")[1] == out


def table(out: str) -> list[list[str]]:
    """The cells of the lines with a sample."""
    return [
        re.split(r"\s{2,}", line.strip())
        for line in out.splitlines()
        if line.strip().startswith(("gained ", "lost ", "other "))
    ]


def test_counts_and_how_many_are_listed(go: Go, command: Command) -> None:
    run = go()
    line = "0 samples gained, 6 lost, 6 the same; 0 pairs gained, 6 lost"
    for arguments, shown, more in (
        ([], 0, None),
        (["--flips", "2"], 2, "and 4 more: --flips all"),
        (["--flips", "6"], 6, None),
        (["--flips", "all"], 6, None),
        (["--flips", "100"], 6, None),
    ):
        code, out, err = command("compare", run, *arguments)
        assert (code, err) == (0, "")
        assert line in out.splitlines()
        assert table(out) == [
            ["lost", f"thing{i}-right", "right", "right", "left"] for i in range(shown)
        ]
        assert [each for each in out.splitlines() if " more: " in each] == ([more] if more else [])
    same = command("compare", run, go(models={"right": right}), "--model-a", "right")[1]
    assert "0 samples gained, 0 lost, 12 the same; 0 pairs gained, 0 lost" in same


def test_singular_and_plural(go: Go, command: Command) -> None:
    def one(request: Request) -> Any:
        assert request.sample is not None
        return "well" if request.sample.id == "thing0-left" else left(request)

    out = command("compare", go(models={"a": one, "b": left}))[1]
    assert "1 sample gained, 0 lost, 11 the same; 0 pairs gained, 0 lost" in out


def test_generated_text_next_to_the_answer(go: Go, command: Command) -> None:
    def other(request: Request) -> Any:
        assert request.sample is not None
        texts = {
            "thing0-left": "Left.",
            "thing0-right": "It is on the \n left [bold]side[/bold] \x1b[31m" + "of it " * 50,
            "thing1-right": "\u4e2d" * 80,
            "thing2-right": "",
        }
        if request.sample.id == "thing3-right":
            raise SampleError("broken")
        return texts.get(request.sample.id, right(request))

    run = go(models={"right": right, "other": other})
    code, out, _ = command("compare", run, "--flips", "all")
    assert code == 0
    first, second, third, fourth = (line[2:] for line in table(out))
    assert first[:2] == ["right", "right"]
    assert first[2].startswith(r"left: It is on the left [bold]side[/bold] \x1b[31mof it")
    assert first[2].endswith("…")
    assert second[2].startswith("(unparsed): 中中")
    assert third[2] == "(unparsed)"
    assert fourth[2] == "(failed)"
    assert "\x1b" not in out
    assert max(map(cell_len, out.splitlines())) <= 100


def test_ties_and_orders(go: Go, command: Command) -> None:
    def tied(request: Request) -> Any:
        return [0.0] * len(request.candidates)

    def sure(request: Request) -> Any:
        return [float(i == target(request)) for i in range(len(request.candidates))]

    run = go(models={"a": tied, "b": sure}, protocol=["choice"], order="both")
    out = command("compare", run, "--flips", "all")[1]
    assert "24 samples gained, 0 lost, 0 the same; 12 pairs gained, 0 lost" in out
    assert ["gained", "thing0-left (order 1)", "left", "(tied)", "left"] in table(out)


def test_flips_of_tasks_that_are_not_compared_are_not_listed(go: Go, command: Command) -> None:
    """A task without the metric has no table, and no flips."""
    run = go(f"{FOUR_WAY},sides", limit=8)
    out = command("compare", run, "--metric", "set_accuracy", "--flips", "all")[1]
    assert "thing0" not in out
    assert len(table(out)) == 6


def test_a_narrow_terminal(go: Go, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def long(request: Request) -> Any:
        return "left, " + "as far as can be told " * 9

    run = go(models={"a": right, "b": long})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width in (40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        out = re.sub(r"\x1b\[[0-9;]*m", "", command("compare", run, "--flips", "all")[1])
        below = out[out.index("correct") :]
        assert max(map(cell_len, below.splitlines())) <= width
        if width >= 60:
            assert "thing5-right" in below


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6), st.integers(6, 300))
def test_column_widths(wanted: list[int], available: int) -> None:
    widths = _column_widths(wanted, available)
    assert sum(widths) <= available
    assert all(1 <= width <= max(1, want) for width, want in zip(widths, wanted, strict=True))
    if sum(max(1, want) for want in wanted) <= available:
        assert widths == [max(1, want) for want in wanted]


@pytest.mark.parametrize("value", ["0", "-1", "some", "1.5", "9" * 20, ""])
def test_refusals(go: Go, command: Command, value: str) -> None:
    code, out, err = command("compare", go(), "--flips", value)
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: --flips: must be an integer of at least 1, or 'all', got '{value}'\n"
    )
    assert "--flips 20 lists 20 samples per table" in err

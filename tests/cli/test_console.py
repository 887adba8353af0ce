"""Tables of results, from hand-made dictionaries."""

import io
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vlm_harness.cli.console import ProgressBar, print_results
from vlm_harness.types import Cell, ResultRow

TWO_WAY = {"individual_accuracy": 1 / 2, "pair_accuracy": 1 / 4}
FOUR_WAY = {"individual_accuracy": 1 / 4, "pair_accuracy": 1 / 16, "set_accuracy": 1 / 256}
WHATSUP = ("whatsup_a_left_right", "whatsup_a_on_under", "whatsup_b_left_right", "whatsup_b_front")


def estimate(value: float | None, chance: float | None = None) -> dict[str, Any]:
    interval = value is not None and chance is not None
    return {
        "value": value,
        "ci_low": max(0.0, value - 0.05) if interval else None,  # type: ignore[operator]
        "ci_high": min(1.0, value + 0.05) if interval else None,  # type: ignore[operator]
        "n": 100,
        "chance": chance,
    }


def result(
    model: str,
    task: str,
    values: tuple[float | None, ...],
    cosine: float | None = None,
    extra: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """``values``: two metrics for a two-way task, three for a four-way task."""
    chances = FOUR_WAY if len(values) == 3 else TWO_WAY
    metrics = {
        name: estimate(value, chance)
        for (name, chance), value in zip(chances.items(), values, strict=True)
    }
    row = {
        "model": model, "task": task, "protocol": "generate", "command": "default",
        "order": "fixed", "decoding": "greedy", "image_mode": "normal", "labels": "corrected",
        "task_version": 1, "categories": {}, "limit": None, "primary_metric": "individual_accuracy",
        "metrics": {**metrics, "mean_pair_cosine": estimate(cosine), **(extra or {})},
        "n_samples": 200, "n_expected": 200, "n_incomplete": 0,
        "groups": {"pair": {"n": 100, "n_incomplete": 0}},
        "n_unparsed": 0, "n_errors": 0, "n_tied": 0, "complete": True,
    }  # fmt: skip
    assert fields.keys() <= row.keys()
    return {**row, **fields}


def printed(results: list[dict[str, Any]], width: int, unverified: Sequence[str] = ()) -> str:
    out = io.StringIO()
    rows = [ResultRow.model_validate(each) for each in results]
    print_results(rows, Console(file=out, width=width, color_system=None), unverified)
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    """The cells of every line of the tables."""
    lines = [re.split("[│┃]", line)[1:-1] for line in text.splitlines() if line[:1] in "│┃"]
    return [[" ".join(cell.split()) for cell in line] for line in lines]


def paper() -> list[dict[str, Any]]:
    """Results with distinct numbers, so that each can be searched for."""
    made = []
    for model, start in (("CLIP-ViT-L/14-336px", 0.101), ("LLaVA-1.5-7B", 0.601)):
        dual = model.startswith("CLIP")
        use = {"protocol": "similarity", "command": "none"} if dual else {}
        for i, task in enumerate(WHATSUP):
            cosine = 0.901 + i / 100 if dual else None
            made.append(result(model, task, (start + i / 10, start + i / 10 + 0.02), cosine, **use))
        for i, task in enumerate(("whatsup_a_four_way", "whatsup_b_four_way")):
            four = tuple(start + i / 10 + j for j in (0.05, 0.06, 0.07))
            made.append(result(model, task, four, 0.951 + i / 100 if dual else None, **use))
    return made


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_several_models_are_compared_and_nothing_is_truncated(width: int) -> None:
    text = printed(paper(), width)
    assert "…" not in text
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width
    cells = rows(text)
    for row in paper():
        found = [each for name, each in row["metrics"].items() if name != "mean_pair_cosine"]
        values = " ".join(f"{100 * each['value']:.1f}" for each in found)
        below = " ".join(f"{100 * e['ci_low']:.0f}-{100 * e['ci_high']:.0f}" for e in found)
        at = [i for i, line in enumerate(cells) if values in line]
        assert len(at) == 1, values
        assert below in cells[at[0] + 1]
        assert row["protocol"] in cells[at[0]]
        cosine = row["metrics"]["mean_pair_cosine"]["value"]
        assert cosine is None or sum(f"{cosine:.3f}" in line for line in cells) == 1


def test_two_way_and_four_way_tasks_have_tables_of_their_own() -> None:
    text = printed(paper(), 160)
    assert [line.strip() for line in text.splitlines() if "whatsup" in line] == ["whatsup_*"] * 2
    assert rows(text) == [
        ["", "", "a_left_right", "a_on_under", "b_left_right", "b_front"],
        ["model", "protocol", *["Indiv. Pairs"] * 4],
        ["CLIP-ViT-L/14-336px", "similarity", "10.1 12.1", "20.1 22.1", "30.1 32.1", "40.1 42.1"],
        ["", "", "5-15 7-17", "15-25 17-27", "25-35 27-37", "35-45 37-47"],
        ["LLaVA-1.5-7B", "generate", "60.1 62.1", "70.1 72.1", "80.1 82.1", "90.1 92.1"],
        ["", "", "55-65 57-67", "65-75 67-77", "75-85 77-87", "85-95 87-97"],
        ["chance", "", *["50 25"] * 4],
        ["pair cosine", "", "0.901", "0.911", "0.921", "0.931"],
        ["(CLIP-ViT-L/14-336px)", *[""] * 5],
        ["", "", "a_four_way", "b_four_way"],
        ["model", "protocol", *["Indiv. Pairs Set of 4"] * 2],
        ["CLIP-ViT-L/14-336px", "similarity", "15.1 16.1 17.1", "25.1 26.1 27.1"],
        ["", "", "10-20 11-21 12-22", "20-30 21-31 22-32"],
        ["LLaVA-1.5-7B", "generate", "65.1 66.1 67.1", "75.1 76.1 77.1"],
        ["", "", "60-70 61-71 62-72", "70-80 71-81 72-82"],
        ["chance", "", *["25 6.25 0.391"] * 2],
        ["pair cosine", "", "0.951", "0.961"],
        ["(CLIP-ViT-L/14-336px)", *[""] * 3],
    ]


def test_a_wide_table_is_split_between_tasks_evenly() -> None:
    # One protocol; four tasks, of which three would fit next to the names.
    some = [result(model, task, (0.5, 0.2)) for model in ("m" * 24, "n") for task in WHATSUP]
    text = printed(some, 90)
    heads = [line for line in rows(text) if "a_left_right" in line or "b_front" in line]
    assert heads == [["", "a_left_right", "a_on_under"], ["", "b_left_right", "b_front"]]
    assert [line[0] for line in rows(text)].count("chance") == 2
    assert "protocol" not in text


def test_each_cell_has_a_row_labelled_with_what_varies_for_its_model() -> None:
    some = [
        *(result("llava", "mmvp", (i / 10, i / 20), command=c, order=o)
          for i, (c, o) in enumerate([("short", "fixed"), ("short", "cyclic"), ("long", "fixed")])),
        result("llava", "mmvp", (0.4, 0.3), protocol="choice", image_mode="none"),
        result("llava", "mmvp", (0.5, 0.3), protocol="choice"),
        result("other", "mmvp", (0.6, 0.5)),
    ]  # fmt: skip
    body = rows(printed(some, 80))[2:-1]
    at = [i for i, line in enumerate(body) if line[0] in ("llava", "other")] + [len(body)]
    labels = [" / ".join(line[0] for line in body[a:b] if line[0]) for a, b in pairwise(at)]
    assert labels == [
        "llava / command short / order fixed",
        "llava / command short / order cyclic",
        "llava / command long / order fixed",
        "llava / image mode none",
        "llava / image mode normal",
        "other",
    ]
    assert [body[i][1] for i in at[:-1]] == ["generate"] * 3 + ["choice"] * 2 + ["generate"]
    values = [body[i][2].split()[0] for i in at[:-1]]
    assert values == ["0.0", "10.0", "20.0", "40.0", "50.0", "60.0"]


def test_settings_that_differ_only_between_tasks_add_no_row() -> None:
    some = [
        result(model, task, (0.5, 0.2), order=order)
        for model in "ab"
        for task, order in (("mmvp", "fixed"), ("easy", "cyclic"))
    ]
    names = [line[0] for line in rows(printed(some, 80)) if line[0]]
    assert names == ["model", "a", "b", "chance"]


def test_gaps_other_metrics_and_differing_chance() -> None:
    official = {"whatsup_official_pair_accuracy": estimate(0.111, 0.2)}
    part = {"n_incomplete": 3, "extra": {**official, "my_cosine": estimate(-0.5)}}
    some = [
        result("a", "x", (0.5, None), -0.25, **part),
        result("b", "x", (0.6, None), **part),
        result("b", "y", (0.7, 0.3), extra=official),
    ]
    some[1]["metrics"]["individual_accuracy"]["chance"] = 0.475
    some[0]["metrics"]["pair_accuracy"]["chance"] = None
    some[0]["primary_metric"] = "pair_accuracy"
    assert rows(printed(some, 160)) == [
        ["", "x", "y"],
        ["model", "Indiv. Pairs pair/(n/2) my_cosine", "Indiv. Pairs"],
        ["a", "50.0 - 11.1 -0.500", ""],
        ["", "45-55 6-16", ""],
        ["b", "60.0 - 11.1 -0.500", "70.0 30.0"],
        ["", "55-65 6-16", "65-75 25-35"],
        ["chance", "47.5-50 25 20", "50 25"],
        ["pair cosine", "-0.250", ""],
        ["(a)", "", ""],
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_names_are_shown_as_they_are(width: int) -> None:
    names = ("[red]x", "[/]", "a:smile:", "[bold]", "back\\", "模型")
    tasks = ("[red]_[/red]", "[link=x_y]", "[/]_z", "t:smile:")
    metric = {"[b]m": estimate(0.123)}
    some = [
        result(name, task, (0.5, 0.2), 0.9, metric, limit=4) for name in names for task in tasks
    ]
    some[0]["n_unparsed"] = 1
    text = printed(some, width)
    shown = {cell for line in rows(text) for cell in line}
    assert {*names, "[red]_[/red]", "[link=x_y]", "[/]_z", "t:smile:"} <= shown
    assert "[b]m" in text
    assert {f"({name})" for name in names} <= shown | {
        line.removeprefix("pair cosine ") for line in shown
    }
    assert "[red]x / [red]_[/red] / generate: 1 unparsed, " in text
    assert text.splitlines().count("partial run: --limit 4") == 1
    assert text.count("partial run") == 1


def test_markup_in_the_common_prefix_and_across_a_fold() -> None:
    tasks = ("[red]_one", "[red]_two_[bold_and_on_and_on_and_on]")
    text = printed([result(m, task, (0.5, 0.2)) for m in "ab" for task in tasks], 80)
    assert "[red]_*" in text
    heading = "".join(line[2] for line in rows(text)[:3])
    assert heading.startswith("two_[bold_and_on_and_on_and_on]")


def test_a_narrow_terminal_folds_names_and_truncates_nothing() -> None:
    names = ["q" * 70, "z" * 70]
    metrics = {f"a_metric_with_quite_a_long_name_{i}": estimate(i / 100, 0.5) for i in range(5)}
    text = printed([result(name, "T" * 50, (0.5, 0.2), extra=metrics) for name in names], 80)
    assert "…" not in text
    assert (text.count("q"), text.count("z")) == (70 + 5, 70)  # "quite" is in each metric
    assert all(name in text for name in ("T" * 50, *metrics))


def test_notes_and_caption_are_printed_once_below_all_tables() -> None:
    some = paper()
    some[0].update(n_unparsed=2, n_tied=1)
    some[1].update(complete=False)
    some[1]["metrics"]["relaxed_pair_accuracy"] = {**estimate(0.5), "n": 30}
    assert " ".join(printed(some, 80).rpartition("┘")[2].split()) == (
        "In percent. Second line: 95% interval over groups (sets, pairs or samples). "
        "Labels: corrected. "
        "CLIP-ViT-L/14-336px / whatsup_a_left_right / similarity: "
        "2 unparsed, 1.0% (count as wrong); 1 tied (count as wrong) "
        "CLIP-ViT-L/14-336px / whatsup_a_on_under / similarity: relaxed pair over 30 of 100 pairs "
        "(ratios need scores above 0); partial run: only selected samples (--samples)"
    )


LIST = """\
┏━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━┓
┃ model    ┃ task      ┃ protocol ┃ individual ┃         pair ┃          set ┃ pair cosine ┃   n ┃
┡━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━┩
│ m[b]     │ whatsup_a │ generate │       62.5 │         40.0 │         10.0 │           - │ 200 │
│          │           │          │ 57-68 (25) │ 35-45 (6.25) │ 5-15 (0.391) │             │     │
│ m[b]     │ mmvp      │ generate │       50.0 │            - │              │       0.987 │ 200 │
│          │           │          │ 45-55 (50) │              │              │             │     │
└──────────┴───────────┴──────────┴────────────┴──────────────┴──────────────┴─────────────┴─────┘
In percent. Second line: 95% interval over groups (sets, pairs or samples); in brackets: chance.\x20
Labels: corrected.
m[b] / whatsup_a / generate: partial run: --limit 8
"""


def test_one_model_is_a_list() -> None:
    some = [
        result("m[b]", "whatsup_a", (0.625, 0.4, 0.1), limit=8),
        result("m[b]", "mmvp", (0.5, None), 0.987),
    ]
    assert printed(some, 100) == LIST


def test_unverified_models_are_listed_below_the_table() -> None:
    some = [result(name, "mmvp", (0.5, 0.2)) for name in ("a[b]", "c", "d")]
    assert printed(some, 160, unverified=["a[b]", "c"]).splitlines()[-1] == (
        "a[b], c: unverified: this checkpoint has not been run by the project"
    )
    assert "unverified" not in printed(some, 160)


def test_a_list_that_is_too_wide_is_a_comparison() -> None:
    """In 80 columns, a list would have ellipses instead of numbers."""
    extra = {name: estimate(0.512, 0.5) for name in ("relaxed_pair_accuracy", "group_accuracy")}
    results = [
        result("CLIP", task, (0.481 + i / 10, 0.041), 0.954, extra=extra)
        for i, task in enumerate(WHATSUP)
    ]
    assert "individual" in printed(results, 160)
    text = printed(results, 80)
    assert "…" not in text
    for row in results:
        for metric in row["metrics"].values():
            assert f"{100 * metric['value']:.1f}" in text or f"{metric['value']:.3f}" in text


# --- progress -------------------------------------------------------------------------------------

CELL = Cell(
    model="m[b]", task="t", protocol="choice", command="default", order_mode="fixed",
    decoding="greedy", image_mode="normal", labels="corrected",
)  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Steps = Callable[[ProgressBar, Clock], None]


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The output on stderr after some steps: on a terminal the last line, without colours."""

    def call(steps: Steps, stderr: io.StringIO | None = None, columns: int = 120) -> str:
        stream, clock = stderr or Terminal(), Clock()
        monkeypatch.setattr("rich.console.monotonic", clock)
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        with ProgressBar() as bar:
            steps(bar, clock)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        return text if stderr else text.strip().splitlines()[-1]

    return call


def batches(
    *sizes: int, seconds: float, total: int = 100, done: int = 0, cell: Any = CELL
) -> Steps:
    def steps(bar: ProgressBar, clock: Clock) -> None:
        bar.start(Path("folder"), total, done)
        bar.loading("m[b]")
        clock.now += 60
        for size in sizes:
            clock.now += seconds
            for _ in range(size):
                clock.now += 0.001
                bar.advance(cell)

    return steps


def test_pace_and_time_left(progress: Callable[..., str]) -> None:
    line = progress(batches(*[8] * 5, seconds=3.992, done=20))
    assert line.startswith("m[b] t choice ")
    # 8 in 4 seconds, 40 left; loading took a minute, the batches 20 seconds
    assert line.split()[-5:] == ["60/100", "2.0/s", "0:01:20", "0:00:20", "left"]


@pytest.mark.parametrize(
    ("sizes", "seconds", "expected"),  # of 1010 samples
    [
        # No pace after a single batch.
        ([16], 40, ""),
        # Slower than the window: still between batches, 16 in 80 seconds
        ([16, 16], 79.984, "5.0 s each 1:21:30 left"),
        ([16] * 4, 79.984, "5.0 s each 1:18:50 left"),
        # One by one, faster than the gap that separates batches
        ([1] * 50, 0.249, "4.0/s 0:04:00 left"),
        ([1] * 810, 0.001, "500/s 0:00:00 left"),
        # Only the last half minute counts: first 2 per second, then 20
        ([1] * 10 + [10] * 80, 0.49, "20.0/s 0:00:10 left"),
    ],
)
def test_pace(
    progress: Callable[..., str], sizes: list[int], seconds: float, expected: str
) -> None:
    line = progress(batches(*sizes, seconds=seconds, total=1010))
    found = re.search(r"/1010 +(\S+/s|\S+ s each|) *\d:\d\d:\d\d *(.*)$", line)
    assert found is not None
    assert " ".join(found.groups()).strip() == expected


def test_another_model_has_another_pace(progress: Callable[..., str]) -> None:
    def steps(bar: ProgressBar, clock: Clock) -> None:
        batches(*[10] * 4, seconds=1)(bar, clock)
        bar.loading("n")
        clock.now += 100
        for _ in range(2):
            clock.now += 20
            bar.advance(CELL)

    assert "20.0 s each" in progress(steps)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_names_are_truncated_before_numbers(progress: Callable[..., str], columns: int) -> None:
    long = CELL.replace(task="t" * 80)
    steps = batches(*[8] * 5, seconds=3.992, total=10_000, done=20, cell=long)
    line = progress(steps, columns=columns)
    assert len(line) <= columns
    assert re.search(r"^m\[b\] t+… .* 60/10000 2\.0/s 0:01:20 1:22:50 left$", line)


def test_a_pipe_has_only_plain_lines(progress: Callable[..., str]) -> None:
    def steps(bar: ProgressBar, clock: Clock) -> None:
        batches(*[8] * 5, seconds=4, done=20)(bar, clock)
        bar.warn("[b]x")

    text = progress(steps, stderr=io.StringIO())
    assert text == ("run folder: folder (20 of 100 already done)\nloading m[b]\nwarning: [b]x\n")

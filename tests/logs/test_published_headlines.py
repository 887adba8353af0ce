"""Headlines of groups of tasks from recorded answers, next to the published ones."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vlm_harness.runs.evaluator import FinishedRun, evaluate
from vlm_harness.specs.schemas import ModelSpec

pytestmark = pytest.mark.realdata


def replay(
    answers: Path, keys: list[str], group: str, data: Path, output: Path, **options: Any
) -> FinishedRun:
    model = ModelSpec(
        model="recorded",
        backend="replay",
        checkpoint=str(answers),
        args={"keys": keys, "text": "answer"},
    )
    return evaluate(
        [model], [group], protocol=["generate"], data_dir=data, output_dir=output, **options
    )


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pope(realdata: Path, tmp_path: Path) -> None:
    """LLaVA-1.5-13B: F1 87.14, 86.25 and 84.46, published as their mean, 85.9."""
    recorded = (realdata / "pope" / "recorded" / "llava-v1.5-13b.jsonl").open()
    texts = {row["question_id"]: row["text"] for row in map(json.loads, recorded)}
    rows = {}
    for split, offset in (("adversarial", 0), ("popular", 20_000_000), ("random", 10_000_000)):
        for row in map(json.loads, (realdata / "pope" / f"coco_pope_{split}.json").open()):
            answer = texts[row["question_id"] + offset]
            known = rows.setdefault((row["image"], row["text"]), answer)
            assert known == answer  # greedy: the same question in another file
    answers = write(
        tmp_path / "answers.jsonl",
        ({"image": image, "text": text, "answer": a} for (image, text), a in rows.items()),
    )
    run = replay(answers, ["image", "text"], "pope", realdata, tmp_path / "results")
    (group,) = run.results.groups
    found = group.aggregates["mean_f1"]
    assert group.complete
    assert found.value is not None
    assert round(100 * found.value, 3) == 85.947
    values = [row.metrics["f1"].value or 0 for row in run.results]
    assert found.value == pytest.approx(sum(values) / 3)
    assert (found.n, round(found.chance or 0, 2)) == (8910, 0.5)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert 0.845 < found.ci_low < found.value < found.ci_high < 0.875
    # Narrower than that of a single file, by about the square root of three.
    widths = [(row.primary.ci_high or 0) - (row.primary.ci_low or 0) for row in run.results]
    assert found.ci_high - found.ci_low == pytest.approx(sum(widths) / 3 / 3**0.5, rel=0.2)


SUGARCREPE = {  # GPT-4V, positive-first: correct, total
    "add_att": (604, 692), "add_obj": (1859, 2062), "replace_att": (734, 788),
    "replace_obj": (1578, 1652), "replace_rel": (1240, 1406), "swap_att": (607, 666),
    "swap_obj": (211, 246),
}  # fmt: skip


def test_sugarcrepe(realdata: Path, tmp_path: Path) -> None:
    """GPT-4V by its recorded choices: over all questions, and the mean of the files."""
    folder = realdata / "sugarcrepe" / "recorded" / "gpt4v" / "positive-first"
    answers = []
    for name in SUGARCREPE:
        rows = json.loads((folder / f"{name}.json").read_text())
        items = {key: row for key, row in rows.items() if isinstance(row, dict)}
        columns = ("filename", "caption", "negative_caption")
        data = {key: {each: row[each] for each in columns} for key, row in items.items()}
        path = tmp_path / "data" / "sugarcrepe" / "data" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        for key, row in items.items():
            right = row["answer"]["multiple_choice_answer"] == row["caption"]
            answers.append({**data[key], "answer": "(1)" if right else "(2)"})
    run = replay(
        write(tmp_path / "answers.jsonl", answers),
        ["filename", "caption", "negative_caption"],
        "sugarcrepe",
        tmp_path / "data",
        tmp_path / "results",
        order="fixed",
    )
    (group,) = run.results.groups
    micro, mean = group.aggregates["micro_accuracy"], group.aggregates["mean_accuracy"]
    assert micro.value == pytest.approx(6833 / 7512)
    assert mean.value == pytest.approx(sum(right / n for right, n in SUGARCREPE.values()) / 7)
    assert (micro.n, group.complete, micro.chance) == (7512, True, pytest.approx(0.5))

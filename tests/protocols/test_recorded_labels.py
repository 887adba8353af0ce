"""Recorded answers of real models, 200 per set, against labels that were read by hand.

The labels were made before the extractors were rewritten, by readers who saw question, options and
answer but no extractor. ``tests/data/recorded_labels.json`` has the key of each answer, and the
position of the option that it chooses (null: none). Where readers could disagree, it is doubtful.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT
from vlm_harness.protocols.extractors import extract

pytestmark = pytest.mark.realdata
LABELS = json.loads((ROOT / "tests" / "data" / "recorded_labels.json").read_text())
Answers = dict[str, tuple[str, list[str]]]
"""Text and options of each answer."""
LETTERS = [("letter", {}), ("keyword", {})]
CHAINS = {
    "colorswap": LETTERS,
    "visonlyqa": LETTERS,
    "sugarcrepe": LETTERS,
    "whatsup": [("keyword", {})],
    "hallusionbench": [("yes_no", {})],
    "pope": [("yes_no", {})],
    "vsr": [("yes_no", {})],
}
MAX_UNPARSED = {"hallusionbench": 12}
"""HallusionBench has answers without yes or no, which only choose in the light of the question."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def colorswap(folder: Path) -> Answers:
    return {
        f"{model}/{row['id']}/{row['kind']}/{row['k']}": (row["response"], row["options"])
        for model in ("gpt4v", "llava")
        for row in rows(folder / f"{model}.jsonl")
    }


def visonlyqa(folder: Path) -> Answers:
    questions = {row["id"]: row for row in rows(folder / "questions.jsonl")}
    found: Answers = {}
    for path in folder.glob("*.jsonl"):
        for row in rows(path) if path.stem != "questions" else ():
            text = row["response"]
            text = text[0] if isinstance(text, list) else text
            found[f"{path.stem}/{row['id']}"] = (text, questions[row["id"]]["options"])
    return found


def whatsup(folder: Path) -> Answers:
    options = {
        "A": "left right on under",
        "B": "left right front behind",
        "COCO": "left right above below",
        "VG": "left right front behind above below",
    }
    return {
        f"{path.stem}/{row['id']}": (
            row["generation"],
            options[path.stem.split("_")[0]].split(),
        )
        for path in (folder / "recorded_llava15").glob("*.jsonl")
        for row in rows(path)
    }


def sugarcrepe(folder: Path) -> Answers:
    return {
        f"{path.stem}/{key}": (
            row["answer"]["free_form_answer"],
            [f"(1) {row['caption']}", f"(2) {row['negative_caption']}"],
        )
        for path in (folder / "recorded" / "gpt4v" / "positive-first").glob("*.json")
        for key, row in json.loads(path.read_text()).items()
        if isinstance(row, dict)
    }


def hallusionbench(folder: Path) -> Answers:
    path = folder / "gpt4v_sample_254.jsonl"
    return {row["id"]: (row["answer"], ["yes", "no"]) for row in rows(path)}


def pope(folder: Path) -> Answers:
    lines = rows(folder / "recorded" / "llava-v1.5-13b.jsonl")
    return {str(n): (row["text"], ["yes", "no"]) for n, row in enumerate(lines)}


def vsr(folder: Path) -> Answers:
    (path,) = (folder / "recorded").glob("qwen2vl_7b_predictions_*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: (row["raw_output"], ["True", "False"]) for row in csv.DictReader(file)}


READERS = {each.__name__: each for each in (
    colorswap, visonlyqa, whatsup, sugarcrepe, hallusionbench, pope, vsr
)}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_at_most_one_is_wrong_and_four_unparsed(name: str, realdata: Path) -> None:
    answers = READERS[name](realdata / name)
    wrong, unparsed = [], []
    for key, label in LABELS[name]["labels"].items():
        if key in LABELS[name]["doubtful"]:
            continue
        index = extract(CHAINS[name], *answers[key])[1].index
        if index is None and label is not None:
            unparsed.append(key)
        elif index != label:
            wrong.append((key, label, index))
    assert len(wrong) <= 1, wrong
    assert len(unparsed) <= MAX_UNPARSED.get(name, 4), unparsed


def test_colorswap_scores(realdata: Path) -> None:
    """Text, image and group scores in percent are those of the official script."""
    for model, official in (("gpt4v", [91.33, 76.33, 72.0]), ("llava", [69.67, 54.33, 42.0])):
        groups: dict[int, dict[str, list[bool]]] = {}
        for row in rows(realdata / "colorswap" / f"{model}.jsonl"):
            index = extract(LETTERS, row["response"], row["options"])[1].index
            target = {"A": 0, "first": 0, "B": 1, "second": 1}[row["answer"]]
            kinds = groups.setdefault(row["id"], {"text": [], "image": []})
            kinds[row["kind"]].append(index == target)
        correct = [
            [all(each["text"]), all(each["image"]), all(each["text"] + each["image"])]
            for each in groups.values()
        ]
        assert len(groups) == 300
        found = [round(100 * sum(column) / 300, 2) for column in zip(*correct, strict=True)]
        assert found == official

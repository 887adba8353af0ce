"""Bundled benchmarks on rows in their official formats: prompts and correct options."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_harness import evaluate
from vlm_harness.errors import InputError
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.yamlfile import loads
from vlm_harness.tasks.orders import orders
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import Task, load_task

SPATIAL = {
    "coco_spatial_one": (
        "coco_qa_one_obj.json",
        "val2017/{:012d}.jpg",
        [
            [1, "A photo of a dining table on the bottom", "A photo of a dining table on the top"],
            [2, "A photo of a TV on the left", "A photo of a TV on the right"],
        ],
        [("dining table", "bottom", "top"), ("TV", "left", "right")],
        "Is the {} on the {} or on the {}?",
    ),
    "coco_spatial_two": (
        "coco_qa_two_obj.json",
        "val2017/{:012d}.jpg",
        [
            [1, "A photo of a cat to the left of a TV", "A photo of a cat to the right of a TV"],
            [2, "A photo of an oven below a clock", "A photo of an oven above a clock"],
        ],
        [
            ("cat", "to the left of a TV", "to the right of a TV"),
            ("oven", "below a clock", "above a clock"),
        ],
        "Is the {} {} or {}?",
    ),
    "gqa_spatial_one": (
        "vg_qa_one_obj.json",
        "vg_images/{}.jpg",
        [
            [1, "A photo of a pink bed on the left", "A photo of a pink bed on the right"],
            [2, "A photo of an umpire on the right", "A photo of an umpire on the left"],
        ],
        [("pink bed", "left", "right"), ("umpire", "right", "left")],
        "Is the {} on the {} or on the {}?",
    ),
    "gqa_spatial_two": (
        "vg_qa_two_obj.json",
        "vg_images/{}.jpg",
        [
            [1, "A photo of a cart in front of a tree", "A photo of a cart behind a tree"],
            [2, "A boy to the right of a racket", "A boy to the left of a racket"],
        ],
        [
            ("cart", "to the front of a tree", "to the behind of a tree"),
            ("boy", "to the right of a racket", "to the left of a racket"),
        ],
        "Is the {} {} or {}?",
    ),
}  # fmt: skip
Write = Callable[..., Path]


def write_image(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour % 256, 90, 160)).save(path)


def spatial(root: Path, name: str, rows: Sequence[Any] | None = None) -> Task:
    file, image, own, _, _ = SPATIAL[name.removesuffix("_left_right")]
    (root / "whatsup").mkdir(exist_ok=True)
    (root / "whatsup" / file).write_text(json.dumps(own if rows is None else rows))
    for row in own:
        write_image(root / "whatsup" / image.format(row[0]), row[0])
    registry = Registry.standard()
    return load_task(registry.task(name), registry, root)


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_questions_are_those_of_table_8(name: str, tmp_path: Path) -> None:
    task = spatial(tmp_path, name)
    _, _, rows, expected, question = SPATIAL[name]
    asks = prompt_builder(task.spec, "generate", task.spec.protocols.generate, Registry.standard())
    for sample, row, (subject, right, wrong) in zip(task.samples, rows, expected, strict=True):
        assert sample.images[0].exists()
        assert sample.captions is not None
        assert sample.captions[sample.target] == row[1]
        assert sample.captions[1 - sample.target] == row[2]
        shown = {asks.prompt(sample, order, "default").text for order in orders("both", sample, 0)}
        assert shown == {
            f"{question.format(subject, *phrases)} Give a short answer."
            for phrases in ((right, wrong), (wrong, right))
        }


def test_the_phrases_are_exchanged_for_half_of_the_samples(tmp_path: Path) -> None:
    rows = [[1, f"A photo of a thing{n} on the left", f"A photo of a thing{n} on the right"]
            for n in range(400)]  # fmt: skip
    task = spatial(tmp_path, "coco_spatial_one", rows)
    assert task.spec.order == "random"
    exchanged = sum(next(iter(orders("random", s, 0))) == (1, 0) for s in task.samples)
    assert 160 < exchanged < 240


@pytest.mark.parametrize("phrases", [("behind", "in front"), ("in the back", "in the front"),
                                     ("on the behind", "on the front")])  # fmt: skip
def test_one_object_in_front_or_behind(phrases: tuple[str, str], tmp_path: Path) -> None:
    rows = [*SPATIAL["gqa_spatial_one"][2], [3, *(f"The grass {each}" for each in phrases)]]
    for name, count in (("gqa_spatial_one", 3), ("gqa_spatial_one_left_right", 2)):
        assert len(spatial(tmp_path, name, rows).samples) == count
    sample = spatial(tmp_path, "gqa_spatial_one", rows).samples[2]
    assert sample.options[sample.target] in ("behind", "back")
    assert sample.fields["subject"] == "grass"


def test_above_is_not_asked_as_a_side(tmp_path: Path) -> None:
    rows = [[1, "A photo of a lamp above a bed", "A photo of a lamp below a bed"]]
    task = spatial(tmp_path, "gqa_spatial_two", rows)
    asks = prompt_builder(task.spec, "generate", task.spec.protocols.generate, Registry.standard())
    text = asks.prompt(task.samples[0], (0, 1), "default").text
    assert text == "Is the lamp above a bed or below a bed? Give a short answer."


def test_left_and_right_only(tmp_path: Path) -> None:
    task = spatial(tmp_path, "coco_spatial_one_left_right")
    assert [sample.category for sample in task.samples] == ["left"]


def test_a_caption_without_a_relation_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 1"):
        spatial(
            tmp_path, "coco_spatial_one", [SPATIAL["coco_spatial_one"][2][0], [2, "A dog", "A"]]
        )


# --- MMVP-VLM -------------------------------------------------------------------------------------

PATTERNS = ("Orientation and Direction", "Texts")


HEADER = ("Question ID", "Type", "Statement")


def mmvp_vlm(root: Path, pairs: int = 4, header: Sequence[str] = HEADER) -> Path:
    folder = root / "mmvp_vlm"
    folder.mkdir(parents=True)
    with (folder / "Questions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for index in range(1, 2 * pairs + 1):
            pattern = PATTERNS[(index - 1) // pairs]
            writer.writerow([index, pattern, f"statement {index}"])
            write_image(folder / "MLLM_VLM Images" / pattern / f"{index}.jpg", index)
    return root


@pytest.mark.parametrize("header", [HEADER, ("id", "t", "s")])
def test_mmvp_vlm(tmp_path: Path, header: Sequence[str]) -> None:
    mmvp_vlm(tmp_path, header=header)
    registry = Registry.standard()
    task = load_task(registry.task("mmvp_vlm"), registry, tmp_path)
    assert [sample.pair for sample in task.samples] == ["1", "1", "2", "2", "3", "3", "4", "4"]
    third = task.samples[2]
    assert third.captions == ("a photo of statement 3", "a photo of statement 4")
    assert (third.target, third.category) == (0, PATTERNS[0])
    assert all(sample.images[0].exists() for sample in task.samples)
    asked = load_task(registry.task("mmvp_vlm_questions"), registry, tmp_path)
    asks = prompt_builder(asked.spec, "choice", asked.spec.protocols.choice, registry)
    texts = [asks.prompt(sample, (0, 1), "letter").text for sample in asked.samples[:2]]
    assert texts[0] == texts[1]  # a pair shares its question
    assert "A. statement 1\nB. statement 2" in texts[0]


def test_mmvp_vlm_by_pattern_in_both_directions(tmp_path: Path) -> None:
    run = evaluate(
        ["fake:oracle"], ["mmvp_vlm"], data_dir=str(mmvp_vlm(tmp_path)),
        output_dir=str(tmp_path / "r"), protocol=["similarity"],
    )  # fmt: skip
    (row,) = run.results
    assert row["metrics"]["text_to_image_pair_accuracy"]["value"] == 1
    assert {name: found["pair_accuracy"]["n"] for name, found in row["categories"].items()} == {
        PATTERNS[0]: 2, PATTERNS[1]: 2,
    }  # fmt: skip


# --- MMVP's statements ----------------------------------------------------------------------------


def mmvp(root: Path) -> Path:
    (root / "mmvp").mkdir()
    rows = ["Index,Question,Options,Correct Answer"]
    for index in range(1, 301):
        # The published labels, where the label corrections apply.
        odd = {99: "(a)", 100: "(b)"}.get(index, "(a)" if index % 2 else "(b)")
        options = {99: "(a) Long (b) Short", 100: "(a) Long (b) Short",
                   279: "(a) Standing (b) Sitting", 280: "(a) Standing (b) Sitting"}  # fmt: skip
        rows.append(f"{index},Q?,{options.get(index, '(a) Yes (b) No')},{odd}")
        write_image(root / "mmvp" / "images" / f"{index}.jpg", index)
    (root / "mmvp" / "Questions.csv").write_text("\n".join(rows) + "\n")
    return root


def test_statements_of_mmvp() -> None:
    table = Registry.standard().table("mmvp_statements").rows
    assert [*table] == [str(number) for number in range(1, 151)]
    for a, b in table.values():
        assert a != b
        assert all(text[0].isupper() or text[0] == '"' for text in (a, b))
        assert all(text.endswith(".") for text in (a, b))


def test_mmvp_has_captions_for_dual_encoders_under_corrected_labels(tmp_path: Path) -> None:
    registry = Registry.standard()
    task = load_task(registry.task("mmvp"), registry, mmvp(tmp_path))
    statements = registry.table("mmvp_statements").rows
    for sample in task.samples:
        assert list(sample.captions or ()) == statements[str(sample.pair)]
    assert task.samples[98].options[task.samples[98].target] == "(b) Short"
    assert "table mmvp_statements" in task.data_sha256


def test_a_table_that_lacks_a_row_is_an_error(tmp_path: Path) -> None:
    """A table with statements for 149 of the 150 pairs."""
    mmvp(tmp_path)
    standard = Registry.standard()
    file = standard.file("task", "mmvp")
    text = json.dumps({**file.data, "tables": ["short"], "label_corrections": None})
    spec_folder = tmp_path / "specs"
    spec_folder.mkdir()
    (spec_folder / "m.yaml").write_text(text.replace("row_of(mmvp_statements)", "row_of(short)"))
    rows = {str(number): ["a", "b"] for number in range(1, 150)}
    (spec_folder / "t.yaml").write_text(json.dumps({"table": "short", "rows": rows}))
    found = Registry([spec_folder, *[root for root in standard.roots if root.name != "tasks"]])
    with pytest.raises(InputError, match=r"row_of: no row '150' in the table \(149 rows\)"):
        load_task(found.task("mmvp"), found, tmp_path)


def test_an_unknown_table_suggests_the_closest_name() -> None:
    with pytest.raises(InputError, match="unknown table 'mmvp_statement'; did you mean"):
        Registry.standard().table("mmvp_statement")
    assert loads("table: x\nrows: {1: a}\n", Path("x.yaml")).data["table"] == "x"

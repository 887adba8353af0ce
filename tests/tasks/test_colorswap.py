"""ColorSwap: four questions per group, made from one row of the data set."""

import json
from pathlib import Path

import pytest

from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.orders import orders
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import Task, load_task

ROW = {
    "id": 9,
    "image_1": "1.png",
    "image_2": "2.png",
    "caption_1": "a blue raft floats on white water",
    "caption_2": "a white raft floats on blue water",
}
REGISTRY = Registry.standard()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """The task, on a local row instead of the gated data set."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    spec = REGISTRY.task("colorswap")
    local = {"reader": "jsonl", "path": "rows.jsonl", "name": None, "split": None}
    dataset = spec.dataset.model_copy(update=local)
    return load_task(spec.model_copy(update={"dataset": dataset}), REGISTRY, tmp_path)


def test_a_row_is_a_set_of_two_pairs(task: Task) -> None:
    found = [
        (sample.id, sample.pair, sample.set, sample.category, sample.target)
        for sample in task.samples
    ]
    assert found == [
        ("9/text/1", "9/text", "9", "text", 0),
        ("9/text/2", "9/text", "9", "text", 1),
        ("9/image/1", "9/image", "9", "image", 0),
        ("9/image/2", "9/image", "9", "image", 1),
    ]
    assert [[image.path for image in sample.images] for sample in task.samples] == [
        ["1.png"], ["2.png"], ["1.png", "2.png"], ["1.png", "2.png"],
    ]  # fmt: skip


def test_the_prompts_are_those_of_the_official_script(task: Task) -> None:
    use = task.spec.protocols.generate
    assert use is not None
    builder = prompt_builder(task.spec, "generate", use, REGISTRY)
    prompts = [
        builder.prompt(sample, orders("fixed", sample, 0)[0], "none").text
        for sample in task.samples
    ]
    raft = "(A) a blue raft floats on white water, or (B) a white raft floats on blue water"
    note = "Note, you must choose one of the two options"
    assert prompts[0] == prompts[1] == f"Does this image present {raft}? {note}"
    assert prompts[3] == (
        "Which image better aligns with the description a white raft floats on blue water? "
        "The first image or the second image? Note you must choose one of two options."
    )

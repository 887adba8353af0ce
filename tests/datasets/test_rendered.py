"""The rendered What'sUp: the same images on every machine, which differ only in the relation."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from helpers.bench import python
from vlm_harness.datasets import drawing
from vlm_harness.datasets.reader import read
from vlm_harness.datasets.rendered import RELATIONS, SHARES, draw, make_scene, object_pairs
from vlm_harness.errors import InputError
from vlm_harness.images import load
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import DatasetSpec
from vlm_harness.tasks.task import Task, load_task

TASKS = {
    "whatsup_rendered_a_left_right": ("a", {"left", "right"}, 200, 100),
    "whatsup_rendered_a_on_under": ("a", {"on", "under"}, 200, 100),
    "whatsup_rendered_a_four_way": ("a", {"left", "right", "on", "under"}, 400, 200),
    "whatsup_rendered_b_left_right": ("b", {"left", "right"}, 200, 100),
    "whatsup_rendered_b_front_behind": ("b", {"front", "behind"}, 200, 100),
    "whatsup_rendered_b_four_way": ("b", {"left", "right", "front", "behind"}, 400, 200),
}
IMAGES = "07449fc39faf09e252c1da5234433419d279bb2d58adaf6ceefcdc22789cae7b"
"""SHA-256 of eight images as drawn by Pillow 13. If it must change, increase VERSION."""


def dataset(split: str = "test", **args: object) -> DatasetSpec:
    return DatasetSpec(reader="rendered", split=split, args={"subset": "a", **args})


def rendered(name: str) -> Task:
    registry = Registry.standard()
    return load_task(registry.task(name), registry, Path("/nowhere"))


def pixels(image: Image.Image) -> np.ndarray:
    return np.array(image, dtype=np.int16)


def digest(count: int = 1) -> str:
    found = hashlib.sha256()
    for subset, relations in RELATIONS.items():
        for index in range(count):
            for relation in relations:
                found.update(draw(make_scene(subset, "test", 0, index), relation).tobytes())
    return found.hexdigest()


# --- images ---------------------------------------------------------------------------------------


def test_the_same_images_in_another_process() -> None:
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    assert python("-c", code, PYTHONHASHSEED="77").out.strip() == digest()


@pytest.mark.skipif(not PIL.__version__.startswith("13."), reason="recorded with Pillow 13")
def test_the_images_are_those_recorded() -> None:
    assert digest() == IMAGES


@pytest.mark.parametrize("subset", RELATIONS)
def test_the_images_of_a_set_differ_only_where_the_objects_are(subset: str) -> None:
    for index in range(12):
        scene = make_scene(subset, "train", 3, index)
        images = {relation: pixels(draw(scene, relation)) for relation in RELATIONS[subset]}
        for relation, image in images.items():
            for other, its in images.items():
                if relation < other:
                    changed = (image != its).any(axis=2).mean()
                    assert 0.005 < changed < 0.45, (index, relation, other)
        # The room is the same in all images; the corners show only the room.
        corners = [image[:8, :8] for image in images.values()]
        assert all((corner == corners[0]).all() for corner in corners)


def test_nothing_touches_the_border() -> None:
    """An object cut off at the border could be unrecognisable."""
    for subset, relations in RELATIONS.items():
        for split in SHARES:
            for index in range(60):
                scene = make_scene(subset, split, 0, index)
                images = [pixels(draw(scene, relation, 128)) for relation in relations]
                for image in images[1:]:
                    changed = (image != images[0]).any(axis=2)
                    assert not changed[:, [0, -1]].any(), (scene, "sides")
                    assert not changed[[0, -1]].any(), (scene, "top or bottom")


def test_left_and_right_have_the_same_objects() -> None:
    """The relation cannot be inferred from the amount of each colour."""
    for subset in RELATIONS:
        for index in range(8):
            scene = make_scene(subset, "test", 0, index)
            left, right = (pixels(draw(scene, relation)) for relation in ("left", "right"))
            assert abs(left.mean() - right.mean()) < 1


def test_every_object_and_colour_can_be_drawn_at_any_size() -> None:
    used = Counter[str]()
    for subset in RELATIONS:
        for index in range(150):
            scene = make_scene(subset, "train", 1, index)
            used.update((scene.subject, scene.object, scene.subject_colour))
    assert {*drawing.SMALL, *drawing.FURNITURE, *drawing.COLOURS} <= used.keys()
    scene = make_scene("a", "train", 1, 0)
    assert {draw(scene, "on", size).size for size in (32, 100, 333)} == {
        (32, 32), (100, 100), (333, 333),
    }  # fmt: skip


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", RELATIONS)
def test_splits_share_no_pair_of_objects_in_either_order(subset: str) -> None:
    pairs = {split: {frozenset(pair) for pair in object_pairs(subset, split)} for split in SHARES}
    assert not pairs["train"] & pairs["test"]
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["validation"] & pairs["test"]
    names = {split: {name for pair in found for name in pair} for split, found in pairs.items()}
    assert names["test"] <= names["train"]  # new pairs of known objects
    assert sum(map(len, pairs.values())) == (160 if subset == "a" else 190)


def test_every_pair_of_objects_is_used_once_before_any_is_reused() -> None:
    count = len(object_pairs("b", "test"))
    scenes = [make_scene("b", "test", 5, index) for index in range(2 * count)]
    names = [(scene.subject, scene.object) for scene in scenes]
    assert len(set(names[:count])) == count == len(set(names[count:]))
    assert names[:count] != names[count:]


# --- reader and tasks -----------------------------------------------------------------------------


def test_rows() -> None:
    table = read(dataset(sets=3, seed=9), Path("/nowhere"), "x.yaml:1")
    assert [row["relation"] for row in table.rows] == ["left", "right", "on", "under"] * 3
    assert len({row["set"] for row in table.rows}) == 3
    image = load(table.rows[0]["image"])
    assert image.pixels.size == (256, 256)
    again = read(dataset(sets=3, seed=9), Path("/nowhere"), "x.yaml:1")
    assert load(again.rows[0]["image"]).sha256 == image.sha256
    assert table.sha256 == again.sha256
    others = [{"sets": 3, "seed": 8}, {"sets": 4, "seed": 9}, {"sets": 3, "seed": 9, "size": 64}]
    for args in others:
        other = read(dataset(**args), Path("/nowhere"), "x.yaml:1")
        assert [*other.sha256.values()] != [*table.sha256.values()]
        if len(other.rows) == len(table.rows):
            # The path identifies an image, so different images must not share a path.
            paths = [{row["image"].path for row in each.rows} for each in (table, other)]
            assert not paths[0] & paths[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"subset": "c"}, "dataset.args.subset: must be 'a' or 'b', found 'c'"),
        ({"sets": 0}, "dataset.args.sets: must be greater than or equal to 1, found 0"),
        ({"sead": 1}, "dataset.args: unknown argument 'sead'; did you mean 'seed'"),
    ],
)
def test_bad_arguments(args: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(dataset(**args), Path("/nowhere"), "x.yaml:1")
    assert message in str(caught.value)
    assert "seed, sets, size, subset" in str(caught.value.hint)


def test_no_such_split() -> None:
    with pytest.raises(InputError, match="unknown split 'tests'; did you mean 'test'") as found:
        read(dataset("tests"), Path("/nowhere"), "x.yaml:1")
    assert "Available: test, train, validation" in str(found.value.hint)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_the_form_of_the_real_ones(name: str) -> None:
    subset, relations, n_samples, n_pairs = TASKS[name]
    task, real = rendered(name), Registry.standard().task(name.replace("_rendered", ""))
    assert task.spec.prompt == real.prompt
    assert task.spec.metrics == real.metrics
    assert task.spec.grouping == real.grouping
    assert task.spec.protocols.declared == real.protocols.declared
    assert len(task.samples) == n_samples
    pairs = Counter(sample.pair for sample in task.samples)
    assert len(pairs) == n_pairs
    assert set(pairs.values()) == {2}
    for sample in task.samples:
        relation = sample.fields["relation"]
        assert sample.fields["subset"] == subset
        assert sample.options[sample.target] == relation
        assert relation in relations
        assert sample.captions is not None
        assert relation in sample.captions[sample.target].split()


def test_an_image_has_the_same_path_in_all_tasks() -> None:
    """An image of both a four-way and a two-way task is encoded only once."""
    four, two = (rendered(f"whatsup_rendered_a_{kind}") for kind in ("four_way", "left_right"))
    paths = {sample.images[0].path for sample in four.samples}
    assert {sample.images[0].path for sample in two.samples} < paths

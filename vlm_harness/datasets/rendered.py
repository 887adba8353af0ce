"""Reader ``rendered``: a synthetic What'sUp, rendered on the fly, so that nothing is downloaded.

As in What'sUp (Kamath et al. 2023), a set consists of four images of two named objects that differ
only in the relation between the objects: left, right, on, under (subset a: a small object and a
piece of furniture) or left, right, front, behind (subset b: two small objects on a table top).
Colours, sizes, positions and rooms vary between sets and are the same within a set. The object
stays in place and the subject moves around it. In the original subset b the two objects swap
places, which is harder for a model.

The images are determined by the arguments. Object pairs are assigned to splits by the names of the
objects only, so the test split never contains a pair of the training split, whatever the seeds.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from vlm_harness.datasets.reader import Table, reads
from vlm_harness.datasets.records import Row
from vlm_harness.errors import InputError, listing, not_found, shown, suggest
from vlm_harness.specs.schemas import DatasetSpec
from vlm_harness.specs.spec import Spec
from vlm_harness.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
"""Version of the images. Increase it when any image changes, because scores then change."""

RELATIONS = {
    "a": ("left", "right", "on", "under"),
    "b": ("left", "right", "front", "behind"),
}
Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"test": 0.25, "validation": 0.1, "train": 1.0}
"""Shares of the object pairs, assigned in this order; train gets the rest."""


class RenderedArgs(Spec):
    """``dataset.args`` of the reader."""

    subset: Literal["a", "b"]
    sets: int = Field(100, ge=1, le=1_000_000, description="number of sets of four images")
    seed: int = Field(0, ge=0)
    size: int = Field(256, ge=32, le=1024, description="width and height of the images, in pixels")


@dataclass(frozen=True)
class Scene:
    """A set without the relation. Lengths are fractions of the image size, y from the top."""

    subset: str
    subject: str
    object: str
    subject_colour: str
    object_colour: str
    wall: int
    floor: int
    pattern: str
    pattern_shift: float
    horizon: float
    x: float
    """Position of the object: near the middle, and the same in all four images."""
    y: float
    object_scale: float
    """Height of the object; of furniture, the height of its seat."""
    subject_scale: float
    gap: float
    """Horizontal distance between the two, for left and right."""
    slip: float
    """Horizontal offset of the subject from the object, for the other relations."""


@reads("split", "args")
def read_rendered(dataset: DatasetSpec, root: Path) -> Table:
    """Four rows per set, with image, subset, set, subject, object and relation.

    Raises:
        InputError: an unknown split, or invalid arguments.
    """
    split = dataset.split or "test"
    if split not in SHARES:
        raise not_found(
            f"dataset.split: unknown split {split!r}", split, SHARES, hint="Available: {}"
        )
    try:
        args = RenderedArgs.model_validate(dataset.args)
    except ValidationError as error:
        detail = error.errors()[0]
        name = ".".join(map(str, detail["loc"]))
        known = list(RenderedArgs.model_fields)
        raise InputError(
            f"dataset.args: unknown argument {name!r}{suggest(name, known)}"
            if detail["type"] == "extra_forbidden"
            else f"dataset.args.{name}: {detail['msg'].replace('Input should', 'must')}, "
            f"found {shown(detail['input'])}",
            hint=f"Arguments: {listing(known)}",
        ) from None
    rows: list[Row] = []
    digest = hashlib.sha256(f"{VERSION} {args.size}".encode())
    for index in range(args.sets):
        scene = make_scene(args.subset, split, args.seed, index)
        digest.update(json.dumps(asdict(scene)).encode())
        name = f"{args.subset}-{split}-{args.seed}-{index:04d}"
        rows.extend(
            {
                # The path identifies the image, so it contains all that the pixels depend on.
                "image": _ref(
                    f"rendered/{name}-{args.size}px/{relation}", scene, relation, args.size
                ),
                "subset": args.subset,
                "set": name,
                "subject": scene.subject,
                "object": scene.object,
                "relation": relation,
            }
            for relation in RELATIONS[args.subset]
        )
    label = f"rendered/{args.subset}-{split}-{args.seed}-{args.size}px"
    return Table(rows, {label: digest.hexdigest()})


def _ref(path: str, scene: Scene, relation: str, size: int) -> ImageRef:
    # Uncompressed PNG: the bytes, and hence the checksum, do not depend on the zlib version.
    def read() -> bytes:
        buffer = io.BytesIO()
        draw(scene, relation, size).save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()

    return ImageRef(path=path, read=read)


# --- scenes --------------------------------------------------------------------------------------


@cache
def object_pairs(subset: str, split: str) -> tuple[tuple[str, str], ...]:
    """(subject, object) pairs of a split. Two small objects occur in both roles."""
    from vlm_harness.datasets.drawing import FURNITURE, SMALL

    both = product(SMALL, FURNITURE) if subset == "a" else combinations(SMALL, 2)
    # Sorting by checksum gives a random-looking order that is the same everywhere.
    pairs = sorted(both, key=lambda pair: hashlib.sha256("/".join(pair).encode()).digest())
    start = 0
    for name, share in SHARES.items():
        end = min(len(pairs), start + round(share * len(pairs)))
        if name == split:
            break
        start = end
    chosen = sorted(pairs[start:end])
    if subset == "b":
        chosen += [(second, first) for first, second in chosen]
    return tuple(chosen)


def make_scene(subset: str, split: str, seed: int, index: int) -> Scene:
    """The scene of one set. Every object pair of the split is used once before any is reused."""
    from vlm_harness.datasets import drawing

    pairs = object_pairs(subset, split)
    order = _order(subset, split, seed, index // len(pairs))
    subject, target = pairs[order[index % len(pairs)]]
    random = Random(f"{subset}/{split}/{seed}/{index}")
    subject_colour, object_colour = random.sample(sorted(drawing.COLOURS), 2)
    common: dict[str, Any] = {
        "subset": subset,
        "subject": subject,
        "object": target,
        "subject_colour": subject_colour,
        "object_colour": object_colour,
        "wall": random.randrange(len(drawing.WALLS)),
        "floor": random.randrange(len(drawing.FLOORS)),
        "pattern": random.choice(drawing.PATTERNS),
        "pattern_shift": _between(random, 0, 1),
        "slip": _between(random, -0.04, 0.04),
    }
    if subset == "a":
        half = drawing.FURNITURE[target].half
        # As large as possible between the positions of the subject on both sides.
        object_scale = min(_between(random, 0.27, 0.33), 0.228 / half)
        return Scene(
            **common,
            horizon=_between(random, 0.62, 0.72),
            x=0.5 + _between(random, -0.025, 0.025),
            y=_between(random, 0.85, 0.92),
            object_scale=object_scale,
            subject_scale=_between(random, 0.155, 0.175) * min(1.0, object_scale / 0.25),
            gap=_between(random, 0.1, 0.115),
        )
    return Scene(
        **common,
        horizon=_between(random, 0.2, 0.28),
        x=0.5 + _between(random, -0.03, 0.03),
        y=0.63 + _between(random, -0.03, 0.03),
        object_scale=_between(random, 0.23, 0.26),
        subject_scale=_between(random, 0.23, 0.26),
        gap=_between(random, 0.27, 0.3),
    )


@cache
def _order(subset: str, split: str, seed: int, cycle: int) -> list[int]:
    order = list(range(len(object_pairs(subset, split))))
    Random(f"{subset}/{split}/{seed}/order {cycle}").shuffle(order)
    return order


def _between(random: Random, low: float, high: float) -> float:
    return round(random.uniform(low, high), 4)


# --- images --------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Position of an object (the middle of its base), and its height."""

    x: float
    y: float
    scale: float


def draw(scene: Scene, relation: str, size: int = 256) -> "Image":
    """The image of a scene with one relation: RGB, ``size`` x ``size``."""
    from PIL import ImageDraw

    from vlm_harness.datasets import drawing

    large = 2 * size
    wall, floor = drawing.WALLS[scene.wall], drawing.FLOORS[scene.floor]
    image = drawing.room(large, scene.horizon, wall, floor, scene.pattern, scene.pattern_shift)
    canvas = ImageDraw.Draw(image)
    subject, target = places(scene, relation)
    furniture = drawing.FURNITURE.get(scene.object)

    def put_subject() -> None:
        x, y, scale = (large * value for value in subject)
        if relation != "on":
            drawing.shadow(image, x, y, 0.63 * scale)
        pen = drawing.Pen(canvas, x, y, scale)
        drawing.SMALL[scene.subject](pen, drawing.COLOURS[scene.subject_colour])

    def put_object() -> None:
        x, y, scale = (large * value for value in target)
        drawing.shadow(image, x, y, (1.25 * furniture.half if furniture else 0.63) * scale)
        pen = drawing.Pen(canvas, x, y, scale)
        paint = furniture.draw if furniture else drawing.SMALL[scene.object]
        paint(pen, drawing.COLOURS[scene.object_colour])

    steps: list[Callable[[], None]] = [put_object, put_subject]
    # An object behind another, or under a seat, is drawn first.
    for step in steps[::-1] if relation in ("behind", "under") else steps:
        step()
    return image.reduce(2)


def places(scene: Scene, relation: str) -> tuple[Place, Place]:
    """Positions of subject and object. The object stays in place; the subject moves around it."""
    from vlm_harness.datasets import drawing

    x, y, scale = scene.x, scene.y, scene.subject_scale
    target = Place(x, y, scene.object_scale)
    if relation == "front":  # nearer: lower in the image, and larger
        return Place(x + scene.slip, y + 0.24, 1.15 * scale), target
    if relation == "behind":
        return Place(x + scene.slip, y - 0.22, 0.87 * scale), target
    piece = drawing.FURNITURE.get(scene.object)
    if piece is not None and relation == "on":
        x += piece.on * scene.object_scale + scene.slip
        return Place(x, y - scene.object_scale, scale), target
    if piece is not None and relation == "under":
        return Place(x + piece.under * scene.object_scale + scene.slip, y + 0.005, scale), target
    aside = scene.gap + (piece.half * scene.object_scale if piece else 0.0)
    return Place(x + (aside if relation == "right" else -aside), y, scale), target

"""The images of a sample: files, image columns, and images in base64."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vlm_harness.datasets.embedded import (
    content_label,
    image_of_bytes,
    image_of_text,
    is_image_text,
)
from vlm_harness.errors import shown
from vlm_harness.images import file_ref
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import AnyOf
from vlm_harness.specs.templates import compile_template
from vlm_harness.types import ImageRef

Exif = Literal["by_reader", "ignore", "apply"]


def is_missing(value: Any) -> bool:
    """Whether a value stands for no value: null, NaN, or an empty text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def images(
    source: str | Sequence[str | AnyOf], context: Mapping[str, Any], root: Path, label: str
) -> tuple[ImageRef, ...]:
    """The images of a sample, in order. A missing value (null, NaN, empty text) is no image.

    Args:
        source: one template or a list of them. Each may yield an image, or a list of images; text
            around a list, as in ``folder/{{ names }}``, is repeated for each item.
        label: identifies the row, to name images that have neither a path nor a column.
    """
    refs: list[ImageRef] = []
    for item in [source] if isinstance(source, str) else source:
        if not isinstance(item, AnyOf):
            refs += _images(_rendered(item, context), root, label)
            continue
        several = [_images(_rendered(path, context), root, label) for path in item.any_of]
        present = [each for each in several if each]
        if present:
            refs += next((x for x in present if all(ref.exists() for ref in x)), present[0])
    return tuple(refs)


def oriented(refs: tuple[ImageRef, ...], exif: Exif) -> tuple[ImageRef, ...]:
    """The images with their EXIF orientation applied or ignored, as the task or reader says."""
    if exif == "by_reader":
        return refs
    return tuple(dataclasses.replace(ref, upright=exif == "apply") for ref in refs)


def _rendered(source: str, context: Mapping[str, Any]) -> Any:
    """The value of a template; a list if text surrounds a list."""
    template = compile_template(source)
    pieces = template.pieces(context)
    if not pieces:
        return template(context)
    if any(isinstance(piece, ImageRef) for _, piece in pieces):
        raise ValueError("a column of images must not have text around it: write only {{ column }}")
    lists = [n for n, (_, piece) in enumerate(pieces) if isinstance(piece, list | tuple)]
    texts = [str(piece) for _, piece in pieces]
    if len(lists) != 1:
        return "".join(texts)
    before, after = "".join(texts[: lists[0]]), "".join(texts[lists[0] + 1 :])
    items = pieces[lists[0]][1]
    return [None if is_missing(item) else f"{before}{item}{after}" for item in items]


def _images(value: Any, root: Path, label: str) -> list[ImageRef]:
    if is_missing(value):
        return []
    if isinstance(value, ImageRef):
        return [value]
    if isinstance(value, list | tuple):
        return [ref for item in value for ref in _images(item, root, label)]
    if isinstance(value, Mapping) and set(value) <= {"bytes", "path"}:
        stored = _images(value.get("bytes"), root, label)
        return stored or _images(value.get("path"), root, label)
    if isinstance(value, bytes):
        return [image_of_bytes(value, f"{label}/{content_label(value)}")] if value else []
    if not isinstance(value, str):
        raise ValueError(
            f"an image must be a path or an image column, not {type(value).__name__}: "
            f"{shown(value)}; bytes, base64 texts and lists of these are allowed as well"
        )
    if is_image_text(value):
        return [image_of_text(value, f"{label}/{content_label(value)}")]
    inside(root, value)
    return [file_ref(root, value)]

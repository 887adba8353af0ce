"""Random images of various kinds, and image files as bytes."""

import io
from typing import Any

import torch
from PIL import Image, ImageDraw

from vlm_harness.types import ImageRef


def drawing(seed: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A random scene of a few coloured shapes."""
    random = torch.Generator().manual_seed(seed)

    def draw_int(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=random))

    image = Image.new("RGB", size, (draw_int(0, 256), draw_int(0, 256), draw_int(0, 256)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = draw_int(0, size[0]), draw_int(0, size[1])
        w, h = draw_int(4, max(5, size[0] // 2)), draw_int(4, max(5, size[1] // 2))
        colour = (draw_int(0, 256), draw_int(0, 256), draw_int(0, 256))
        shape = pen.ellipse if draw_int(0, 2) else pen.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
        return image
    if mode == "P":
        return image.quantize(16)
    return image.convert(mode)


def file_bytes(image: Image.Image, kind: str = "PNG", orientation: int | None = None) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def memory_ref(path: str, data: bytes) -> ImageRef:
    return ImageRef(path, read=lambda: data)


def varied_images() -> dict[str, bytes]:
    """Image files of various sizes and modes, and one with an EXIF orientation."""
    return {
        "wide.png": file_bytes(drawing(1, (97, 41))),
        "tall.jpg": file_bytes(drawing(2, (40, 90)), "JPEG"),
        "grey.png": file_bytes(drawing(3, (64, 64), "L")),
        "alpha.png": file_bytes(drawing(4, (70, 50), "RGBA")),
        "palette.png": file_bytes(drawing(5, (33, 57), "P")),
        "sideways.jpg": file_bytes(drawing(6, (80, 45)), "JPEG", orientation=6),
        "small.png": file_bytes(drawing(7, (20, 24))),
    }

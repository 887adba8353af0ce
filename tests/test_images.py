"""Every kind of image file gives pixels, or one clear error."""

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.images import drawing, file_bytes, memory_ref
from vlm_harness.errors import SampleError
from vlm_harness.images import MAX_BYTES, ImageLoader, file_ref, load
from vlm_harness.types import ImageRef

SCENE = drawing(1, (40, 24))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, name: str = "a.png", upright: bool = False) -> Image.Image:
    image = load(ImageRef(name, read=lambda: data, upright=upright))
    assert image.pixels.mode == "RGB"
    return image.pixels


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


# --- supported files ---------------------------------------------------------------------------

GREY = Image.linear_gradient("L")
FRAMES = [drawing(n, (30, 20)) for n in (3, 4)]
SUPPORTED: dict[str, tuple[bytes, Image.Image]] = {
    "rgb.png": (saved(SCENE, "PNG"), SCENE),
    "rgb.bmp": (saved(SCENE, "BMP"), SCENE),
    "rgb.tiff": (saved(SCENE, "TIFF"), SCENE),
    "rgb.ppm": (saved(SCENE, "PPM"), SCENE),
    "lossless.webp": (saved(SCENE, "WEBP", lossless=True), SCENE),
    "lossless.jp2": (saved(SCENE, "JPEG2000"), SCENE),
    "grey.png": (saved(GREY, "PNG"), GREY.convert("RGB")),
    "one-bit.png": (saved(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
    "palette.png": (saved(SCENE.quantize(16), "PNG"), SCENE.quantize(16).convert("RGB")),
    "palette.gif": (saved(SCENE.quantize(16), "GIF"), SCENE.quantize(16).convert("RGB")),
    "cmyk.tiff": (saved(SCENE.convert("CMYK"), "TIFF"), SCENE.convert("CMYK").convert("RGB")),
    "transparent.png": (saved(drawing(1, (40, 24), "RGBA"), "PNG"), SCENE),
    "grey-alpha.png": (saved(GREY.convert("LA"), "PNG"), GREY.convert("RGB")),
    "animated.gif": (
        saved(FRAMES[0].quantize(8), "GIF", save_all=True, append_images=FRAMES[1:]),
        FRAMES[0].quantize(8).convert("RGB"),
    ),
    "animated.png": (
        saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), FRAMES[0],
    ),
    "animated.webp": (
        saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), FRAMES[0],
    ),
    "pages.tiff": (saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), FRAMES[0]),
    "a-png.jpg": (saved(SCENE, "PNG"), SCENE),
    "no-ending": (saved(SCENE, "PNG"), SCENE),
    "trailing-bytes.png": (saved(SCENE, "PNG") + b"\0" * 100, SCENE),
}  # fmt: skip


@pytest.mark.parametrize("name", SUPPORTED)
def test_supported_files(name: str) -> None:
    data, expected = SUPPORTED[name]
    assert same(pixels(data, name), expected)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "AVIF"])
def test_lossy_formats(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"Pillow was built without {kind}")
    data = saved(SCENE, kind)
    assert same(pixels(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_cmyk_jpeg() -> None:
    data = saved(SCENE.convert("CMYK"), "JPEG")
    assert same(pixels(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    """Pillow clips them instead."""
    grey = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 257 k is k of 255
    found = pixels(saved(Image.fromarray(grey), kind))
    assert np.array_equal(np.asarray(found)[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_only_on_request(orientation: int) -> None:
    data = file_bytes(SCENE, "JPEG", orientation)
    stored = Image.open(io.BytesIO(data))
    assert same(pixels(data), stored.convert("RGB"))
    turned = ImageOps.exif_transpose(stored).convert("RGB")
    assert same(pixels(data, upright=True), turned)
    assert same(turned, stored.convert("RGB")) == (orientation == 1)


def test_one_file_with_and_without_its_orientation() -> None:
    data = file_bytes(SCENE, "JPEG", 6)
    stored, turned = (ImageRef("a.jpg", read=lambda: data, upright=each) for each in (False, True))
    for workers in (0, 2):
        with ImageLoader(workers=workers) as loader:
            loader.prefetch([stored, turned])
            assert loader.get(stored).pixels.size == (40, 24)
            assert loader.get(turned).pixels.size == (24, 40)
            assert loader.get(stored).pixels.size == (40, 24)


# --- unsupported files ---------------------------------------------------------------------------


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data]
        parts.append(struct.pack(">I", zlib.crc32(name + data)))
    return b"".join(parts)


BOMB = zlib.compress(b"\0" * 30_000_000)
BROKEN_CHECKSUM = bytearray(saved(SCENE, "PNG"))
BROKEN_CHECKSUM[-20] ^= 0xFF
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(rm) run\n%%EOF\n"
UNSUPPORTED = "the file is not an image in a supported format (JPEG"
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"not an image at all", UNSUPPORTED),
    "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", UNSUPPORTED),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", UNSUPPORTED,
    ),
    "data.json": (b'{"a": 1}', UNSUPPORTED),
    "archive.png": (b"PK\x03\x04" + b"\0" * 60, UNSUPPORTED),
    "document.pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", UNSUPPORTED),
    "program.eps": (EPS, UNSUPPORTED),
    "program.jpg": (EPS, UNSUPPORTED),
    "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', UNSUPPORTED),
    "windows.ico": (saved(SCENE, "ICO"), UNSUPPORTED),
    "script.fli": (struct.pack("<IHHHHHHHI", 200, 0xAF12, 1, 9, 9, 8, 3, 0, 0) * 9, UNSUPPORTED),
    "zeros.png": (b"\0" * 500, UNSUPPORTED),
    "signature-alone.png": (b"\x89PNG\r\n\x1a\n", "image signature-alone.png: "),
    "start-alone.jpg": (b"\xff\xd8\xff", "image start-alone.jpg: "),
    "header-alone.gif": (b"GIF89a", "image header-alone.gif: "),
    "header-alone.webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "image header-alone.webp: "),
    "header-alone.bmp": (b"BM" + b"\0" * 12, "image header-alone.bmp: "),
    "header-alone.tiff": (b"II*\0\x08\0\0\0", "image header-alone.tiff: "),
    "checksum.png": (bytes(BROKEN_CHECKSUM), "image checksum.png: "),
    "no-size.png": (png(0, 0, (b"IDAT", zlib.compress(b""))), "image no-size.png: "),
    "no-pixels.png": (png(20, 20), "image no-pixels.png: "),
    "no-deflate.png": (png(20, 20, (b"IDAT", b"\xff" * 40)), "image no-deflate.png: "),
    "bomb.png": (
        png(11_000, 10_000, (b"IDAT", BOMB)), "11000 x 10000 pixels; the limit is 100,000,000",
    ),
    "larger-bomb.png": (
        png(60_000, 60_000, (b"IDAT", BOMB)), "more pixels than the limit of 100,000,000",
    ),
    "metadata-bomb.png": (
        png(2, 2, (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 80_000_000)), (b"IDAT", BOMB[:99])),
        "image metadata-bomb.png: ",
    ),
    "whole-numbers.tiff": (
        saved(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"),
        "32-bit pixels are not supported",
    ),
    "real-numbers.tiff": (
        saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        "32-bit pixels are not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_files_are_refused(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(SampleError) as caught:
        load(memory_ref(name, data))
    message = str(caught.value)
    assert message.startswith(f"image {name}: ")
    assert reason in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}),
        ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}),
        ("PPM", {}),
    ],
    ids=str,
)  # fmt: skip
def test_a_truncated_file_is_never_partially_decoded(kind: str, options: dict[str, object]) -> None:
    image = drawing(2, (64, 48))
    data = saved(image.quantize(16) if kind == "GIF" else image, kind, **options)
    complete, errors = pixels(data), 0
    for end in range(1, len(data), max(1, len(data) // 97)):
        try:
            found = pixels(data[:end])
        except SampleError:
            errors += 1
        else:
            # The missing bytes did not affect the pixels.
            assert same(found, complete), end
    assert errors > 80


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    with (tmp_path / "endless.png").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    for name, reason in {
        "folder.png": "Is a directory",
        "dangling.png": "No such file",
        "circle.png": "symbolic link",
        "missing.png": "No such file",
        "nul\0.png": "null byte",
        f"{'long' * 99}.png": "File name too long",
        "endless.png": f"bytes; the limit is {MAX_BYTES:,}",
    }.items():
        with pytest.raises(SampleError, match=reason):
            load(file_ref(tmp_path, name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(SCENE, "PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(SampleError, match="Permission denied"):
        load(file_ref(tmp_path, "a.png"))


def test_links_are_followed(tmp_path: Path) -> None:
    """The hub cache and cluster file systems use symbolic links."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "blob").write_bytes(saved(SCENE, "PNG"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "elsewhere" / "blob")
    assert same(load(file_ref(tmp_path / "data", "a.png")).pixels, SCENE)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x01\x80", b"random"])
@pytest.mark.parametrize(
    "start",
    [
        b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
        b"RIFF\xff\0\0\0WEBP", b"P6\n", b"\0\0\0 ftypavif", b"\0\0\0\x0cjP  \r\n\x87\n",
    ],
)  # fmt: skip
def test_arbitrary_bytes(start: bytes, fill: bytes) -> None:
    for n in range(1, 200, 7):
        rest = os.urandom(n) if fill == b"random" else fill * n
        with suppress(SampleError):
            pixels(start + rest)

"""Render pairs of a run as one PNG, for a slide. Needs only Pillow and its built-in font.

Each part is a small image, and larger parts are composed of smaller ones. This way all cards of a
row have the same height, and the text below the images of a pair starts at the same height.
"""

import io
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image, ImageDraw, ImageFont

from vlm_harness.errors import InputError
from vlm_harness.files import write_bytes
from vlm_harness.report.pairs import Absent, Answer, Mark, Sheet, Tile

T = TypeVar("T")

# Sizes in pixels, for a sheet that is shown at about half its size.
MARGIN = 88  # around the sheet
GUTTER = 48  # between cards
PADDING = 40  # within a card
GAP = 32  # between the samples of a pair
IMAGE, SINGLE = 500, 760  # width of a sample; the second is for a sheet with one card
NAMES = 0.42  # share of that width; longer model names go above their answers
MAX_PIXELS = 40_000_000  # larger sheets are halved; Pillow warns at 90 million
MAX_TEXT = 1000  # characters; more than any number of lines below can show

WHITE, GREY, BORDER, EMPTY = "#ffffff", "#656d76", "#d0d7de", "#f1f3f5"
# Strokes in the unit square, because the font lacks these glyphs.
MARKS: dict[Mark, tuple[str, list[list[tuple[float, float]]]]] = {
    "correct": ("#1a7f37", [[(0.08, 0.55), (0.38, 0.85), (0.92, 0.18)]]),
    "incorrect": ("#cf222e", [[(0.14, 0.14), (0.86, 0.86)], [(0.14, 0.86), (0.86, 0.14)]]),
    "missing": (GREY, [[(0.15, 0.5), (0.85, 0.5)]]),
}
LOOKALIKES = str.maketrans("–—−•×", "---·x")  # common characters that the font lacks
UNKNOWN = "\ufffd"  # also missing, so it is rendered as an empty box


class Style(NamedTuple):
    size: int
    colour: str = "#1f2328"
    bolder: int = 0  # pixels; the font has only one weight
    ground: str = WHITE

    @property
    def line(self) -> int:
        return round(1.35 * self.size)


TITLE, HEADING, TARGET = Style(54, bolder=2), Style(38, bolder=1), Style(34, bolder=1)
TEXT, NAME, SMALL, REASON = Style(34), Style(34, GREY), Style(28, GREY), Style(28, GREY, 0, EMPTY)


def write(sheet: Sheet, path: Path) -> None:
    """Render a sheet to a PNG file.

    Raises:
        InputError: the file cannot be written, or the image would be too large.
    """
    buffer = io.BytesIO()
    _render(sheet).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _render(sheet: Sheet) -> Image.Image:
    columns = min(2, len(sheet.tiles))
    across = max(_across(tile) for tile in sheet.tiles)
    card = across * ((IMAGE if columns > 1 else SINGLE) + GAP) - GAP + 2 * PADDING
    width = columns * (card + GUTTER) - GUTTER
    count = f"{len(sheet.tiles)} of {sheet.n_pairs} pairs"
    # Generated run ids fit at the smaller size; only longer ones, set by a user, are cut.
    title = TITLE if _width(_printable(sheet.run_id), TITLE) < width else HEADING
    heading = [_text(sheet.run_id, title, width, 2), _text(count, NAME, width)]
    parts = [_stack(heading, 4)]
    factor = 1
    for tiles in _chunks(sheet.tiles, columns):
        parts.append(_framed([_card(tile, card - 2 * PADDING) for tile in tiles]).reduce(factor))
        if _area(parts) > MAX_PIXELS and factor == 1:
            factor = 2
            parts = [part.reduce(factor) for part in parts]
        if _area(parts) > MAX_PIXELS:
            raise InputError(
                "too many pairs and answers for one image",
                where="--pairs",
                hint=f"Show {max(1, columns * (len(parts) - 2))} or fewer.",
            )
    parts += [_text(note, SMALL, width, 2).reduce(factor) for note in sheet.notes]
    body, margin = _stack(parts, GUTTER // factor), MARGIN // factor
    page = Image.new("RGB", (body.width + 2 * margin, body.height + 2 * margin), WHITE)
    page.paste(body, (margin, margin))
    return page


def _area(parts: Sequence[Image.Image]) -> int:
    return sum(part.width * part.height for part in parts)


# --- cards ----------------------------------------------------------------------------------------


def _across(tile: Tile) -> int:
    """Samples per row: up to three; more are split into rows of similar length."""
    n_rows = -(-len(tile.samples) // 3)
    return -(-len(tile.samples) // n_rows)


def _framed(cards: Sequence[Image.Image]) -> Image.Image:
    """A row of cards with frames."""
    height = max(card.height for card in cards) + 2 * PADDING
    frames = []
    for card in cards:
        frame = Image.new("RGB", (card.width + 2 * PADDING, height), WHITE)
        corners = (0, 0, frame.width - 1, frame.height - 1)
        ImageDraw.Draw(frame).rounded_rectangle(corners, 20, outline=BORDER, width=2)
        frame.paste(card, (PADDING, PADDING))
        frames.append(frame)
    return _beside(frames, GUTTER)


def _card(tile: Tile, width: int) -> Image.Image:
    cosines = [f"pair cosine similarity: {value:.3f} ({by})" for by, value in tile.cosines.items()]
    small = [_text(line, SMALL, width) for line in (f"pair {tile.pair}", *cosines)]
    parts = [_stack([_text(tile.task, HEADING, width), *small], 4)]
    across = _across(tile)
    column = (width + GAP) // across - GAP
    for samples in _chunks(tile.samples, across):
        height = max(_height(sample.images, column) for sample in samples)
        cells = [
            [
                _images(sample.images, column, height),
                _text(sample.question, TEXT, column, 5),
                _text(f"Correct answer: {sample.target}", TARGET, column, 2),
                *_answers(tile.rows, sample.answers, column),
            ]
            for sample in samples
        ]
        parts.append(_stack([_beside(row, GAP) for row in zip(*cells, strict=True)], 14))
    return _stack(parts, 24)


def _answers(names: Sequence[str], answers: Sequence[Answer], width: int) -> Iterator[Image.Image]:
    """One row per model: its mark, its name, and its answer beside or below the name."""
    longest = max(_width(_printable(name), NAME) for name in names) + 1
    for name, answer in zip(names, answers, strict=True):
        mark = _mark(answer.mark)
        rest = width - mark.width
        if longest <= NAMES * width:
            words = _text(answer.text, TEXT, rest - longest - 20, 3)
            yield _beside([mark, _beside([_text(name, NAME, longest), words], 20)])
        else:
            words = _text(answer.text, TEXT, rest, 3)
            yield _beside([mark, _stack([_text(name, NAME, rest), words])])


def _mark(mark: Mark) -> Image.Image:
    colour, strokes = MARKS[mark]
    size, finer = 30, 4  # Pillow draws lines with jagged edges
    mask = Image.new("L", (size * finer, size * finer))
    for points in strokes:
        line = [(x * mask.width, y * mask.height) for x, y in points]
        ImageDraw.Draw(mask).line(line, 255, 6 * finer, "curve")
    page = Image.new("RGB", (size + 16, TEXT.line), WHITE)
    page.paste(colour, (0, (page.height - size) // 2), mask.reduce(finer))
    return page


# --- images ---------------------------------------------------------------------------------------


def _height(images: Sequence[Image.Image | Absent], width: int) -> int:
    """Height of the frames around images: that of the tallest image, at most square."""
    width //= max(1, min(3, len(images)))
    shapes = [(4, 3) if isinstance(image, Absent) else image.size for image in images]
    return max([TEXT.line * 2, *(min(width, width * high // wide) for wide, high in shapes)])


def _images(images: Sequence[Image.Image | Absent], width: int, height: int) -> Image.Image:
    """The images of one sample; usually one, several in rows of three."""
    if not images:
        return _frame(Absent("No image was shown", ""), width, height)
    across = min(3, len(images))
    each = (width + 8) // across - 8
    rows = _chunks([_frame(image, each, height) for image in images], across)
    return _stack([_beside(row, 8) for row in rows], 8)


def _frame(image: Image.Image | Absent, width: int, height: int) -> Image.Image:
    """An image scaled to fit, or the reason why it cannot be shown."""
    frame = Image.new("RGB", (width, height), EMPTY)
    if isinstance(image, Absent):
        lines = [(image.reason, 4), (image.path, 2)]
        image = _stack([_text(text, REASON, width - 40, n) for text, n in lines if text])
    else:
        factor = min(width / image.width, height / image.height)
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        image = image.resize(size, Image.Resampling.LANCZOS)
    frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return frame


# --- text -----------------------------------------------------------------------------------------


def _text(text: str, style: Style, width: int, limit: int = 1) -> Image.Image:
    """Any text, wrapped; what does not fit into ``limit`` lines is cut off."""
    lines = _wrapped(_printable(text), style, width - style.bolder, limit)
    page = Image.new("RGB", (width, style.line * len(lines)), style.ground)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        for x in range(style.bolder + 1):
            at = x, number * style.line + style.size // 20
            pen.text(at, line, style.colour, _font(style.size))
    return page


def _wrapped(text: str, style: Style, width: int, limit: int) -> list[str]:
    lines: list[str] = []
    while len(lines) < limit - 1 and _fitting(text, style, width) < len(text):
        end = _fitting(text, style, width)
        space = text.rfind(" ", 0, end + 1)
        end = space if space > 0 else end  # words longer than a line are broken
        lines.append(text[:end])
        text = text[end:].lstrip()
    if _fitting(text, style, width) < len(text):
        text = text[: _fitting(text, style, width - _width("…", style))].rstrip() + "…"
    return [*lines, text]


def _fitting(text: str, style: Style, width: int) -> int:
    """Number of characters of a text that fit on one line; at least one."""
    ends = range(1, len(text) + 1)
    return max(1, bisect_right(ends, width, key=lambda end: _width(text[:end], style)))


def _width(text: str, style: Style) -> int:
    return round(_font(style.size).getlength(text))


def _printable(text: str) -> str:
    """One line of characters that the font has; others become similar ones, or boxes."""
    text = unicodedata.normalize("NFKD", " ".join(text.split())[:MAX_TEXT].translate(LOOKALIKES))
    # NFKD separates accents: drop them, and joiners and text direction marks too.
    kept = (c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return " ".join("".join(c if _has_glyph(c) else UNKNOWN for c in kept).split())


@cache
def _has_glyph(character: str) -> bool:
    if not character.isprintable():
        return False
    font = _font(SMALL.size)
    return character == " " or bytes(font.getmask(character)) != bytes(font.getmask(UNKNOWN))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


# --- layout ---------------------------------------------------------------------------------------


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _beside(parts: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    width = sum(part.width + gap for part in parts) - gap
    page = Image.new("RGB", (width, max(part.height for part in parts)), WHITE)
    x = 0
    for part in parts:
        page.paste(part, (x, 0))
        x += part.width + gap
    return page


def _stack(parts: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    height = sum(part.height + gap for part in parts) - gap
    page = Image.new("RGB", (max(part.width for part in parts), height), WHITE)
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height + gap
    return page

"""Drawings of household objects with Pillow, for the reader ``rendered``.

Each object is a function of a pen and a colour. The origin is the middle of its base; x points to
the right and y up, in units of the height of the object. A small object fills about -0.5..0.5 by
0..1. Images are drawn at twice their final size, which smooths the edges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

DARK: Colour = (52, 48, 56)
LIGHT: Colour = (250, 248, 242)
LEAF: Colour = (74, 139, 84)
WOOD: Colour = (146, 104, 70)


def tone(colour: Colour, amount: float) -> Colour:
    """A lighter (up to 1, white) or darker (down to -1, black) colour."""
    to, share = (255, amount) if amount > 0 else (0, -amount)
    red, green, blue = (round(c + (to - c) * share) for c in colour)
    return red, green, blue


class Pen:
    """Draws in the units of an object whose base is at pixel (x, y)."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, scale: float) -> None:
        self._draw, self._x, self._y, self._scale = draw, x, y, scale

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._x + x * self._scale, self._y - y * self._scale

    def box(
        self, left: float, bottom: float, right: float, top: float, fill: Colour, r: float = 0
    ) -> None:
        corners = (*self._at(left, top), *self._at(right, bottom))
        self._draw.rounded_rectangle(corners, radius=r * self._scale, fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self._draw.ellipse((*self._at(x - rx, y + ry), *self._at(x + rx, y - ry)), fill=fill)

    def pie(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: Colour
    ) -> None:
        """A slice; degrees run clockwise from the right."""
        corners = (*self._at(x - rx, y + ry), *self._at(x + rx, y - ry))
        self._draw.pieslice(corners, start, end, fill=fill)

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        fill: Colour,
        width: float,
    ) -> None:
        corners = (*self._at(x - rx, y + ry), *self._at(x + rx, y - ry))
        self._draw.arc(corners, start, end, fill=fill, width=self._wide(width))

    def shape(self, points: Points, fill: Colour) -> None:
        self._draw.polygon([self._at(*point) for point in points], fill=fill)

    def line(self, points: Points, fill: Colour, width: float) -> None:
        places = [self._at(*point) for point in points]
        self._draw.line(places, fill=fill, width=self._wide(width), joint="curve")

    def _wide(self, width: float) -> int:
        return max(1, round(width * self._scale))


# --- small objects -------------------------------------------------------------------------------


def mug(pen: Pen, c: Colour) -> None:
    pen.arc(0.36, 0.46, 0.25, 0.27, -100, 100, tone(c, -0.15), 0.11)
    pen.box(-0.44, 0, 0.36, 0.9, c, 0.1)
    pen.box(-0.44, 0.1, -0.3, 0.84, tone(c, 0.35), 0.06)
    pen.oval(-0.04, 0.89, 0.4, 0.1, tone(c, 0.3))
    pen.oval(-0.04, 0.88, 0.33, 0.07, (92, 60, 42))


def bottle(pen: Pen, c: Colour) -> None:
    pen.box(-0.22, 0, 0.22, 0.66, c, 0.08)
    pen.shape([(-0.22, 0.6), (-0.09, 0.8), (0.09, 0.8), (0.22, 0.6)], c)
    pen.box(-0.09, 0.74, 0.09, 1.0, tone(c, -0.12), 0.02)
    pen.box(-0.11, 0.98, 0.11, 1.1, tone(c, -0.5), 0.03)
    pen.box(-0.22, 0.2, 0.22, 0.48, LIGHT)
    pen.box(-0.17, 0.06, -0.1, 0.6, tone(c, 0.4), 0.03)


def bowl(pen: Pen, c: Colour) -> None:
    pen.box(-0.2, 0, 0.2, 0.12, tone(c, -0.25), 0.03)
    pen.pie(0, 0.6, 0.62, 0.54, 0, 180, c)
    pen.pie(-0.05, 0.58, 0.5, 0.44, 95, 165, tone(c, 0.25))
    pen.oval(0, 0.6, 0.62, 0.13, tone(c, 0.35))
    pen.oval(0, 0.59, 0.53, 0.09, tone(c, -0.35))


def vase(pen: Pen, c: Colour) -> None:
    for x, y in ((-0.22, 1.05), (0.0, 1.16), (0.22, 1.03)):
        pen.line([(0, 0.6), (x, y)], LEAF, 0.04)
    pen.oval(0, 0.32, 0.32, 0.33, c)
    pen.box(-0.12, 0.5, 0.12, 0.76, c)
    pen.oval(0, 0.76, 0.17, 0.05, tone(c, -0.25))
    pen.oval(-0.13, 0.4, 0.07, 0.14, tone(c, 0.45))
    for x, y in ((-0.22, 1.05), (0.0, 1.16), (0.22, 1.03)):
        pen.oval(x, y, 0.12, 0.12, (240, 190, 70))
        pen.oval(x, y, 0.05, 0.05, (150, 84, 40))


def lamp(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.06, 0.26, 0.07, DARK)
    pen.box(-0.035, 0.05, 0.035, 0.6, DARK)
    pen.shape([(-0.42, 0.5), (0.42, 0.5), (0.24, 1.08), (-0.24, 1.08)], c)
    pen.shape([(-0.36, 0.53), (-0.2, 0.53), (-0.12, 1.05), (-0.22, 1.05)], tone(c, 0.45))
    pen.box(-0.42, 0.48, 0.42, 0.54, tone(c, -0.25), 0.02)


def candle(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.07, 0.4, 0.09, (196, 162, 92))
    pen.oval(0, 0.09, 0.32, 0.06, (150, 118, 60))
    pen.box(-0.16, 0.06, 0.16, 0.74, c, 0.04)
    pen.box(-0.12, 0.1, -0.05, 0.68, tone(c, 0.45), 0.03)
    pen.line([(0, 0.72), (0, 0.84)], DARK, 0.035)
    pen.shape([(-0.09, 0.9), (0, 1.14), (0.09, 0.9)], (245, 150, 40))
    pen.oval(0, 0.89, 0.09, 0.08, (245, 150, 40))
    pen.oval(0, 0.89, 0.045, 0.06, (255, 226, 120))


def book(pen: Pen, c: Colour) -> None:
    # A stack of three books.
    for bottom, width, shift, amount in (
        (0, 0.6, 0, 0),
        (0.24, 0.52, 0.04, 0.5),
        (0.48, 0.55, -0.04, -0.3),
    ):
        cover = tone(c, amount)
        pen.box(shift - width, bottom, shift + width, bottom + 0.23, cover, 0.04)
        pen.box(shift - width + 0.1, bottom + 0.045, shift + width, bottom + 0.185, LIGHT, 0.01)
        pen.line(
            [(shift - width + 0.1, bottom + 0.11), (shift + width, bottom + 0.11)],
            (214, 206, 190),
            0.02,
        )


def ball(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.46, 0.46, 0.46, c)
    pen.pie(0, 0.46, 0.46, 0.46, 250, 290, LIGHT)
    pen.pie(0, 0.46, 0.46, 0.46, 10, 50, LIGHT)
    pen.pie(0, 0.46, 0.46, 0.46, 130, 170, LIGHT)
    pen.oval(0, 0.46, 0.12, 0.12, tone(c, -0.3))
    pen.oval(-0.2, 0.7, 0.08, 0.06, tone(c, 0.7))


def apple(pen: Pen, c: Colour) -> None:
    pen.oval(-0.15, 0.42, 0.32, 0.42, c)
    pen.oval(0.15, 0.42, 0.32, 0.42, c)
    pen.oval(-0.24, 0.56, 0.08, 0.13, tone(c, 0.5))
    pen.line([(0, 0.76), (0.06, 1.02)], WOOD, 0.06)
    pen.shape([(0.06, 0.86), (0.2, 1.0), (0.4, 1.0), (0.26, 0.86)], LEAF)


def pear(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.3, 0.36, 0.3, c)
    pen.shape([(-0.34, 0.36), (-0.16, 0.8), (0.16, 0.8), (0.34, 0.36)], c)
    pen.oval(0, 0.78, 0.165, 0.16, c)
    pen.oval(-0.15, 0.4, 0.07, 0.14, tone(c, 0.5))
    pen.line([(0, 0.9), (-0.06, 1.12)], WOOD, 0.06)
    pen.shape([(0, 0.98), (0.14, 1.1), (0.32, 1.08), (0.18, 0.96)], LEAF)


def hat(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.13, 0.6, 0.13, tone(c, -0.2))
    pen.oval(0, 0.16, 0.6, 0.12, c)
    pen.box(-0.33, 0.16, 0.33, 0.74, c, 0.14)
    pen.box(-0.33, 0.2, 0.33, 0.36, DARK)
    pen.box(-0.24, 0.42, -0.14, 0.66, tone(c, 0.35), 0.04)


def boot(pen: Pen, c: Colour) -> None:
    pen.box(-0.36, 0.0, 0.5, 0.14, DARK, 0.04)
    pen.box(-0.34, 0.1, 0.12, 1.0, c, 0.06)
    pen.oval(0.18, 0.24, 0.3, 0.19, c)
    pen.box(-0.2, 0.1, 0.3, 0.36, c)
    pen.box(-0.38, 0.84, 0.16, 1.02, tone(c, 0.4), 0.05)
    pen.line([(0.0, 0.5), (0.12, 0.5)], LIGHT, 0.04)
    pen.line([(0.0, 0.64), (0.12, 0.64)], LIGHT, 0.04)


def clock(pen: Pen, c: Colour) -> None:
    pen.line([(-0.26, 0.2), (-0.36, 0)], DARK, 0.09)
    pen.line([(0.26, 0.2), (0.36, 0)], DARK, 0.09)
    pen.oval(-0.3, 0.92, 0.17, 0.14, tone(c, -0.3))
    pen.oval(0.3, 0.92, 0.17, 0.14, tone(c, -0.3))
    pen.oval(0, 0.5, 0.46, 0.46, c)
    pen.oval(0, 0.5, 0.35, 0.35, LIGHT)
    pen.line([(0, 0.5), (0, 0.74)], DARK, 0.05)
    pen.line([(0, 0.5), (0.17, 0.42)], DARK, 0.05)


def cactus(pen: Pen, c: Colour) -> None:
    pen.line([(-0.1, 0.56), (-0.32, 0.56), (-0.32, 0.8)], tone(LEAF, -0.1), 0.15)
    pen.oval(-0.32, 0.8, 0.075, 0.075, tone(LEAF, -0.1))
    pen.line([(0.1, 0.66), (0.32, 0.66), (0.32, 0.92)], tone(LEAF, -0.1), 0.15)
    pen.oval(0.32, 0.92, 0.075, 0.075, tone(LEAF, -0.1))
    pen.box(-0.15, 0.3, 0.15, 1.14, LEAF, 0.15)
    pen.line([(-0.05, 0.42), (-0.05, 1.04)], tone(LEAF, 0.35), 0.03)
    pen.line([(0.06, 0.42), (0.06, 1.0)], tone(LEAF, 0.35), 0.03)
    pen.shape([(-0.33, 0.36), (0.33, 0.36), (0.23, 0), (-0.23, 0)], c)
    pen.box(-0.37, 0.32, 0.37, 0.44, tone(c, 0.2), 0.03)


def gift(pen: Pen, c: Colour) -> None:
    ribbon = tone(c, 0.75)
    pen.box(-0.45, 0, 0.45, 0.68, c, 0.03)
    pen.box(-0.5, 0.58, 0.5, 0.78, tone(c, -0.18), 0.03)
    pen.box(-0.08, 0, 0.08, 0.78, ribbon)
    pen.arc(-0.15, 0.88, 0.16, 0.12, 0, 360, ribbon, 0.07)
    pen.arc(0.15, 0.88, 0.16, 0.12, 0, 360, ribbon, 0.07)


def drum(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.12, 0.5, 0.12, tone(c, -0.35))
    pen.box(-0.5, 0.12, 0.5, 0.72, c)
    for x in (-0.5, -0.17, 0.17):
        pen.line([(x, 0.66), (x + 0.17, 0.12), (x + 0.33, 0.66)], LIGHT, 0.035)
    pen.oval(0, 0.72, 0.5, 0.14, tone(c, -0.35))
    pen.oval(0, 0.74, 0.46, 0.11, LIGHT)
    pen.line([(-0.2, 0.78), (0.3, 1.04)], WOOD, 0.05)
    pen.line([(0.2, 0.78), (-0.3, 1.04)], WOOD, 0.05)


def bucket(pen: Pen, c: Colour) -> None:
    pen.arc(0, 0.72, 0.44, 0.36, 180, 360, DARK, 0.045)
    pen.shape([(-0.46, 0.74), (0.46, 0.74), (0.34, 0), (-0.34, 0)], c)
    pen.shape([(-0.37, 0.7), (-0.24, 0.7), (-0.2, 0.06), (-0.28, 0.06)], tone(c, 0.35))
    pen.oval(0, 0.74, 0.47, 0.1, tone(c, 0.2))
    pen.oval(0, 0.73, 0.4, 0.065, tone(c, -0.45))


def duck(pen: Pen, c: Colour) -> None:
    pen.shape([(-0.62, 0.52), (-0.3, 0.4), (-0.2, 0.1)], c)
    pen.oval(-0.06, 0.28, 0.46, 0.28, c)
    pen.oval(0.24, 0.72, 0.25, 0.25, c)
    pen.box(0.06, 0.36, 0.34, 0.62, c, 0.08)
    pen.shape([(0.44, 0.78), (0.7, 0.68), (0.44, 0.6)], (240, 130, 40))
    pen.oval(0.32, 0.79, 0.05, 0.05, DARK)
    pen.oval(-0.14, 0.3, 0.22, 0.13, tone(c, -0.2))


def bell(pen: Pen, c: Colour) -> None:
    pen.oval(0, 0.1, 0.12, 0.1, DARK)
    pen.pie(0, 0.54, 0.34, 0.4, 180, 360, c)
    pen.shape([(-0.34, 0.56), (0.34, 0.56), (0.5, 0.14), (-0.5, 0.14)], c)
    pen.box(-0.54, 0.1, 0.54, 0.22, tone(c, -0.25), 0.05)
    pen.arc(0, 0.98, 0.12, 0.12, 0, 360, tone(c, -0.25), 0.07)
    pen.shape([(-0.24, 0.62), (-0.12, 0.62), (-0.2, 0.26), (-0.34, 0.26)], tone(c, 0.4))


def pumpkin(pen: Pen, c: Colour) -> None:
    pen.oval(-0.32, 0.38, 0.24, 0.34, tone(c, -0.18))
    pen.oval(0.32, 0.38, 0.24, 0.34, tone(c, -0.18))
    pen.oval(-0.17, 0.38, 0.24, 0.38, c)
    pen.oval(0.17, 0.38, 0.24, 0.38, c)
    pen.oval(0, 0.38, 0.19, 0.38, tone(c, 0.2))
    pen.line([(0, 0.72), (0.08, 0.98)], tone(LEAF, -0.2), 0.1)


# --- furniture -----------------------------------------------------------------------------------


def table(pen: Pen, c: Colour) -> None:
    for x in (-0.66, 0.56):
        pen.box(x, 0, x + 0.1, 0.9, tone(c, -0.2))
    pen.box(-0.62, 0.74, 0.62, 0.86, tone(c, -0.35))
    pen.box(-0.8, 0.86, 0.8, 1.0, c, 0.03)
    pen.box(-0.8, 0.95, 0.8, 1.0, tone(c, 0.3), 0.02)


def desk(pen: Pen, c: Colour) -> None:
    pen.box(-0.72, 0, -0.62, 0.9, tone(c, -0.3))
    pen.box(0.38, 0, 0.78, 0.88, tone(c, -0.12))
    for bottom in (0.06, 0.34, 0.62):
        pen.box(0.42, bottom, 0.74, bottom + 0.22, tone(c, 0.2), 0.02)
        pen.box(0.53, bottom + 0.09, 0.63, bottom + 0.13, DARK)
    pen.box(-0.82, 0.87, 0.82, 1.0, c, 0.02)


def chair(pen: Pen, c: Colour) -> None:
    for x in (-0.52, 0.42):
        pen.box(x, 0, x + 0.1, 2.0, tone(c, -0.25))
    for bottom in (1.3, 1.55, 1.8):
        pen.box(-0.5, bottom, 0.5, bottom + 0.14, tone(c, -0.1), 0.04)
    pen.box(-0.6, 0.88, 0.6, 1.0, c, 0.04)
    pen.box(-0.6, 0.96, 0.6, 1.0, tone(c, 0.3), 0.02)


def stool(pen: Pen, c: Colour) -> None:
    pen.line([(-0.38, 0.9), (-0.58, 0)], tone(c, -0.3), 0.1)
    pen.line([(0.38, 0.9), (0.58, 0)], tone(c, -0.3), 0.1)
    pen.oval(0, 0.92, 0.56, 0.12, tone(c, -0.2))
    pen.oval(0, 0.97, 0.56, 0.11, tone(c, 0.15))


def bench(pen: Pen, c: Colour) -> None:
    for x in (-0.8, 0.68):
        pen.box(x, 0, x + 0.12, 0.9, DARK)
        pen.box(x + 0.02, 0.9, x + 0.1, 1.66, DARK)
    for bottom in (1.2, 1.44):
        pen.box(-0.92, bottom, 0.92, bottom + 0.16, tone(c, -0.12), 0.03)
    pen.box(-0.95, 0.88, 0.95, 1.0, c, 0.03)


def bed(pen: Pen, c: Colour) -> None:
    pen.box(-1.02, 0, -0.9, 1.56, WOOD, 0.03)
    pen.box(0.9, 0, 1.02, 1.2, WOOD, 0.03)
    pen.box(-0.95, 0.76, 0.95, 0.86, tone(WOOD, -0.25))
    pen.box(-0.92, 0.84, 0.92, 1.0, LIGHT, 0.06)
    pen.box(-0.3, 0.82, 0.92, 1.02, c, 0.06)
    pen.box(-0.88, 0.98, -0.46, 1.14, tone(c, 0.7), 0.07)


def shelf(pen: Pen, c: Colour) -> None:
    for x in (-0.68, 0.58):
        pen.box(x, 0, x + 0.1, 1.0, tone(c, -0.2))
    pen.box(-0.74, 0.88, 0.74, 1.0, c)
    pen.line([(-0.6, 0.86), (-0.44, 0.7)], tone(c, -0.35), 0.06)
    pen.line([(0.6, 0.86), (0.44, 0.7)], tone(c, -0.35), 0.06)
    pen.box(-0.68, 0.02, 0.68, 0.1, tone(c, -0.1))


def trolley(pen: Pen, c: Colour) -> None:
    for x in (-0.62, 0.54):
        pen.box(x, 0.12, x + 0.08, 1.0, (150, 152, 160))
        pen.oval(x + 0.04, 0.1, 0.11, 0.11, DARK)
        pen.oval(x + 0.04, 0.1, 0.04, 0.04, LIGHT)
    pen.line([(0.58, 0.9), (0.86, 1.5), (1.04, 1.5)], (150, 152, 160), 0.08)
    pen.box(-0.74, 0.86, 0.74, 1.0, c, 0.06)


SMALL: dict[str, Callable[[Pen, Colour], None]] = {
    draw.__name__: draw
    for draw in (
        apple,
        ball,
        bell,
        book,
        boot,
        bottle,
        bowl,
        bucket,
        cactus,
        candle,
        clock,
        drum,
        duck,
        gift,
        hat,
        lamp,
        mug,
        pear,
        pumpkin,
        vase,
    )
}


@dataclass(frozen=True)
class Furniture:
    """Furniture that an object can be on or under. The seat has the height 1 and the width
    2 ``half``; ``on`` and ``under`` are the x of an object on or under it."""

    draw: Callable[[Pen, Colour], None]
    half: float
    under: float = 0.0
    on: float = 0.0


FURNITURE = {
    "bed": Furniture(bed, 1.02),
    "bench": Furniture(bench, 0.95),
    "chair": Furniture(chair, 0.6),
    "desk": Furniture(desk, 0.82, under=-0.12, on=-0.12),
    "shelf": Furniture(shelf, 0.74),
    "stool": Furniture(stool, 0.58),
    "table": Furniture(table, 0.8),
    "trolley": Furniture(trolley, 0.74),
}

COLOURS: dict[str, Colour] = {
    "red": (205, 60, 55),
    "orange": (232, 134, 52),
    "yellow": (238, 194, 64),
    "green": (98, 160, 84),
    "teal": (52, 148, 148),
    "blue": (66, 112, 190),
    "purple": (130, 88, 168),
    "pink": (224, 124, 160),
    "brown": (142, 94, 66),
    "grey": (140, 142, 148),
}


# --- rooms ---------------------------------------------------------------------------------------

WALLS: tuple[Colour, ...] = (
    (236, 228, 214),
    (214, 226, 232),
    (226, 234, 216),
    (240, 222, 216),
    (226, 220, 236),
    (244, 236, 204),
    (208, 218, 216),
    (232, 232, 232),
)
FLOORS: tuple[Colour, ...] = (
    (176, 136, 98),
    (146, 112, 84),
    (200, 168, 130),
    (170, 164, 158),
    (126, 128, 134),
    (188, 160, 140),
    (150, 158, 140),
    (206, 190, 168),
)
PATTERNS = ("plain", "stripes", "dots", "window", "picture")


def room(
    size: int, horizon: float, wall: Colour, floor: Colour, pattern: str, shift: float
) -> Image.Image:
    """A wall above a floor or table top.

    They meet at ``horizon``, in 0..1 from the top. ``shift`` in 0..1 moves the wall decoration.
    """
    image = Image.new("RGB", (size, size))
    edge = round(size * horizon)
    image.paste(_gradient(tone(wall, 0.25), tone(wall, -0.06)).resize((size, edge)), (0, 0))
    image.paste(
        _gradient(tone(floor, -0.12), tone(floor, 0.18)).resize((size, size - edge)), (0, edge)
    )
    draw = ImageDraw.Draw(image)
    mark = tone(wall, -0.07)
    if pattern == "stripes":
        step = size // 9
        for x in range(round(shift * step) - step, size, step):
            draw.rectangle((x, 0, x + step // 3, edge - 1), fill=tone(wall, 0.05))
    elif pattern == "dots":
        step = size // 8
        for row, y in enumerate(range(step // 2, edge - step // 4, step)):
            for x in range(round(shift * step) + (row % 2) * step // 2 - step, size, step):
                draw.ellipse((x, y, x + step // 6, y + step // 6), fill=mark)
    elif pattern in ("window", "picture"):
        _on_the_wall(draw, size, edge, pattern, wall, shift)
    draw.rectangle((0, edge - size // 64, size, edge), fill=tone(wall, -0.22))
    return image


def _on_the_wall(
    draw: ImageDraw.ImageDraw, size: int, edge: int, kind: str, wall: Colour, shift: float
) -> None:
    width, height = size * 0.24, edge * 0.42
    x, y = (0.04 + 0.68 * shift) * size, edge * 0.12
    frame = max(2, size // 70)
    draw.rectangle((x, y, x + width, y + height), fill=tone(wall, -0.32))
    inner = (x + frame, y + frame, x + width - frame, y + height - frame)
    draw.rectangle(inner, fill=(196, 222, 238) if kind == "window" else tone(wall, 0.4))
    if kind == "window":
        draw.rectangle(
            (x + width / 2 - 1, y, x + width / 2 + 1, y + height), fill=tone(wall, -0.32)
        )
    else:
        base = y + height - frame
        hill = [(inner[0], base), (x + width * 0.4, y + height * 0.4), (x + width * 0.75, base)]
        draw.polygon(hill, fill=tone(wall, -0.18))


@cache
def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    column = Image.new("RGB", (1, 64))
    for y in range(64):
        share = y / 63
        column.putpixel(
            (0, y), tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        )
    return column


@cache
def _soft_spot() -> Image.Image:
    """A round spot, darkest in the middle (102, which is 40% of 255)."""
    return Image.radial_gradient("L").point(
        [max(0, 102 - level * 102 // 180) for level in range(256)]
    )


def shadow(image: Image.Image, x: float, y: float, half: float) -> None:
    """Darken the ground around (x, y), ``half`` pixels to each side."""
    width, height = max(2, round(2 * half)), max(2, round(0.5 * half))
    mask = _soft_spot().resize((width, height))
    image.paste((30, 24, 30), (round(x - width / 2), round(y - height / 2)), mask)

"""Labels of points that overlap no other label and no marker; a number where there is no place."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

SIZE = 7  # of a label's letters, points
MARKER = 5.5  # a marker's height and width, points
GAP = 1.0  # around every box, points
NEAR, FAR = 4.0, 90.0  # points between a marker's middle and a label; farther ones have a line


class Box(NamedTuple):
    """A rectangle, in points."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: "Box") -> bool:
        across = self.x0 < other.x1 and other.x0 < self.x1
        return across and self.y0 < other.y1 and other.y0 < self.y1

    def contains(self, other: "Box") -> bool:
        across = self.x0 <= other.x0 and other.x1 <= self.x1
        return across and self.y0 <= other.y0 and other.y1 <= self.y1

    def padded(self, by: float) -> "Box":
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)


class Point(NamedTuple):
    """A marker: its place in data, its label and colour, and the ends of its bar in y, if any."""

    x: float
    y: float
    label: str
    colour: str = "black"
    bar: tuple[float, float] | None = None


def around(x: float, y: float, width: float, height: float, distance: float) -> Iterator[Box]:
    """Yield the places of a label around a point: right and left first, then above and below."""
    for angle in (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90):
        cos, sin = (round(f(math.radians(angle)), 9) for f in (math.cos, math.sin))
        # The box's nearest corner or side is at the distance.
        left = x + distance * cos - width * (0.5 - 0.5 * (cos > 0) + 0.5 * (cos < 0))
        low = y + distance * sin - height * (0.5 - 0.5 * (sin > 0) + 0.5 * (sin < 0))
        yield Box(left, low, left + width, low + height)


def first_free(places: Iterable[Box], inside: Box, taken: Sequence[Box]) -> Box | None:
    """Return the first place that is inside and overlaps nothing that is taken."""
    for place in places:
        padded = place.padded(GAP)
        if inside.contains(padded) and not any(padded.overlaps(box) for box in taken):
            return place
    return None


def label_points(panels: dict[Axes, list[Point]]) -> list[int]:
    """Label the points of axes whose limits stay; return the places of those that got a number.

    panels: the same points, in the same order, in each. A label is tried around its point, nearest
    places first, where no label, marker or bar is. A point whose label has no place in one of the
    panels is numbered in all, from 1 in the order returned; a number may lie on a bar, and farther
    away it has a line to its point. One that has no place either is not drawn.
    """
    found: dict[Axes, dict[int, Box]] = {ax: {} for ax in panels}
    left = set()
    for ax, points in panels.items():
        room = _Room(ax, points)
        for place, point in enumerate(points):
            if box := room.take(point, point.label, NEAR, 2 * NEAR, bars=True):
                found[ax][place] = box
            else:
                left.add(place)
    numbered = sorted(left)
    for ax, points in panels.items():
        room = _Room(ax, points)
        named = [place for place in range(len(points)) if place not in left]
        room.taken += [found[ax][place] for place in named]
        for place in named:
            room.write(points[place], points[place].label, found[ax][place])
        for number, place in enumerate(numbered, start=1):
            point, text = points[place], str(number)
            box = room.take(point, text, NEAR, 3 * NEAR, bars=True)
            if box := box or room.take(point, text, NEAR, FAR, bars=False):
                room.write(point, text, box)
    return numbered


class _Room:
    """What is taken in axes, in points from the figure's lower left."""

    def __init__(self, ax: Axes, points: Sequence[Point]) -> None:
        self.ax = ax
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        self._scale = 72 / figure.dpi
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self.inside = Box(*(float(edge) * self._scale for edge in ax.get_window_extent().extents))
        self.taken = [Box(*self._at(p), *self._at(p)).padded(MARKER / 2) for p in points]
        self.bars = [
            Box(*self._at(p, p.bar[0]), *self._at(p, p.bar[1])).padded(0.5) for p in points if p.bar
        ]

    def _at(self, point: Point, y: float | None = None) -> tuple[float, float]:
        x, y = self.ax.transData.transform((point.x, point.y if y is None else y)) * self._scale
        return float(x), float(y)

    def _size(self, text: str) -> tuple[float, float]:
        drawn = Text(0, 0, text, fontsize=SIZE, parse_math=False, figure=self.ax.get_figure())
        extent = drawn.get_window_extent(self._renderer)
        return extent.width * self._scale, extent.height * self._scale

    def take(self, point: Point, text: str, near: float, far: float, *, bars: bool) -> Box | None:
        """Return a free place for a point's text, which is then taken, None where there is none."""
        x, y = self._at(point)
        distances = [near + step for step in range(0, int(far - near) + 1, 2)]
        places = (box for d in distances for box in around(x, y, *self._size(text), d))
        box = first_free(places, self.inside, self.taken + self.bars * bars)
        if box:
            self.taken.append(box)
        return box

    def write(self, point: Point, text: str, box: Box) -> None:
        """Write a text at a place, with a line to its point where it is far."""
        x, y = self._at(point)
        style: dict[str, Any] = {"fontsize": SIZE, "parse_math": False, "va": "bottom"}
        # Darker than its marker, because thin letters look paler.
        style["color"] = [0.7 * part for part in to_rgb(point.colour)]
        if max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1) > 2 * NEAR:
            line = {"arrowstyle": "-", "lw": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 2}
            style["arrowprops"] = line
        offset = (box.x0 - x, box.y0 - y)
        self.ax.annotate(text, (point.x, point.y), offset, textcoords="offset points", **style)

"""The style of all pictures, and their SVG: small, safe and deterministic.

Covers: distinguishing runs, matplotlib's settings, cleaning matplotlib's SVG. Text remains text, so that it can be read
aloud, searched and shown in the reader's font. The file loads nothing and contains no date and no random name.
Not here: what is drawn (the other files of this folder).
"""

import io
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.typing import LineStyleType

from core.reports.text import cut, one_line

WIDTH = 720.0
"""Width of every picture in points (1/72 inch), the unit of all sizes here."""
INK, SOFT, LINE, PAPER = "#1d2430", "#5a6474", "#dde2ea", "#ffffff"
BASE_COLOUR = "#a9b1bd"
COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#56b4e9", "#009e73")
"""Colours of Okabe and Ito's palette, which is safe for colour blindness. Neighbours differ by at least 11 in lightness
(CIE L*, 0 to 100), so that they also differ in grey."""
_INLINE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES: tuple[LineStyleType, ...] = (
    "-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (7, 1.6, 1.2, 1.6)), (0, (3, 1.2)), (0, (9, 2)), (0, (1.2, 2.6)),
    (0, (5, 1.4, 1.2, 1.4, 1.2, 1.4)), (0, (2, 2)),
)  # fmt: skip
_HATCHES = ("", "////", "\\\\\\\\", "xxx", "----", "|||", "++", "//", "--")
_LABEL = 48
_ALT = 2000
_STYLE = {
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "font.size": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "securetune",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
}
_NOISE = re.compile(r"<(metadata|style)\b.*?</\1>|(?<=>)\s+(?=<)", re.DOTALL)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
_ID_USE = re.compile(r"(?<=url\(#)[\w-]+|(?<=^#)[\w-]+")
_ID_ATTRIBUTES = ("href", "style", "clip-path")
_BOX = re.compile(r"M (\S+) (\S+) L (\S+) \2 L \3 (\S+) L \1 \4 (?:L \1 \2 )?z")
_FONT = re.compile(r" ?font-family:[^;]*;?")


@dataclass(frozen=True)
class Picture:
    """A picture with its texts."""

    name: str
    """Short name; every id in the file starts with it."""
    title: str
    """Title."""
    caption: str
    """Explanation with units, n and intervals."""
    alt: str
    """The figures in words, for screen readers."""
    svg: str
    """Content of the SVG file."""

    @property
    def inline(self) -> str:
        """The picture for an HTML page. It uses the colours of the page, so it follows the dark theme."""
        markup = self.svg.partition("\n")[2].replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
        for colour, variable in _INLINE.items():
            markup = markup.replace(colour, variable)
        return markup


@dataclass(frozen=True)
class Style:
    """How one run is drawn. Each of the four properties differs from that of its neighbours."""

    colour: str
    dashes: LineStyleType
    marker: str
    hatch: str


def styles(runs: Sequence[str]) -> dict[str, Style]:
    """The style of each run; the first is the base model."""
    tuned = map(Style, cycle(COLOURS), cycle(_DASHES), cycle(_MARKERS), cycle(_HATCHES))
    return {runs[0]: Style(BASE_COLOUR, "-", "o", ""), **dict(zip(runs[1:], tuned, strict=False))}


def label(text: str) -> str:
    """Text from a job for a picture: one line, limited in length, and not interpreted by matplotlib."""
    shown = cut(one_line(text), _LABEL)
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib hides labels that start with an underscore


def count(numbers: Sequence[int]) -> str:
    """`n = 40`, or `n = 38 to 40` if the numbers differ."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


@contextmanager
def picture_style() -> Generator[None]:
    """Use the style of all pictures, independent of the settings of this machine."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # Such characters are drawn with the reader's font; matplotlib only estimates their width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(height: float) -> Figure:
    """An empty picture; height in points."""
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")


def plain_numbers(axes: Axes, *, along: Literal["x", "y"], log: bool = False, whole: bool = False) -> None:
    """Use plain numbers as ticks. Matplotlib's own may contain math markup, which is disabled here."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axis.minorticks_off()
    else:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=whole))
    axis.set_major_formatter("{x:.6g}")


def legend(figure: Figure, axes: Axes) -> None:
    """Draw a legend of everything in `axes` that has a label above the picture."""
    handles, texts = axes.get_legend_handles_labels()
    lengths = [len(text) for text in texts]
    fits = sum(60 + 6.2 * length for length in lengths) < WIDTH
    columns = len(handles) if fits else max(1, int(WIDTH / (60 + 6.2 * max(lengths, default=1))))
    by_column = [handle for column in range(columns) for handle in handles[column::columns]]  # matplotlib's order
    figure.legend(handles=by_column, loc="outside upper left", ncols=columns, fontsize=11)


def save(figure: Figure, *, name: str, title: str, caption: str, alt: str) -> Picture:
    """Save a figure as self-contained SVG."""
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    alt = cut(one_line(alt), _ALT)
    return Picture(name, title, caption, alt, _clean(file.getvalue(), name, title, alt))


def _clean(svg: str, name: str, title: str, alt: str) -> str:
    """Remove namespaces, metadata, style sheets, unused ids and long numbers; add a title and a description."""
    root = ElementTree.fromstring(_NOISE.sub("", svg))  # noqa: S314 - matplotlib wrote it
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            if value.startswith("rotate(-0 "):
                continue
            element.set(key.rpartition("}")[2], _shorten(" ".join(value.split())))
    _rename_ids(root, name)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-alt",
        "style": "stroke-linejoin:round;font-family:sans-serif",
    }
    for place, (tag, text, key) in enumerate((("title", title, f"{name}-title"), ("desc", alt, f"{name}-alt"))):
        element = ElementTree.Element(tag, {"id": key})
        element.text = text
        root.insert(place, element)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _shorten(value: str) -> str:
    """Use fewer digits, short paths for boxes, and no list of fonts."""
    value = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), value)
    value = _BOX.sub(r"M\1 \2H\3V\4H\1z", value)
    return _FONT.sub("", value).replace(": ", ":").replace("; ", ";")


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Rename ids in use after the picture, and remove all others."""
    used: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return used.setdefault(match[0], f"{name}-{len(used)}")

    for element in root.iter():
        for key in _ID_ATTRIBUTES:
            if key in element.attrib:
                element.set(key, _ID_USE.sub(rename, element.attrib[key]))
    for element in root.iter():
        known = element.attrib.pop("id", None)
        if known in used:
            element.set("id", used[known])

"""The paper that pictures are drawn on: one look for all of them, and SVG that is small, safe and the same every time.

Covers: how series are told apart, the style, what becomes of matplotlib's SVG. Text stays text, so that it can be
read aloud, searched and set in the reader's own font; nothing is loaded; no date and no random name is in the file.
Not here: what is drawn (the other files of this folder).
"""

import io
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from core.reports.text import cut, one_line

WIDTH = 720.0
"""Width of every picture, in points of 1/72 inch: the unit of all sizes here."""
INK, SOFT, LINE, PAPER = "#1d2430", "#5a6474", "#dde2ea", "#ffffff"
BASE_COLOUR = "#a9b1bd"
COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#56b4e9", "#009e73")
"""Of Okabe and Ito's palette, which eyes of every kind tell apart, in an order in which neighbours differ by at least
11 in lightness (CIE L*, of 100), so that they differ in grey too."""
_INLINE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES = (
    (),
    (5, 1.6),
    (1.2, 1.4),
    (7, 1.6, 1.2, 1.6),
    (3, 1.2),
    (9, 2),
    (1.2, 2.6),
    (5, 1.4, 1.2, 1.4, 1.2, 1.4),
    (2, 2),
)
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
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
_USED = re.compile(r"(?<=url\(#)[\w-]+|(?<=^#)[\w-]+")
_REFER = frozenset(("href", "style", "clip-path"))
_BOX = re.compile(r"M (\S+) (\S+) L (\S+) \2 L \3 (\S+) L \1 \4 (?:L \1 \2 )?z")
_FONT = re.compile(r" ?font-family:[^;]*;?")


Dash = Literal["-", "none"] | tuple[float, tuple[float, ...]]
Form = Literal["bar", "line", "point"]


@dataclass(frozen=True)
class Picture:
    """A picture as a file of its own, with what it shows in words."""

    name: str
    """Short name, and the beginning of every id in it."""
    title: str
    """What it shows."""
    caption: str
    """How to read it: units, n and intervals."""
    alt: str
    """What can be seen in it, for those who cannot see it."""
    svg: str
    """The file."""

    @property
    def inline(self) -> str:
        """The same inside an HTML page, in the page's own colours, so that it turns dark with it."""
        found = self.svg.partition("\n")[2].replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
        for colour, variable in _INLINE.items():
            found = found.replace(colour, variable)
        return found


@dataclass(frozen=True)
class Style:
    """How one arm is drawn: each of the four tells it from its neighbours, so that none has to alone."""

    colour: str
    dashes: tuple[float, ...]
    marker: str
    hatch: str

    @property
    def dash(self) -> Dash:
        """The line's dashes as matplotlib takes them."""
        return (0.0, self.dashes) if self.dashes else "-"


def styles(runs: Sequence[str]) -> dict[str, Style]:
    """The style of each arm; the first is the base model."""
    found = {runs[0]: Style(BASE_COLOUR, (), "o", "")}
    for number, run in enumerate(runs[1:]):
        at = number % len(_MARKERS)
        found[run] = Style(COLOURS[number % len(COLOURS)], _DASHES[at], _MARKERS[at], _HATCHES[at])
    return found


def words(text: str) -> str:
    """A job's text as it may stand in a picture: one line, not too long, and none of it a command."""
    shown = cut(one_line(text), _LABEL)
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib leaves labels out that begin with it


def percent(rate: float) -> str:
    """A rate in percent, with a digit behind the point where it says something."""
    return f"{100 * rate:.1f}".removesuffix(".0") + " %"


def count(numbers: Sequence[int]) -> str:
    """`n = 40`, or `n = 38 to 40` where they differ."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


@contextmanager
def drawing() -> Generator[None]:
    """The style of all pictures, whatever this machine's own settings are."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # Only the width of such letters is guessed: the reader's own font draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty picture of so many points."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def plain_numbers(axes: Axes, *, along: Literal["x", "y"], log: bool = False, whole: bool = False) -> None:
    """Ticks in plain numbers: matplotlib's own may be mathematics, which nothing is read as here."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(LogLocator(subs=(), numticks=2))
    else:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(_number))
    axis.set_minor_formatter(FuncFormatter(_nothing))


def legend(figure: Figure, shown: dict[str, Style], *, form: Form) -> None:
    """Which arm is which, above the picture; `form` is `bar`, `line` or `point`."""
    handles = [_handle(words(run), style, form) for run, style in shown.items()]
    lengths = [len(words(run)) for run in shown]
    fits = sum(60 + 6.2 * length for length in lengths) < WIDTH
    columns = len(handles) if fits else max(1, int(WIDTH / (60 + 6.2 * max(lengths, default=1))))
    by_column = [handle for column in range(columns) for handle in handles[column::columns]]  # matplotlib's order
    figure.legend(handles=by_column, loc="outside upper left", ncols=columns, fontsize=11)


def saved(figure: Figure, *, name: str, title: str, caption: str, alt: str) -> Picture:
    """The figure as SVG that needs nothing else."""
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    alt = cut(one_line(alt), _ALT)
    return Picture(name, title, caption, alt, _cleaned(file.getvalue(), name, title, alt))


def _number(value: float, _position: object = None) -> str:
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def _nothing(_value: float, _position: object = None) -> str:
    return ""


def _handle(label: str, style: Style, form: Form) -> Artist:
    if form == "bar":
        return Patch(facecolor=style.colour, edgecolor=INK, linewidth=0.7, hatch=style.hatch, label=label)
    line: Dash = style.dash if form == "line" else "none"
    return Line2D(
        [], [], color=style.colour, linestyle=line, linewidth=2, marker=style.marker, markeredgecolor=INK,
        markeredgewidth=0.7, markersize=7, label=label,
    )  # fmt: skip


def _cleaned(svg: str, name: str, title: str, alt: str) -> str:
    """Without namespaces, metadata, style sheets, unused ids and long numbers; with a title and a description."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - see above
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = _kept(element.text), _kept(element.tail)
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            if value.startswith("rotate(-0 "):
                continue
            element.set(key.rpartition("}")[2], _shortened(" ".join(value.split())))
    _without(root, ("metadata", "style"))
    _renamed(root, name)
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


def _kept(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _shortened(value: str) -> str:
    """Fewer digits, boxes by their corners, and no list of fonts: the reader's own is meant."""
    value = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), value)
    value = _BOX.sub(r"M\1 \2H\3V\4H\1z", value)
    return _FONT.sub("", value).replace(": ", ":").replace("; ", ";")


def _without(root: ElementTree.Element, tags: Sequence[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in tags:
                parent.remove(child)


def _renamed(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to are called by the picture, and all others are dropped."""
    used: dict[str, str] = {}
    for element in root.iter():
        for key in _REFER & element.attrib.keys():
            for found in _USED.findall(element.attrib[key]):
                used.setdefault(found, f"{name}-{len(used)}")
    for element in root.iter():
        known = element.attrib.pop("id", None)
        if known in used:
            element.set("id", used[known])
        for key in _REFER & element.attrib.keys():
            element.set(key, _USED.sub(lambda found: used.get(found[0], found[0]), element.attrib[key]))

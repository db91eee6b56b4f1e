"""How every figure looks, and its bytes: the same drawing gives the same file. matplotlib is loaded late; no torch.

One colour and one marker a method in all figures: colours of Okabe and Ito (2008), which the colour-blind can tell
apart; markers and dashes tell them apart in grey. A modality alone is grey: it is a yardstick, not a rival.
"""

from __future__ import annotations

import importlib.util
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

HOW = "pip install 'clcr-bench[figures]'"
WIDTH = 7.2  # inches: two columns of a journal's page
LONGEST = 30
INK, SOFT, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
TITLE, LINE = 0.3, 0.125  # inches of a title, and of a line of notes
NOTE = 6.8  # points of a letter of a note
COLOURS = 256
# Beside matplotlib's defaults, so that nobody's own settings change a figure. Letters are drawn as paths of the font
# that matplotlib brings along; "$" in a name is a "$".
STYLE: Mapping[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.3,
    "text.color": INK,
    "text.parse_math": False,
    "savefig.dpi": 110,
    "svg.fonttype": "path",
    "svg.hashsalt": "clcr-bench",
    "path.simplify": False,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn. dash: as matplotlib's (offset, lengths); width in points; filled: its marker."""

    colour: str
    marker: str
    dash: tuple[int, tuple[float, ...]] = (0, ())
    width: float = 1.3


_METHODS: Mapping[str, Look] = {
    "clcr": Look("#D55E00", "D", width=2.0),
    "late_fusion": Look("#0072B2", "o", (0, (5, 1.5))),
    "ogm_ge": Look("#009E73", "s", (0, (3, 1, 1, 1))),
    "misa": Look("#CC79A7", "^", (0, (1.2, 1.2))),
    "linear": Look("#E69F00", "P", (0, (6, 2, 1, 2))),
}
_MODALITIES: Mapping[str, Look] = {
    "audio": Look("#3d3d3d", "<", (0, (1, 2)), 1.0),
    "language": Look("#8c8c8c", "v", (0, (4, 3)), 1.0),
    "vision": Look("#666666", ">", (0, (2, 1)), 1.0),
    "rgb": Look("#666666", ">", (0, (2, 1)), 1.0),
    "image": Look("#666666", ">", (0, (2, 1)), 1.0),
    "flow": Look("#a3a3a3", "v", (0, (4, 3)), 1.0),
}
_OTHERS = (
    Look("#56B4E9", "X", (0, (7, 2))),
    Look("#8C6D1F", "p", (0, (2, 2))),
    Look("#5B3A8E", "h", (0, (5, 1, 1, 1, 1, 1))),
    Look("#A8A000", "*", (0, (3, 3))),
)


def look(method: str) -> Look:
    """The look of a method of the table, of a modality alone, or of any other name: always the same one."""
    if method in _METHODS:
        return _METHODS[method]
    for row in METHODS.values():
        if row.per_modality and (method == row.name or method.startswith(f"{row.name}_")):
            return _MODALITIES.get(method.removeprefix(f"{row.name}_"), Look("#777777", "d", (0, (1, 1)), 1.0))
    return _OTHERS[zlib.crc32(method.encode("utf-8", "backslashreplace")) % len(_OTHERS)]


def lacking() -> str:
    """What is missing here to draw figures and how to get it, in one line; "" where nothing is."""
    return "" if importlib.util.find_spec("matplotlib") else f"matplotlib is not installed; {HOW}"


@contextmanager
def style() -> Iterator[None]:
    """The suite's style and nothing of the user's, for as long as it lasts."""
    from matplotlib.style import context

    with context(["default", dict(STYLE)]):
        yield


def page(height: float, width: float = WIDTH, gap: float = 0.06) -> Figure:
    """An empty figure, in inches as is the ``gap`` beside its panels, without a window system."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=gap, h_pad=0.04, hspace=0.02, wspace=0.02)
    return Figure(figsize=(width, height), layout=layout)


def title(figure: Figure, text: str, notes: tuple[str, ...]) -> None:
    """The title above, and below what a reader must know to read it; the figure grows by as much."""
    lines = [line for note in notes for line in _wrapped(note, 72 * (figure.get_figwidth() - 0.15))]
    figure.set_figheight(figure.get_figheight() + TITLE + LINE * len(lines))
    figure.suptitle(text, x=0.008, ha="left", fontsize=9.5, fontweight="bold")
    figure.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=NOTE, color=SOFT, linespacing=1.25)


def _wrapped(text: str, points: float) -> list[str]:
    """The text in lines that are no wider; a word that is wider has a line of its own."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font, lines = FontProperties(size=NOTE), list[str]()
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0] > points:
            lines.append(f"  {word}")
        else:
            lines[-1:] = [longer]
    return lines


def name(text: str, most: int = LONGEST) -> str:
    """A name on one line of at most so many letters, what is left out marked by an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def keys(looks: Mapping[str, Look]) -> list[Line2D]:
    """Handles of a legend: label -> look."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=found.colour, marker=found.marker, linestyle="", markersize=5, label=name(label))
        for label, found in looks.items()
    ]


def rows(axes: Axes, labels: list[str]) -> None:
    """One labelled row for each name from the top, with a faint line in each."""
    axes.set_yticks(range(len(labels)), labels=[name(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def plain_log(axes: Axes, which: str) -> None:
    """Make axis "x" or "y" logarithmic, with few ticks, at 1, 2 and 5 times powers of ten, spelt 0.5, 20, 5k, 1M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: _amount(x)))


def _amount(x: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def save(figure: Figure, suffix: str) -> bytes:
    """A figure as "svg", "png" or "pdf": no date, no version, so that equal figures are equal bytes.

    svg: coordinates to a tenth of a point, so that what processors round otherwise seldom shows;
    png: the 256 colours that are seen most, a third of the size.
    """
    buffer = io.BytesIO()
    empty: dict[str, dict[str, None]] = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    figure.savefig(buffer, format=suffix, metadata=empty[suffix])
    if suffix == "svg":
        return _small_svg(buffer.getvalue().decode()).encode()
    return _small_png(buffer) if suffix == "png" else buffer.getvalue()


def _small_svg(text: str) -> str:
    text = re.sub(r"-?\d+\.\d{2,}", lambda found: _short(float(found[0])), re.sub(r"<!--.*?-->", "", text, flags=re.S))
    text = re.sub(r'(?<= d=")[^"]*', lambda found: _short_path(found[0]), text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    names = dict.fromkeys(re.findall(r'(?<= id=")[mp][0-9a-f]{10}(?=")', text))  # of unrounded coordinates
    for place, name in enumerate(names):
        text = text.replace(name, f"i{place}")
    text = text.replace("DejaVuSans-Bold-", "b").replace("DejaVuSans-", "r")
    text = re.sub(r'(href="#[br]\w+") transform="translate\((\S+) 0\)"', r'\1 x="\2"', text)
    return re.sub(r"\s*\n\s*", "\n", text)


def _short_path(path: str) -> str:
    """A path whose lines need no letter where they follow a move or a line; behind a curve they keep it."""
    found, before = list[str](), ""
    for part in path.split("\n"):
        command = part[:1]
        found.append(part[1:] if command == "L" and before in ("M", "L") else f"\n{part}")
        before = command
    return "".join(found).strip()


def _short(value: float) -> str:
    if abs(value) < 0.1:
        return f"{value:.4g}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")


def _small_png(buffer: io.BytesIO) -> bytes:
    """The picture with a palette: the colours that most pixels have, each other one as the nearest of them."""
    from PIL import Image

    with Image.open(buffer) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int32)
    codes, place, counts = np.unique(pixels @ (65536, 256, 1), return_inverse=True, return_counts=True)
    colours = np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=1)
    palette = colours[np.argsort(-counts, kind="stable")[:COLOURS]]
    nearest = np.array([np.argmin(((palette - colour) ** 2).sum(axis=1)) for colour in colours], dtype=np.uint8)
    flat = Image.fromarray(nearest[place].reshape(pixels.shape[:2]), mode="P")
    flat.putpalette(palette.astype(np.uint8).tobytes())
    small = io.BytesIO()
    flat.save(small, format="png", optimize=True)
    return small.getvalue()

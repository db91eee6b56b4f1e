"""Tables as LaTeX that needs booktabs and nothing else, and fits the line of a plain article (345 pt, 10 pt letters).

Widths are reckoned with the letters of Computer Modern. A table too wide for the line takes smaller letters, and then
is set in several blocks under each other that repeat the first column; one too tall for a page goes on in the next.
Names may come from anyone: no letter of them has a meaning to TeX.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.report.layout import DATA, MADE, Section, Table, blocks, numeric

LINE, PAGE = 345.0, 520.0  # points: the line of a 10 pt article, and what a page takes beside its caption
LONGEST = 105.0  # points of a column of words, which is broken beyond
GAP = 6.0  # points between columns, twice \tabcolsep
UNBROKEN = 20  # letters of a word that stays whole
SAME = "()*+,./:;=?@!"
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "`": r"\`{}",
    "'": "'{}",
    "-": "-{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    **dict(
        zip("ßøØæÆœŒłŁ", (rf"\{name}{{}}" for name in ("ss", "o", "O", "ae", "AE", "oe", "OE", "l", "L")), strict=True)
    ),
}
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)
# Widths of cmr10 in ems; what is not named is as wide as an average letter.
_WIDTHS = {
    **dict.fromkeys("0123456789aogny/", 0.5),
    **dict.fromkeys("il.,:;!'|[]", 0.278),
    **dict.fromkeys("bdhpukxvq", 0.55),
    **dict.fromkeys("cezstrfj-", 0.42),
    **dict.fromkeys("()", 0.389),
    **dict.fromkeys("mwMW%", 0.95),
    **dict.fromkeys("±−<>=+&@×", 0.78),
    **dict.fromkeys("†‡ ", 0.34),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ", 0.73),
    "—": 1.0,
}


@dataclass(frozen=True)
class Letters:
    """A size: its command, points of an em of cmr10 at it (small letters are wider), points from line to line."""

    command: str
    em: float
    line: float


SIZES = (Letters("small", 9.25, 11.0), Letters("footnotesize", 8.5, 9.5), Letters("scriptsize", 7.97, 8.0))
WORDS = SIZES[1]


def latex(table: Table) -> str:
    """A file to \\input: tables by section; the preamble needs booktabs."""
    lines = [f"% {table.title}. {MADE} Needs \\usepackage{{booktabs}}."]
    for data, title in DATA.items():
        lines += ["", f"% {title}"]
        if not table.parts.get(data):
            lines.append(f"% {table.empty[data]}")
        for section in table.parts.get(data, ()):
            lines += _section(section)
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is, on one line. A letter that a plain article has no sign for is named: U+4E2D."""
    return "".join(_letter(character) for character in " ".join(text.split()))


def _letter(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    if character.isascii() and (character.isalnum() or character in SAME or character == " "):
        return character
    base, *marks = tuple(unicodedata.normalize("NFD", character))
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"{{[}}U+{ord(character):04X}{{]}}"


def width(text: str) -> float:
    """Width of a text in ems of cmr10, about."""
    return sum(_WIDTHS.get(character, 0.58) for character in " ".join(text.split()))


def _breakable(text: str) -> str:
    """Escaped text; words too long for any column may be broken, behind a sign where they have one."""
    words = []
    for word in text.split():
        parts = re.findall(r"[^_/-]{1,12}[_/-]*|[_/-]{1,12}", word) if len(word) > UNBROKEN else [word]
        words.append(r"\allowbreak{}".join(escape_latex(part) for part in parts))
    return " ".join(words)


def _wrapped(text: str, ems: float) -> list[str]:
    """The text in lines of at most so many ems, where its words allow it."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > ems:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@dataclass(frozen=True)
class _Column:
    """ems: of its widest line; broken: whether its cells are paragraphs; heads: the lines of its title."""

    ems: float
    right: bool
    broken: bool
    heads: tuple[str, ...]


def _columns(section: Section, letters: Letters) -> list[_Column]:
    found = []
    for i, right in enumerate(numeric(section)):
        widest = max(width(row[i].text) * (1.15 if row[i].bold else 1.0) for row in section.rows)
        broken = not right and widest * letters.em > LONGEST
        cells = min(widest, LONGEST / letters.em) if broken else widest
        words = max((width(word) for word in section.columns[i].split()), default=0.0)
        heads = _wrapped(section.columns[i], max(cells, words))
        found.append(_Column(max(cells, *map(width, heads)), right, broken, tuple(heads)))
    return found


def _fit(section: Section) -> tuple[Letters, list[_Column], list[list[int]]]:
    """The largest letters at which all columns stand beside each other; else the least blocks of small letters."""
    for letters in SIZES:
        columns = _columns(section, letters)
        found = blocks([column.ems * letters.em for column in columns], LINE, GAP)
        if len(found) == 1 and sum(c.ems * letters.em + GAP for c in columns) - GAP <= LINE:
            return letters, columns, found
    letters = WORDS
    columns = _columns(section, letters)
    return letters, columns, blocks([column.ems * letters.em for column in columns], LINE, GAP)


def _section(section: Section) -> list[str]:
    title, facts = escape_latex(section.title), " ".join(section.facts)
    room = PAGE - _tall(facts)
    lines: list[str] = []
    if section.rows:
        letters, columns, found = _fit(section)
        pieces = [piece for block in found for piece in _pieces(section, letters, columns, block)]
    else:
        pieces = []
    bodies = [(height, "\n".join(text)) for height, text in pieces]
    bodies += [
        (_tall(note), rf"\par\smallskip{{\footnotesize\raggedright {_breakable(note)}\par}}") for note in section.notes
    ]
    said = rf"\par\smallskip{{\footnotesize\raggedright {_breakable(facts)}\par}}" if facts else ""
    used, first = 0.0, True
    for height, body in bodies or [(0.0, "")]:
        if first or used + height > room:
            if not first:
                lines += [r"\end{table}", r"\begin{table}[htbp]", r"\addtocounter{table}{-1}"]
                lines += [rf"\caption{{{title} (continued)}}", r"\centering"]
            else:
                lines += [r"\begin{table}[htbp]", rf"\caption{{{title}}}", said, r"\centering"]
            used, room, first = 0.0, room if first else PAGE, False
        lines.append(body)
        used += height
    return [*filter(None, lines), r"\end{table}"]


def _tall(text: str) -> float:
    """Points that a paragraph below a table takes."""
    return WORDS.line * (width(text) * WORDS.em // (0.93 * LINE) + 1) + 3


def _pieces(
    section: Section, letters: Letters, columns: Sequence[_Column], block: Sequence[int]
) -> Iterator[tuple[float, list[str]]]:
    """A block as one tabular, or several where it is taller than a page; each with its height in points."""
    head = letters.line * max(len(columns[i].heads) for i in block) + 15
    rows, used = list[str](), head
    for row in section.rows:
        lines = max(
            (-(-width(row[i].text) // (0.8 * columns[i].ems)) if columns[i].broken else 1 for i in block), default=1
        )
        if rows and used + lines * letters.line > PAGE - 60:
            yield used, _tabular(letters, columns, block, rows)
            rows, used = [], head
        rows.append(" & ".join(_cell(row[i].text, row[i].bold, columns[i], letters) for i in block) + r" \\")
        used += lines * letters.line
    yield used, _tabular(letters, columns, block, rows)


def _tabular(letters: Letters, columns: Sequence[_Column], block: Sequence[int], rows: Sequence[str]) -> list[str]:
    kinds = "".join("r" if columns[i].right else "l" for i in block)
    return [
        rf"\par\smallskip{{\{letters.command}\setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}%",
        rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
        r"\toprule",
        " & ".join(_head(columns[i]) for i in block) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}\par}",
    ]


def _head(column: _Column) -> str:
    lines = [escape_latex(line) for line in column.heads]
    if len(lines) == 1:
        return lines[0]
    kind = "r" if column.right else "l"
    return rf"\begin{{tabular}}[b]{{@{{}}{kind}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _cell(text: str, bold: bool, column: _Column, letters: Letters) -> str:
    shown = _breakable(text) if column.broken else escape_latex(text)
    shown = rf"\textbf{{{shown}}}" if bold else shown
    if not column.broken:
        return shown
    return rf"\parbox[t]{{{column.ems * letters.em:.0f}pt}}{{\raggedright\strut {shown}\strut}}"

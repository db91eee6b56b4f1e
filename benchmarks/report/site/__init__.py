"""The leaderboard page: one offline HTML file with everything in it, made from the committed records. No torch.

What is shown comes from records that anyone may have written. So records enter the page as JSON that cannot close its
element, the script writes them as text alone, and the page's policy allows its own script and style and no request.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from string import Template

from benchmarks.report.collect import Collected
from benchmarks.report.layout import Table
from benchmarks.report.site.content import content
from benchmarks.report.site.runs import curves_of, runs_of

FOLDER = Path(__file__).parent
PAGE = "index.html"
# In this order: each file uses what those before it define.
SCRIPTS = ("data", "state", "dom", "sheets", "export", "views", "plots", "detail", "main")
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def make(out: Path, collected: Collected, tables: Sequence[Table]) -> bytes:
    """The page of what was collected; the same records, curves and published numbers, the same bytes."""
    data = {**content(out, collected, tables), "runs": runs_of(collected)}
    return page(embedded(data), embedded(curves_of(out, collected))).encode()


def embedded(value: object) -> str:
    """JSON in plain ASCII without <, > and &: inside an HTML element it can neither end it nor start another."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def page(data: str, curves: str) -> str:
    """The whole file around two embedded JSON texts."""
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "})();\n"
    return Template(_asset("page.html")).substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=data,
        curves=curves,
        digest=hashlib.sha256((data + curves).encode()).hexdigest(),
    )


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline element."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

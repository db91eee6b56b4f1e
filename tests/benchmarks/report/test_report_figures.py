"""Figures from records: what they show is what the tables say, the same bytes every time, and nothing breaks them."""

from __future__ import annotations

import io
import json
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from synthetic_records import Sweep, Write, make

from baselines import METHODS
from benchmarks import archive, drawing
from benchmarks.curves import Course, Curve, identity
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.report import build
from benchmarks.report.collect import FULL, collect
from benchmarks.report.compare import against_ours
from benchmarks.report.figures import KINDS, figures, sheets
from benchmarks.report.figures.cost import front
from benchmarks.report.figures.ranks import cliques
from benchmarks.report.statistics import critical_difference

pytest.importorskip("matplotlib")

HOSTILE = r"$\frac{1}$ \input{/etc/passwd} <script>alert(1)</script> & %_#^~" + "\n" + "x" * 300
SWEEPS = (
    Sweep(variants={"no_reg": 0.69, "no_hierarchy": 0.60}),
    Sweep(benchmark="cmu_mosi", protocol="standard"),
    Sweep(data="real", profile="paper", protocol="paper_test_selected"),
)


def with_files(write: Write, records: list[RunRecord]) -> Path:
    """Records with made-up predictions and curves beside them."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    lines: dict[str, list[str]] = {}
    out = write(records)
    for record in records:
        rng = np.random.default_rng(record.key.seed)
        target = rng.integers(6, size=40)
        scores = (np.eye(6)[target] * 2 + rng.normal(size=(40, 6))).astype(np.float32)
        found = {"index": np.arange(40), "target": target, "prediction": scores}
        if record.key.variant == FULL:
            arrays.setdefault(record.key.benchmark, {}).update(archive.members(record.key, record.predictions, found))
        curve = Curve("accuracy", "valid", (Course((1.0, 0.5, 0.4), (0.3, 0.6, 0.6)),))
        if record.key.method != "linear":
            lines.setdefault(record.key.benchmark, []).append(curve.line(identity(record)) + "\n")
    for name in ("predictions", "curves"):
        (out / name).mkdir()
    for benchmark, some in arrays.items():
        archive.write_npz(out / "predictions" / f"{benchmark}.npz", some)
    for benchmark, some_lines in lines.items():
        (out / "curves" / f"{benchmark}.jsonl").write_text("".join(some_lines), encoding="utf-8")
    return out


def records(*sweeps: Sweep) -> list[RunRecord]:
    return [record for sweep in sweeps or SWEEPS for record in sweep.records()]


def drawn(out: Path, kind: str, data: str = "twin") -> tuple[list[str], list[np.ndarray]]:
    """All texts of a figure, and the x values of its lines."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    with drawing.style():
        sheet = next(s for s in sheets(collect(out / "records"), out) if s.data == data)
        figure = KINDS[kind](sheet)
        assert figure is not None
        texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
        lines = [np.asarray(line.get_xdata()) for line in figure.findobj(Line2D) if isinstance(line, Line2D)]
    return texts, lines


@pytest.mark.filterwarnings("error")
def test_every_kind_is_drawn_and_named_after_its_data_and_profile(write: Write) -> None:
    made = figures(collect(with_files(write, records()) / "records"), write([]))
    names = {name.rpartition(".")[0] for name in made}
    assert names == {
        *(f"{kind}_twin_tiny" for kind in KINDS),
        *(f"{kind}_real_paper" for kind in KINDS if kind not in ("ranks", "ablation")),
    }
    for name, content in made.items():
        assert ElementTree.fromstring(content).tag.endswith("svg") if name.endswith("svg") else content[1:4] == b"PNG"


def test_equal_records_give_equal_bytes_whatever_the_users_settings(write: Write) -> None:
    import matplotlib

    out = with_files(write, records(SWEEPS[0]))
    first = figures(collect(out / "records"), out)
    path = out / "records" / "crema_d.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none", "lines.linewidth": 9, "savefig.dpi": 30}):
        assert figures(collect(out / "records"), out) == first
    for content in first.values():
        assert matplotlib.__version__.encode() not in content
        assert not re.search(rb"20\d\d-\d\d-\d\d|Software|Creat", content)
    assert b"<text" not in b"".join(content for name, content in first.items() if name.endswith("svg"))


def strokes(svg: str) -> list[tuple[str, list[float]]]:
    """Every stroke of every path: letter and numbers, what follows a move being lines."""
    sizes = {"M": 2, "L": 2, "Q": 4, "C": 6, "z": 0}
    found: list[tuple[str, list[float]]] = []
    for path in re.findall(r' d="([^"]*)"', svg):
        for letter, text in re.findall(r"([MLQCz])([^MLQCz]*)", path):
            numbers = [float(x) for x in text.split()]
            size = sizes[letter]
            assert len(numbers) % size == 0 if size else not numbers, (letter, text)
            parts = [numbers[i : i + size] for i in range(0, len(numbers), size)] if size else [[]]
            found += [(letter if i == 0 or letter != "M" else "L", part) for i, part in enumerate(parts)]
    return found


def test_a_small_svg_has_the_strokes_of_the_full_one(write: Write) -> None:
    out = write(records(SWEEPS[0]))
    with drawing.style():
        figure = KINDS["forest"](sheets(collect(out / "records"), out)[0])
        assert figure is not None
        full = io.BytesIO()
        figure.savefig(full, format="svg")
        before, after = strokes(full.getvalue().decode()), strokes(drawing.save(figure, "svg").decode())
    assert [letter for letter, _ in before] == [letter for letter, _ in after]
    assert {"M", "L", "Q", "z"} <= {letter for letter, _ in after}
    for (_, a), (_, b) in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=0.051)


def test_a_png_keeps_the_colours_of_the_methods(write: Write) -> None:
    from PIL import Image

    out = write(records(SWEEPS[0]))
    with drawing.style():
        figure = KINDS["seeds"](sheets(collect(out / "records"), out)[0])
        assert figure is not None
        picture = Image.open(io.BytesIO(drawing.save(figure, "png"))).convert("RGB")
    counted = picture.getcolors(picture.width * picture.height)
    seen = {"#{:02X}{:02X}{:02X}".format(*colour) for _, colour in counted}  # type: ignore[misc,union-attr]
    assert "#FFFFFF" in seen
    assert {drawing.look(name).colour.upper() for name in ("clcr", "misa", "linear", "late_fusion")} <= seen


def test_letters_come_from_the_font_that_matplotlib_brings(tmp_path: Path) -> None:
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont

    with drawing.style():
        for weight in ("normal", "bold"):
            assert Path(findfont(FontProperties(weight=weight))).is_relative_to(matplotlib.get_data_path())


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_names_data_profile_protocol_n_and_test(write: Write, kind: str) -> None:
    texts = " ".join(" ".join(drawn(with_files(write, records()), kind)[0]).split())
    for words in ("SYNTHETIC twins, profile tiny", "say nothing about the real data", "CREMA-D", "paper", "5 seeds"):
        assert words in texts, words
    assert re.search(r"test: paired t by seed.*Holm.*famil|No test is made here|no test is made here|not a test", texts)
    assert "real data, profile" not in texts


def test_optimistic_and_partial_results_are_marked(write: Write) -> None:
    some = [r for r in records(SWEEPS[2]) if (r.key.method, r.key.seed) != ("misa", 4)]
    texts, _ = drawn(write(some), "seeds", "real")
    assert "paper_test_selected *, n = 5 seeds (0-4)" in texts
    assert any("CAUTION: * epochs selected on the test set" in text for text in texts)
    assert any("PARTIAL: 1 result missing" in text for text in texts)


def test_the_forest_holds_the_numbers_of_the_table(write: Write) -> None:
    out = write(records())
    texts, lines = drawn(out, "forest")
    build(out, only="tables")
    table = pd.read_csv(out / "tables" / "significance.csv")
    table = table[(table["data"] == "twin") & table["benchmark"].isin(["crema_d", "cmu_mosi"])]
    assert len(table) == 8
    for row in table.itertuples():
        factor = 100 if row.benchmark == "crema_d" else 1
        assert any(len(x) == 2 and np.allclose(x, [factor * row.low, factor * row.high]) for x in lines), row.label
        assert any(len(x) == 1 and np.allclose(x, factor * row.difference) for x in lines), row.label
        assert ("< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}") in texts


def test_filled_marks_are_the_significant_ones(write: Write) -> None:
    from matplotlib.lines import Line2D

    out = write(records(Sweep(levels={"clcr": 0.70, "misa": 0.699, "linear": 0.60, "late_fusion": 0.75})))
    with drawing.style():
        sheet = sheets(collect(out / "records"), out)[0]
        figure = KINDS["forest"](sheet)
        assert figure is not None
        marks = [x for x in figure.findobj(Line2D) if str(x.get_marker()) in "Dos^P<" and len(x.get_xdata()) == 1]
        faces = {float(np.round(x.get_xdata()[0], 6)): x.get_markerfacecolor() != "white" for x in marks}
    found = against_ours(sheet.groups[0], "accuracy")
    assert faces == {round(100 * c.test.difference, 6): c.better != 0 for c in found.values() if c.test}
    assert set(faces.values()) == {True, False}


def test_better_is_always_right(write: Write) -> None:
    from matplotlib.axes import Axes

    out = write(records())
    with drawing.style():
        sheet = sheets(collect(out / "records"), out)[1]
        for kind in ("seeds", "forest", "ablation"):
            figure = KINDS[kind](sheet)
            assert figure is not None
            for axes in figure.findobj(Axes):
                if axes.get_xlabel():
                    assert axes.xaxis_inverted() == ("MAE" in axes.get_xlabel()), kind


def test_hostile_names_are_drawn_as_they_are_or_cut_with_a_sign(write: Write) -> None:
    levels = {"clcr": 0.7, HOSTILE: 0.6, "linear": 0.65, "": 0.6}
    out = with_files(write, records(Sweep(levels=levels, variants={HOSTILE: 0.5}), Sweep("ave", levels=levels)))
    for name, content in figures(collect(out / "records"), out).items():
        assert b"script" not in content
        assert b"passwd" not in content
        if name.endswith("svg"):
            ElementTree.fromstring(content)
    texts, _ = drawn(out, "seeds")
    assert drawing.name(HOSTILE) in texts
    assert len(drawing.name(HOSTILE)) == drawing.LONGEST
    assert drawing.name(HOSTILE).endswith("…")
    assert "\n" not in drawing.name("a\nb\x00c")


@pytest.mark.filterwarnings("error")
def test_single_runs_and_failed_ones_do_not_stop_a_figure(write: Write) -> None:
    some = records(Sweep(seeds=(0,), variants={"no_reg": 0.6}))
    failed = make(RunKey("crema_d", "paper", "twin", "tiny", "ogm_ge", "full", 0), {}, status="failed", metrics={})
    out = with_files(write, [*some, failed])
    assert "forest_twin_tiny.svg" in figures(collect(out / "records"), out)
    assert "not tested" in drawn(out, "forest")[0]


def test_without_matplotlib_the_report_says_so_and_goes_on(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    out = write(records(SWEEPS[0]))
    with pytest.raises(InputError, match=r"--only figures: matplotlib is not installed; pip install .*figures"):
        build(out, only="figures")
    assert not (out / "figures").exists()
    built = build(out)
    assert [note.partition(" are left out")[0] for note in built.notes] == ["figures", "findings"]
    assert {path.parent.name for path in built.files} == {"tables", "site"}


def test_figures_that_the_records_no_longer_give_go_and_nothing_else(write: Write) -> None:
    out = write(records(SWEEPS[0]))
    (out / "figures").mkdir()
    for name in ("seeds_real_open.svg", "mine.svg", "seeds_notes.txt"):
        (out / "figures" / name).write_text("old")
    built = build(out, only="figures")
    assert not (out / "tables").exists()
    assert {p.name for p in (out / "figures").iterdir()} == {
        "mine.svg",
        "seeds_notes.txt",
        *(p.name for p in built.files),
    }
    assert build(out, select=lambda key: True).files == ()


def test_looks_differ_in_colour_and_in_grey() -> None:
    looks = {name: drawing.look(f"{name}_audio" if row.per_modality else name) for name, row in METHODS.items()}
    for a, b in combinations(looks.values(), 2):
        assert a.colour != b.colour
        assert a.marker != b.marker
        assert a.dash != b.dash
    assert drawing.look("somebody's") == drawing.look("somebody's")


@pytest.mark.parametrize(
    ("methods", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_is_that_of_the_printed_table(methods: int, q: float) -> None:
    """Demšar 2006, table 5(a), critical values of the two-tailed Nemenyi test at 0.05."""
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)


def test_bars_join_what_cannot_be_told_apart() -> None:
    assert cliques([1.0, 1.5, 2.2, 4.0, 4.1], 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert cliques([1.0, 3.0, 5.0], 1.5) == []
    rng = np.random.default_rng(0)
    for _ in range(50):
        ranks, width = sorted(rng.uniform(1, 7, size=7)), float(rng.uniform(0.2, 3))
        bars = cliques(ranks, width)
        joined = {pair for first, last in bars for pair in combinations(range(first, last + 1), 2)}
        assert joined == {(i, j) for i, j in combinations(range(7), 2) if ranks[j] - ranks[i] < width}
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(bars))


@pytest.mark.parametrize("highest", [True, False])
def test_the_front_holds_what_no_other_point_beats(highest: bool) -> None:
    rng = np.random.default_rng(1)
    sign = 1 if highest else -1
    for _ in range(50):
        points = [(float(x), float(y)) for x, y in rng.integers(6, size=(7, 2))]
        beaten = [any(c <= x and sign * s >= sign * y and (c, s) != (x, y) for c, s in points) for x, y in points]
        assert sorted(front(points, highest)) == [i for i, lost in enumerate(beaten) if not lost]


def test_records_and_files_are_only_read(write: Write) -> None:
    out = with_files(write, records(SWEEPS[0]))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    figures(collect(out / "records"), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert json.loads((out / "curves" / "crema_d.jsonl").read_text().splitlines()[0])["metric"] == "accuracy"

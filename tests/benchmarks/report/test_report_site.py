"""The leaderboard page as a file: equal bytes, nothing that escapes, nothing fetched, the numbers of the tables."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import Sweep, Write, write_curves

from benchmarks.record import RunRecord
from benchmarks.report import build
from benchmarks.report.site import embedded
from benchmarks.report.site.runs import LONGEST, POINTS
from benchmarks.report.statistics import critical_difference

RESULTS = Path(__file__).resolve().parents[3] / "results"
HOSTILE = '</script><img src=x onerror="window.hacked=1">\u2028<!--'


class Elements(HTMLParser):
    """Tags and attributes of a page, and the text of its scripts and styles in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.texts.append((self.tags[-1][1].get("id") or self.tags[-1][0], data))


def made(out: Path, **options: Any) -> Elements:
    build(out, only="site", **options)
    return Elements((out / "site" / "index.html").read_text(encoding="utf-8"))


def data_of(page: Elements) -> dict[str, Any]:
    return json.loads(dict(page.texts)["data"])  # type: ignore[no-any-return]


def records() -> list[RunRecord]:
    return [*Sweep(variants={"no_reg": 0.69}).records(), *Sweep(benchmark="ave", data="real", profile="open").records()]


def test_the_same_records_give_the_same_bytes_in_any_order(write: Write) -> None:
    out = write_curves(write(records()), records(), 5)
    build(out)
    first = (out / "site" / "index.html").read_bytes()
    for path in (*(out / "records").iterdir(), *(out / "curves").iterdir()):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    page = made(out)
    digests = {file["path"] for file in data_of(page)["files"]}
    assert digests == {f"{part}/{name}.jsonl" for part in ("records", "curves") for name in ("ave", "crema_d")}
    for path in (*(out / "records").iterdir(), *(out / "curves").iterdir()):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    build(out, only="site", partial=True)
    assert (out / "site" / "index.html").read_bytes() == first


def test_the_committed_page_is_that_of_the_committed_records(tmp_path: Path) -> None:
    for part in ("records", "predictions", "curves"):
        shutil.copytree(RESULTS / part, tmp_path / part)
    shutil.copy(RESULTS / "published.yaml", tmp_path)
    build(tmp_path, only="site")
    committed = (RESULTS / "site" / "index.html").read_bytes()
    assert (tmp_path / "site" / "index.html").read_bytes() == committed
    assert len(committed) < 3e6


def test_what_records_say_cannot_end_its_element(write: Write) -> None:
    hostile = Sweep(levels={"clcr": 0.7, HOSTILE: 0.6}).records()
    failed = replace(hostile[0], status="failed", error=HOSTILE, metrics={}, key=replace(hostile[0].key, method="misa"))
    told = {**hostile[1].provenance, "commit": HOSTILE, HOSTILE: float("nan")}
    page = made(write([*hostile[:1], replace(hostile[1], provenance=told), *hostile[2:], failed]), partial=True)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in page.tags]
    data = data_of(page)
    assert HOSTILE in [method["name"] for method in data["methods"]]
    assert HOSTILE in data["runs"]["columns"]["error"]
    assert not set(dict(page.texts)["data"]) & set("<>&\u2028\u2029")


def test_embedded_json_is_ascii_and_reads_back() -> None:
    value = {"a": [HOSTILE, "&amp;", "\ud800", 1.5, None]}
    assert embedded(value).isascii()
    assert json.loads(embedded(value)) == value
    with pytest.raises(ValueError, match="JSON"):
        embedded(float("nan"))


def test_the_policy_names_the_script_and_the_style_and_allows_no_request(write: Write) -> None:
    page = made(write(records()))
    policy = next(attrs["content"] or "" for tag, attrs in page.tags if attrs.get("http-equiv"))
    said = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    texts = dict(page.texts)
    for name, rule in (("script", "script-src"), ("style", "style-src")):
        assert said[rule] == f"'sha256-{b64encode(hashlib.sha256(texts[name].encode()).digest()).decode()}'"
    assert (said["default-src"], said["base-uri"], said["form-action"]) == ("'none'", "'none'", "'none'")
    named = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "action")]
    assert set(named) == {"#content", "data:,"}
    assert not re.findall(
        r"fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|document\.write|eval\(|import\(", texts["script"]
    )


def test_the_digest_covers_what_is_embedded(write: Write) -> None:
    page = made(write(records()))
    texts = dict(page.texts)
    expected = hashlib.sha256((texts["data"] + texts["curves"]).encode()).hexdigest()
    assert page.tags[0] == ("html", {"lang": "en", "data-digest": expected})


def test_the_numbers_are_those_of_the_tables(write: Write) -> None:
    built = build(out := write(records()))
    data = data_of(made(out))
    main = next(table for table in built.tables if table.name == "main").frame.set_index(["data", "method", "metric"])
    for group in data["groups"]:
        for row in (row for row in group["rows"] if row["variant"] == "full"):
            for metric, cell in row["cells"].items():
                line = main.loc[(group["data"], row["method"], metric)]
                assert (cell["n"], cell["mean"], cell["sd"]) == (line["n"], line["mean"], line["sd"])
                assert cell.get("p_holm") == (None if row["method"] == "clcr" else line["p_holm"])
    for name in ("ablation", "significance", "cost"):
        table = next(table for table in built.tables if table.name == name)
        shown = [
            record for kind in ("real", "twin") for s in data["tables"][name]["parts"][kind] for record in s["records"]
        ]
        assert len(shown) == len(table.frame)
        for section in (s for kind in ("real", "twin") for s in data["tables"][name]["parts"][kind]):
            for texts, record in zip(section["rows"], section["records"] or section["rows"], strict=True):
                if isinstance(record, dict):
                    assert texts[0] in (record["label"], record["variant"])


def test_real_and_synthetic_stand_apart(write: Write) -> None:
    data = data_of(made(write(records())))
    for table in data["tables"].values():
        for kind, sections in table["parts"].items():
            assert {record["data"] for s in sections for record in s["records"]} <= {kind}
    assert all(
        line.startswith(("Real data", "Synthetic twin")) for lines in data["summary"].values() for line in lines[:1]
    )
    assert data["summary"]["twin"][0].startswith("Synthetic twin")


def test_failed_stale_and_missing_runs_are_in_the_page(write: Write) -> None:
    sweep = Sweep().records()
    failed = replace(sweep[-1], status="failed", error="x" * 2 * LONGEST, metrics={})
    out = write([*sweep[:-2], failed])
    data = data_of(made(out, partial=True, stale=[sweep[0].key]))
    columns = data["runs"]["columns"]
    found = dict(zip(columns["status"], zip(columns["seed"], columns["error"], strict=True), strict=True))
    assert sorted(set(columns["status"])) == ["done", "failed", "missing", "stale"]
    assert found["stale"] == (0, None)
    assert found["missing"] == (3, "not run, other rows have it")
    assert found["failed"][1].startswith("xxx")
    assert len(found["failed"][1]) < LONGEST + 50
    lacks = {row["method"]: row["lacks"] for row in data["groups"][0]["rows"]}
    assert [seed for seed, _ in lacks["linear"]] == [4, 3]
    assert data["groups"][0]["rows"][0]["cells"]["accuracy"]["n"] == 4


def test_a_failed_run_of_odd_kinds_does_no_harm(write: Write) -> None:
    sweep = Sweep().records()
    odd: Any = {
        "selection": {"epochs": "x", "epoch": [1], "value": HOSTILE},
        "diagnostics": [],
        "folds": ({"test": "x"},),
        "metrics": {"test": {"accuracy": HOSTILE}, "valid": 3},
        "n_parameters": HOSTILE,
        "time_s": None,
    }
    failed = replace(sweep[0], status="failed", error="", **odd)
    columns = data_of(made(write([failed, *sweep[1:]]), partial=True))["runs"]["columns"]
    assert columns["status"][0] == "failed"
    assert (columns["test"][0], columns["valid"][0], columns["folds"][0]) == ([None, None], None, [None])
    assert columns["selection"][0] == {"metric": None, "epochs": [], "values": []}
    assert (columns["time_s"][0], columns["n_parameters"][0], columns["diagnostics"][0]) == (None, None, None)


def test_long_curves_are_thinned_and_keep_the_selected_epoch(write: Write) -> None:
    chosen = {"metric": "accuracy", "epoch": 333, "value": 0.9}
    made_up = [replace(record, selection=chosen) for record in Sweep(seeds=(0, 1)).records()]
    page = made(write_curves(write(made_up), made_up, 1000))
    fold = json.loads(dict(page.texts)["curves"])[0]["folds"][0]
    assert len(fold["epochs"]) == len(fold["loss"]) == len(fold["score"]) <= POINTS + 1
    assert {1, 333, 1000} <= set(fold["epochs"])
    assert fold["loss"][fold["epochs"].index(333)] == pytest.approx(1 / 333, rel=5e-3)


def test_the_critical_difference_is_that_of_demsar() -> None:
    """Table 5(a) of Demsar (2006): q is 2.343 for 3 methods, 2.728 for 5, 3.164 for 10, at level 0.05."""
    for methods, q in ((3, 2.343), (5, 2.728), (10, 3.164)):
        assert critical_difference(methods, 6) == pytest.approx(q * (methods * (methods + 1) / 36) ** 0.5, abs=2e-3)
    with pytest.raises(ValueError, match="two methods"):
        critical_difference(1, 3)

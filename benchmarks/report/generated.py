"""Committed files that the report makes, byte by byte against what it makes now. No torch."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import report
from benchmarks.report.figures import SUFFIXES
from benchmarks.report.findings import Finding, Part
from benchmarks.report.layout import count

# Folders of <out> that the report fills. A new kind of file is one more row; a folder that is not committed is not
# compared.
GENERATED = ("tables", "figures", "site", "findings")
NOT_READ = ("runs", *GENERATED, *report.BESIDE)
PINS = Path(__file__).resolve().parents[2] / "constraints.txt"
DRAWS = ("matplotlib", "pillow", "numpy")  # what decides the bytes of a figure
REMEDY = "make it again with `clcr report` and commit it with the records"


def compare(out: Path) -> Part:
    """Make everything anew from the records of ``out``, in a folder of its own, and compare. ``out`` is not written."""
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch)
        for path in out.resolve().iterdir():
            if path.name not in NOT_READ:
                (again / path.name).symlink_to(path)
        report.build(again, partial=True)
        committed = [name for name in GENERATED if (out / name).is_dir()]
        elsewhere = {name: other_bytes(name) for name in committed}
        kinds = [name for name in committed if not elsewhere[name]]
        failures = [failure for name in kinds for failure in _folder(name, out, again)]
        number = sum(len(_files(name, out)) for name in kinds)
    if not committed:
        failures = [Finding(str(out / GENERATED[0]), "the report's tables", "no such folder", REMEDY)]
    notes = tuple(f"{name} are not compared: {why}" for name, why in elsewhere.items() if why)
    return Part(f"{count(number, 'file')} in {', '.join(kinds) or 'no folder'}", tuple(failures), notes)


def other_bytes(name: str) -> str:
    """Why a kind of file cannot come out the same here, in words; "" where it must."""
    return report.LACKS[name]() or (_other_pictures() if name == "figures" else "")


def _other_pictures() -> str:
    """Why pictures have other bytes here, "" where they have the same."""
    if not PINS.is_file():
        return ""
    pins = dict(line.strip().split("==") for line in PINS.read_text(encoding="utf-8").splitlines() if "==" in line)
    here = {package: version(package) for package in DRAWS}
    wrong = [f"{package} is {here[package]}, pinned {pins.get(package)}" for package in DRAWS
             if here[package] != pins.get(package)]  # fmt: skip
    return "; ".join(wrong)


def _files(name: str, out: Path) -> list[Path]:
    """The files of a kind, below ``out``; those beside its folder too, pictures only where they can be the same."""
    found = [path for path in (out / name).rglob("*") if path.is_file()]
    if name == "findings":
        found += [out / beside for beside in report.BESIDE if (out / beside).is_file()]
        left_out = SUFFIXES if _other_pictures() else ()
        found = [path for path in found if path.suffix[1:] not in left_out]
    return sorted(path.relative_to(out) for path in found)


def _folder(name: str, out: Path, again: Path) -> list[Finding]:
    committed, made = _files(name, out), _files(name, again)
    extra = [Finding(str(out / path), "no such file", "one that nothing makes", "delete it") for path in committed
             if path not in made]  # fmt: skip
    lost = [Finding(str(out / path), "the report's file", "none", REMEDY) for path in made if path not in committed]
    return extra + lost + [
        Finding(str(out / path), *difference((again / path).read_bytes(), (out / path).read_bytes()), REMEDY)
        for path in made
        if path in committed and (again / path).read_bytes() != (out / path).read_bytes()
    ]  # fmt: skip


def difference(expected: bytes, found: bytes) -> tuple[str, str]:
    """Where two files part, and what either has there."""
    ours, theirs = expected.split(b"\n"), found.split(b"\n")
    line = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(ours), len(theirs)))  # fmt: skip
    return _excerpt(ours, theirs, line, f"line {line + 1} "), _excerpt(theirs, ours, line, "")


def _excerpt(lines: list[bytes], other: list[bytes], number: int, prefix: str) -> str:
    """What a line has where it begins to differ."""
    if number >= len(lines):
        return f"{prefix}no such line"
    line, against = (x[number].decode(errors="replace") if number < len(x) else "" for x in (lines, other))
    start = next((n for n, pair in enumerate(zip(line, against, strict=False)) if pair[0] != pair[1]), len(against))
    return f"{prefix}{line[max(0, start - 20) : start + 20]!r}"

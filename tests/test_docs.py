"""What the documents tell a reader to type works as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import BENCHMARKS, catalog, cli
from benchmarks.cli import main
from benchmarks.errors import InputError
from benchmarks.runner import plan, ray_settings, slurm_settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "REPRODUCE.md", "CONTRIBUTING.md")
# These need data, a package or a cluster: their lines are parsed and not planned.
GUIDES = ("docs/data.md", "docs/submit.md", "docs/cluster.md", "docs/findings.md")


def blocks(language: str, names: tuple[str, ...] = DOCUMENTS) -> list[str]:
    return [
        block
        for name in names
        for block in re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands(program: str, names: tuple[str, ...] = DOCUMENTS) -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh", names) for line in block.splitlines()]
    return sorted({line for line in lines if re.search(rf"(^|/| ){program} ", line + " ")})


@pytest.mark.parametrize("line", commands("clcr"))
def test_clcr_lines_name_what_exists(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is planned instead of executed; what only reads is executed."""
    words = line[line.index("clcr ") :].split()[1:]
    assert "report" in words or words
    if words[0] == "run":
        words = ["plan", *[w for i, w in enumerate(words[1:]) if "--workers" not in (w, words[i])]]
    if words[0] in ("plan", "list", "status"):
        assert main(words) == 0, capsys.readouterr().err
    else:
        with pytest.raises(SystemExit) as done:
            main([words[0], "--help"])
        assert done.value.code == 0


def parsed(line: str) -> None:
    """Raise InputError where a command, an option or a name of the line does not exist."""
    args = cli._parser().parse_args(shlex.split(line[line.index("clcr ") :])[1:])
    names = vars(args)
    found = [name for name in (names.get("benchmark") or "all").split(",") if name != "all"]
    for name in found:
        described = catalog.spec(name)
        if names.get("protocol"):
            described.protocol(names["protocol"])
        if names.get("preset") and names["preset"] not in catalog.task_module(name).PRESETS:  # type: ignore[attr-defined]
            raise InputError(f"unknown preset {names['preset']}")
    if names.get("profile"):
        selection = cli._selection(args)
        plan.check_names(selection)


@pytest.mark.parametrize("line", sorted({*commands("clcr"), *commands("clcr", GUIDES)}))
def test_clcr_lines_are_what_the_parser_takes(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize(
    "line",
    [
        *("clcr fetch ave --too DIR", "clcr fetsh ave", "clcr prepare eva --source DIR", "clcr prepare --source DIR"),
        *("clcr prepare ave --preset prm", "clcr run --benchmark ave --protocol papre", "clcr run --profile papre"),
        *("clcr run --profile paper --method clrc", "clcr report --profile paper --variant fool", "clcr list --all"),
    ],
)
def test_a_line_with_what_does_not_exist_would_be_seen(line: str) -> None:
    with pytest.raises(InputError):
        parsed(line)


@pytest.mark.parametrize(
    ("place", "launcher", "unsaid"), [(0, slurm_settings, {"gres", "qos"}), (1, ray_settings, {"namespace"})]
)
def test_the_settings_in_the_guide_to_clusters_are_all_there_are(
    tmp_path: Path, place: int, launcher: Any, unsaid: set[str]
) -> None:
    text = blocks("yaml", ("docs/cluster.md",))[place].replace("/shared/clcr", str(ROOT))
    (tmp_path / "settings.yaml").write_text(text)
    launcher.read(tmp_path / "settings.yaml")
    assert set(yaml.safe_load(text)) | unsaid == {field.name for field in fields(launcher.Settings)}


def test_the_guide_to_data_leads_through_all_six_benchmarks() -> None:
    lines = commands("clcr", GUIDES)
    for name in [name for name in BENCHMARKS if catalog.spec(name).twin_protocol is not None]:
        for start in (f"fetch {name} --to", f"prepare {name} --source", f"prepare {name} --verify"):
            assert any(f"clcr {start}" in line for line in lines), start
        for command in ("plan", "run", "report"):
            wanted = f"clcr {command} --benchmark {name} "
            assert any(line.startswith(wanted) and "--profile paper" in line for line in lines), wanted


def test_the_counts_and_presets_in_the_guide_are_those_of_the_specs() -> None:
    text = (ROOT / GUIDES[0]).read_text(encoding="utf-8")
    for name in [name for name in BENCHMARKS if catalog.spec(name).twin_protocol is not None]:
        for protocol in catalog.spec(name).protocols:
            if protocol.name not in ("subset3", "transcripts", "utterance"):  # open sets, in REPRODUCE.md
                assert all(f"{count:,}" in text for count in protocol.counts.values()), (name, protocol.name)
                assert f"`{protocol.name}`" in text or f"`{protocol.name.split('_')[0]}_*`" in text
        for preset in getattr(catalog.task_module(name), "PRESETS", ()):
            assert f"`{preset}`" in text, (name, preset)


@pytest.mark.parametrize("line", commands("make"))
def test_make_lines_name_targets(line: str) -> None:
    targets = [word for word in line[line.index("make ") :].split()[1:] if "=" not in word]
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "REPRODUCE.md"])
def test_result_tables_in_the_documents_are_the_generated_ones(name: str) -> None:
    rows = re.findall(
        r"^\| (?:CLCR|Late fusion|OGM-GE|MISA|Unimodal|Linear)\b.*±.*\|$", (ROOT / name).read_text(), re.M
    )
    assert rows
    made = (ROOT / "results/tables/main.md").read_text(encoding="utf-8").splitlines()
    assert set(rows) <= set(made)


def test_documents_link_to_files_that_exist() -> None:
    for name in (*DOCUMENTS, *GUIDES):
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"

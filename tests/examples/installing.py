"""A package on the path as pip would leave it, made from its pyproject.toml: no installer, no network."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GIT = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")


def describe(folder: Path, project: dict[str, Any]) -> None:
    """Write the metadata of a distribution into a folder that is, or will be, on the path."""
    stem = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info = folder / stem
    info.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}"]
    lines += [f"Project-URL: {name}, {url}" for name, url in project.get("urls", {}).items()]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    groups = project.get("entry-points", {})
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in groups.items())
    (info / "entry_points.txt").write_text(text)


def install(example: str, folder: Path) -> Path:
    """A repository of its own with the example in it, described for the path; its folder."""
    shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "First version")):
        subprocess.run([*GIT, "-C", str(folder), *command], check=True, capture_output=True)
    describe(folder, tomllib.loads((folder / "pyproject.toml").read_text())["project"])
    return folder

"""What lies below a source folder: media files by name, whatever the layout, and what is wrong with some of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import InputError


@dataclass(frozen=True)
class Loss:
    """A sample or file that is not used: its name, a key of benchmarks.media.REASONS, and what was found."""

    id: str
    reason: str
    detail: str


@dataclass
class Tree:
    """Media files below ``root`` by suffix and stem; ``problems``: folders that could not be read."""

    root: Path
    files: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    problems: list[Loss] = field(default_factory=list)

    def find(self, stem: str, suffixes: Sequence[str]) -> list[Path]:
        """All files of that stem; those of earlier suffixes first, then by path."""
        return [path for suffix in suffixes for path in self.files.get(suffix, {}).get(stem, [])]

    def stems(self, suffixes: Sequence[str]) -> list[str]:
        """All stems with one of the suffixes, sorted."""
        return sorted({stem for suffix in suffixes for stem in self.files.get(suffix, {})})


def scan(root: Path, suffixes: Sequence[str]) -> Tree:
    """Every file below ``root`` with one of the suffixes (lower case). Links to folders are followed, each folder once:
    a link that leads round in a circle ends the walk there and is noted."""
    tree = Tree(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; pass --source the folder that holds the media files")
    for path in sorted(_walk(root, tree, set())):
        suffix = path.suffix.lower()
        if suffix in suffixes:
            tree.files.setdefault(suffix, {}).setdefault(path.stem, []).append(path)
    return tree


def _walk(folder: Path, tree: Tree, seen: set[tuple[int, int]]) -> Iterator[Path]:
    name = str(folder.relative_to(tree.root))
    try:
        status = folder.stat()
        key = status.st_dev, status.st_ino
        if key in seen:
            tree.problems.append(Loss(name, "not_a_file", "a link to a folder that is read already"))
            return
        seen.add(key)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        reason = "unreadable" if isinstance(error, PermissionError) else "not_a_file"
        tree.problems.append(Loss(name, reason, error.strerror or "cannot be read"))
        return
    for entry in entries:
        if entry.name.startswith("._"):  # resource forks of macOS archives bear the names of media files
            continue
        if _is_folder(entry):
            yield from _walk(Path(entry.path), tree, seen)
        else:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def fault(path: Path) -> tuple[str, str] | None:
    """Why a file cannot be media, seen from outside: (reason, detail), or None."""
    try:
        status = path.stat()
    except OSError as error:
        return ("unreadable" if isinstance(error, PermissionError) else "not_a_file"), error.strerror or "?"
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file", "not a regular file"
    if status.st_size == 0:
        return "empty", "0 bytes"
    if not os.access(path, os.R_OK):
        return "unreadable", "no permission"
    return None


def one_of(id: str, paths: Sequence[Path], root: Path) -> tuple[Path | None, Loss | None]:
    """The file to use of several with one name: the first, if all have its content; the others make it a duplicate."""
    same_suffix = [path for path in paths if path.suffix == paths[0].suffix]
    others = [path for path in same_suffix[1:] if not _same_content(same_suffix[0], path)]
    if not others:
        return paths[0], None
    names = ", ".join(str(path.relative_to(root)) for path in (paths[0], *others))
    return None, Loss(id, "duplicate", f"differing files: {names}")


def _same_content(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
    except OSError:
        return False

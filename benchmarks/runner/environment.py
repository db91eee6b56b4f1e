"""What a worker runs in, and what of it is written down with every run."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines import MethodRow
from benchmarks.methods import module_file
from benchmarks.runner.machine import cpu_model

ROOT = Path(__file__).resolve().parents[2]
# What torch's allocator on the CPU and the libraries on a GPU say in a plain RuntimeError.
NO_MEMORY = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
CODE = ("clcr", "baselines", "benchmarks", "pyproject.toml")


def pick_device(name: str) -> torch.device:
    """ "auto" as the GPU where there is one, else the name as given; ValueError where it cannot be used."""
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs; use --device cpu")
    return device


def make_deterministic() -> None:
    """Equal numbers for equal commit, data, seed and device; operations that cannot promise it warn and go on."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@cache
def warm_up() -> None:
    """The first optimiser of a process loads a second's worth of modules: done here, where no run is timed."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: that of a GPU, or on a CPU torch's, numpy's or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def forget(device: torch.device) -> None:
    """Give back what a training that failed still held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_of(device: torch.device) -> str:
    """The device's memory for people: "23.4 GiB, 20.1 GiB of it free"."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        if any(name not in os.sysconf_names for name in names):
            return "of unknown size"
        free, total = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in names)
    return f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of it free"


def reset_peak_memory(device: torch.device) -> None:
    """Start counting ``peak_memory`` anew, as far as the platform allows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on the GPU, or that this process held in memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, commit, processor, device and threads. None of it enters a run's digest."""
    commit, dirty = git_state()
    return {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit,
        "dirty": dirty,
        "cpu": cpu_model(),
        "cpu_kind": cpu_kind(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


@cache
def git_state() -> tuple[str, bool]:
    """(commit, whether the code differs from it); ("", False) outside a checkout."""
    return _commit(ROOT, CODE)


def _commit(folder: Path, names: Sequence[str]) -> tuple[str, bool]:
    with suppress(OSError, subprocess.CalledProcessError):
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return commit, bool(_git(folder, "status", "--porcelain", "--", *names).strip())
    return "", False


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def package_state(row: MethodRow) -> dict[str, Any]:
    """What a record says of a method from another package: its label and citation, and the release, the address and
    the commit by which others find its code.

    The commit is that of the checkout where the module lies, or the one that pip noted when it installed the package
    from a repository; "" where neither is known.
    """
    name, _, version = row.origin.partition(" ")
    package = distribution(name)
    noted = json.loads(package.read_text("direct_url.json") or "{}")
    commit, dirty = str(noted.get("vcs_info", {}).get("commit_id", "")), False
    if not commit:
        commit, dirty = _checkout(row.target.partition(":")[0])
    addresses = [line.partition(",")[2].strip() for line in package.metadata.get_all("Project-URL") or []]
    url = noted["url"] if "vcs_info" in noted else next(iter(addresses), "")
    told = {"label": row.label, "citation": row.citation, "year": row.year, "package": name, "version": version}
    return {**told, "url": url, "commit": commit, "dirty": dirty}


def _checkout(module: str) -> tuple[str, bool]:
    """As ``git_state``, of the package that a module belongs to; a file that its repository does not hold has none."""
    path = module_file(module)
    try:
        _git(path.parent, "ls-files", "--error-unmatch", "--", path.name)
    except (OSError, subprocess.CalledProcessError):
        return "", False
    top = path.parents[module.count(".")]
    return _commit(top, [module.partition(".")[0] if "." in module or path.name == "__init__.py" else path.name])


@cache
def cpu_kind() -> str:
    """What decides how the processor rounds, where its name hides it: family, model and the instructions torch uses."""
    capability = torch.backends.cpu.get_cpu_capability()
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    return f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}, {capability}"

"""What a worker runs in, and what of it is written down with every run."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
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
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


@cache
def git_state() -> tuple[str, bool]:
    """(commit, whether the code differs from it); ("", False) outside a checkout."""
    with suppress(OSError, subprocess.CalledProcessError):
        commit = _git("rev-parse", "HEAD").strip()
        return commit, bool(_git("status", "--porcelain", "--", *CODE).strip())
    return "", False


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def cpu_model() -> str:
    """The processor's name, without anything that names the host."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""How many workers share a GPU: as many as asked for, or as many as its memory holds. On a CPU a worker is a core."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.errors import InputError
from benchmarks.runner import measured
from benchmarks.runner.launch import Crew, default_workers
from benchmarks.runner.plan import Place, Planned
from benchmarks.runner.together import SHARE

AUTO, MOST = "auto", 8
CONTEXT = 600 << 20  # bytes that a process takes on a GPU before its first tensor; 0.4 to 0.6 GiB by driver


def parse(text: str) -> int | None:
    """What --per-gpu says: a number, or None for "auto". InputError for anything else."""
    if text == AUTO:
        return None
    if re.fullmatch("[1-8]", text):
        return int(text)
    raise InputError(f"--per-gpu {text}: not a number of workers from 1 to {MOST}; write auto, 1 or 4")


def fitting(needs: Sequence[int | None], free: int, cores: int) -> tuple[int, str]:
    """How many workers a GPU holds, and why. needs: bytes at the peak of each run, None where nothing tells; free: of
    the GPU; cores: of the machine that there are for each GPU."""
    known = [need for need in needs if need is not None]
    if len(known) < len(needs) or not known:
        return 1, "memory of some runs is not known; `clcr plan --measure` finds it"
    each = max(known) + CONTEXT
    count = max(1, min(int(SHARE * free / each), cores, MOST))
    return count, f"a run takes at most {each / 2**30:.1f} of {SHARE * free / 2**30:.1f} GiB, {cores} cores a GPU"


def share(
    crew: Crew, place: Place, planned: Sequence[Planned], per_gpu: int | None, tell: Callable[[str], None]
) -> tuple[Crew, Place]:
    """The crew with so many workers on each of its GPUs (None: as many as memory holds for the planned runs), and the
    place that says with how many each shares the memory. ``tell`` hears what was found."""
    gpus = len(crew.devices)
    if crew.devices == ("cpu",) or not planned:
        return crew, place
    if crew.workers == gpus:
        if per_gpu is None:
            lines = measured.ask(measured.request([], place, 0.0))
            free = int(lines[0]["free"]) if lines else 0
            cores = default_workers(("cpu",)) // gpus
            per_gpu, why = fitting([run.predicted_memory_bytes for run in planned], free, cores)
            tell(f"{per_gpu} workers on each GPU: {why}")
        crew = replace(crew, workers=per_gpu * gpus)
    return crew, replace(place, beside=math.ceil(crew.workers / gpus))

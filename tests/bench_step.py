"""Training steps of CLCR, alone and several seeds together, against the same method in loops. Run it by hand.

    python tests/bench_step.py [--size small full] [--together 1 2 4 8 16] [--rounds 12]

One thread, AdamW and dropout included, processor time. The programs take turns and the fastest round of each counts, so
that what else the machine does falls on all alike. Prints JSON: milliseconds a step, samples/s over all seeds, and the
ratio to the loops and to one seed alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "clcr"), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
from eager import Eager  # noqa: E402

from clcr.api import Batch, Modality, Task  # noqa: E402
from clcr.config import CLCRConfig, EncoderConfig  # noqa: E402
from clcr.layers import Draws, drawing, fold  # noqa: E402
from clcr.method import CLCR  # noqa: E402

SIZES = {
    "small": {"widths": (300, 74, 35), "tokens": 20, "batch": 32, "width": 32, "ranks": (16, 15)},
    "full": {"widths": (768, 74, 35), "tokens": 50, "batch": 64, "width": 128, "ranks": (32, 32)},
}
WARM_UP = 2


def build(size: dict, seeds: int | None) -> tuple[CLCR, Batch]:
    """A model of so many seeds (None: without a seed axis), and a batch of ragged lengths for it."""
    modalities = tuple(Modality(str(m), width, size["tokens"]) for m, width in enumerate(size["widths"]))
    config = CLCRConfig(shared_rank=size["ranks"][0], private_rank=size["ranks"][1])
    models = []
    for seed in range(seeds or 1):
        torch.manual_seed(seed)
        models.append(CLCR(Task(modalities, None, "l1"), EncoderConfig(width=size["width"]), config))
    shape = (size["batch"],) if seeds is None else (seeds, size["batch"])
    lengths = [torch.randint(5, size["tokens"] + 1, (*shape, 1)) for _ in modalities]
    batch = Batch(
        tuple(torch.randn(*shape, size["tokens"], width) for width in size["widths"]),
        tuple(torch.arange(size["tokens"]) < length for length in lengths),
        torch.randn(shape),
    )
    return models[0] if seeds is None else fold(models), batch


def program(size: dict, seeds: int | None, eager: bool = False) -> Callable[[], None]:
    """One training step, ready to be called."""
    model, batch = build(size, seeds)
    net = Eager(model) if eager else model
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), fused=True)
    draws = Draws(0 if seeds is None else range(seeds))

    def step() -> None:
        with drawing(draws):
            losses = net(batch)[1] if eager else model.losses(model(batch), batch)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()

    return step


def measure(size: dict, together: list[int], rounds: int) -> dict[str, dict[str, float]]:
    """The figures of one size by program."""
    programs = {"eager": (1, program(size, None, eager=True)), "solo": (1, program(size, None))}
    programs |= {str(seeds): (seeds, program(size, seeds)) for seeds in together}
    seconds = dict.fromkeys(programs, float("inf"))
    for turn in range(WARM_UP + rounds):
        for name, (_, step) in programs.items():
            start = time.process_time()
            step()
            if turn >= WARM_UP:
                seconds[name] = min(seconds[name], time.process_time() - start)
    speed = {name: seeds * size["batch"] / seconds[name] for name, (seeds, _) in programs.items()}
    return {
        name: {
            "step_ms": round(1e3 * seconds[name], 2),
            "samples_per_s": round(speed[name], 1),
            "to_eager": round(speed[name] / speed["eager"], 3),
            "to_solo": round(speed[name] / speed["solo"], 3),
        }
        for name in programs
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--together", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=12)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({name: measure(SIZES[name], chosen.together, chosen.rounds) for name in chosen.size}, indent=2))


if __name__ == "__main__":
    main()

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import measured, slots
from benchmarks.runner.launch import Crew
from benchmarks.runner.plan import Place, Planned

GIB = 1 << 30
KEY = RunKey("crema_d", "standard", "twin", "tiny", "clcr", "full", 0)
PLACE = Place(Path("out"), Path("cache"), "cuda:0")


def planned(*needs: int | None) -> list[Planned]:
    return [Planned(KEY, "missing", predicted_memory_bytes=need) for need in needs]


def test_what_the_flag_says() -> None:
    assert (slots.parse("auto"), slots.parse("1"), slots.parse("8")) == (None, 1, 8)
    for wrong in ("0", "9", "-1", "", "two", "1.5"):
        with pytest.raises(InputError, match="--per-gpu"):
            slots.parse(wrong)


@pytest.mark.parametrize(
    ("needs", "free", "cores", "count"),
    [
        ([4 * GIB, 9 * GIB], 80 * GIB, 16, 6),  # 64 GiB filled, 9.6 each
        ([4 * GIB, 9 * GIB], 80 * GIB, 3, 3),
        ([GIB // 8], 80 * GIB, 64, slots.MOST),
        ([70 * GIB], 80 * GIB, 16, 1),
        ([4 * GIB, None], 80 * GIB, 16, 1),
        ([], 80 * GIB, 16, 1),
        ([4 * GIB], 0, 16, 1),
    ],
)
def test_a_gpu_holds_what_fits_into_its_memory(needs: list[int | None], free: int, cores: int, count: int) -> None:
    assert slots.fitting(needs, free, cores)[0] == count


def test_workers_of_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(measured, "ask", lambda request: asked.append(request) or [{"free": 80 * GIB}])
    monkeypatch.setattr(slots, "default_workers", lambda devices: 16)
    told: list[str] = []
    crew, place = slots.share(Crew(2, ("cuda:0", "cuda:1")), PLACE, planned(20 * GIB), None, told.append)
    assert (crew.workers, place.beside, len(asked)) == (6, 3, 1)
    assert "3 workers on each GPU" in told[0]


def test_what_was_asked_for_is_done_and_a_processor_is_not_shared() -> None:
    crew, place = slots.share(Crew(1, ("cuda:0",)), PLACE, planned(None), 4, print)
    assert (crew.workers, place.beside) == (4, 4)
    crew, place = slots.share(Crew(3, ("cuda:0", "cuda:1")), PLACE, planned(None), 1, print)  # --workers 3
    assert (crew.workers, place.beside) == (3, 2)
    assert slots.share(Crew(2), PLACE, planned(1), None, print) == (Crew(2), PLACE)

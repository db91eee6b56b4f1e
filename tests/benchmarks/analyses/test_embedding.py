"""An embedding has a point for each part of each chosen sample, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from grouped import grouped

from benchmarks.analyses import embedding


@pytest.mark.parametrize("benchmark", ["cmu_mosi", "crema_d"])
def test_points_and_what_they_are(monkeypatch: pytest.MonkeyPatch, benchmark: str) -> None:
    monkeypatch.setattr(embedding, "POINTS", 200)
    group, _, data = grouped(benchmark=benchmark, seeds=(0,))
    (found,) = embedding.analyse(group, data)
    modalities = len(group.method.task.modalities)
    n = 200 // (6 * modalities)
    assert {name: len(x) for name, x in found.items()} == dict.fromkeys(found, n * 6 * modalities)
    assert all(round(v, 3) == v for point in found["points"] for v in point)
    places = set(zip(found["part"], found["modality"], found["level"], strict=True))
    assert len(places) == 6 * modalities
    assert {level for _, _, level in places} == {1, 2, 3}
    chosen = np.linspace(0, 255, n).round().astype(int)
    np.testing.assert_allclose(found["label"][:n], data[0].targets("test")[chosen], atol=1e-3)
    assert embedding.analyse(group, data) == [found]


def test_parts_that_differ_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "POINTS", 360)
    group, _, data = grouped(seeds=(0,))
    (found,) = embedding.analyse(group, data)
    points, names = (
        np.array(found["points"]),
        np.array([" ".join(map(str, x)) for x in zip(found["part"], found["modality"], found["level"], strict=True)]),
    )
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert (names[distance.argmin(1)] == names).mean() > 0.7  # chance is 1 / 18

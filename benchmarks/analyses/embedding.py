"""Where shared and private parts of test samples lie: a t-SNE of one network's summaries in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.analyses.inside import collect
from benchmarks.data import FoldData
from benchmarks.runner.execute import Setting
from benchmarks.runner.group import Group

MOST = 300  # samples of a split, spread evenly over it
SEED, PERPLEXITY = 0, 30.0
PARTS = ("shared", "private")


def analyse(group: Group, runs: Sequence[Setting], data: Sequence[FoldData]) -> list[dict[str, Any]]:
    """A point for each test sample (at most ``MOST``), part, level and modality, of each seed.

    Shared and private summaries have one width, so that all points are embedded together (van der Maaten and Hinton,
    JMLR 9, 2008; scikit-learn, in double precision, from the first two principal components). Gives lists of one
    length: points [[x, y], ...], part, modality, level (1 to 3) and label (the class, or the value).

    An embedding shows neighbours; distances between clusters and their sizes mean nothing. Those of different folds or
    networks do not fit together: of several folds the first is shown.
    """
    del runs
    return [
        _embedded(inside.modalities, inside.parts, own.targets("test"))
        for inside, own in zip(collect(group, data, "test"), data, strict=True)
    ]


def _embedded(modalities: Sequence[str], parts: Any, targets: np.ndarray) -> dict[str, Any]:
    from sklearn.manifold import TSNE

    chosen = np.unique(np.linspace(0, len(targets) - 1, min(MOST, len(targets))).round().astype(int))
    found: dict[str, list[Any]] = {"part": [], "modality": [], "level": [], "label": []}
    rows = []
    for part in PARTS:
        for level in range(parts[part].shape[1]):
            for m, name in enumerate(modalities):
                rows.append(parts[part][chosen, level, m])
                found["part"] += [part] * len(chosen)
                found["modality"] += [name] * len(chosen)
                found["level"] += [level + 1] * len(chosen)
                found["label"] += [round(float(x), 3) if x.dtype.kind == "f" else int(x) for x in targets[chosen]]
    x = np.concatenate(rows).astype(np.float64)
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, n_jobs=1).fit_transform(x)
    return {"points": [[round(float(v), 3) for v in point] for point in points], **found}

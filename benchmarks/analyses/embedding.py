"""Where shared and private parts of test samples lie: a t-SNE of a network's summaries in the plane.

Values: lists of one length: points [[x, y], ...] (3 decimals), part (shared or private), modality, level (1 to 3) and
label (the class, or the value), of up to 300 samples of the test split, spread evenly over it; fewer, so that there are
at most ``POINTS``. Shared and private summaries have one width: all are embedded together (van der Maaten and Hinton,
JMLR 9, 2008; scikit-learn, from the first two principal components in double precision).

An embedding shows neighbours; distances between clusters and their sizes mean nothing. Networks of different folds do
not fit together: of several folds the first is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.analyses.inside import Inside, collect, with_group
from benchmarks.analyses.team import Team, Values
from benchmarks.data import FoldData
from benchmarks.runner.group import Group

MOST, POINTS = 300, 2400
SEED, PERPLEXITY = 0, 30.0
PARTS = ("shared", "private")


def embedding(team: Team) -> list[Values | Exception]:
    """The values of each run."""
    fold, group = next(with_group(team))
    team.tell(1.0)
    return list(analyse(group, fold.data))


def analyse(group: Group, data: Sequence[FoldData]) -> list[Values]:
    """The values of each seed of a group of CLCR at one fold."""
    pairs = zip(collect(group, data, "test"), data, strict=True)
    return [_embedded(inside, own.targets("test")) for inside, own in pairs]


def _embedded(inside: Inside, targets: np.ndarray) -> Values:
    from sklearn.manifold import TSNE

    parts, modalities = inside.parts, inside.modalities
    most = min(MOST, POINTS // sum(parts[part][0, ..., 0].size for part in PARTS), len(targets))
    chosen = np.unique(np.linspace(0, len(targets) - 1, max(1, most)).round().astype(int))
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

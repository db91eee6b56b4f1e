"""The open benchmarks on their real files: counts, joins, folds. A wrong join or a leak moves the linear scores below
far outside the ranges, which are those that were measured when the files were published, with room for the split."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks import catalog
from benchmarks.data import FoldData
from benchmarks.prepared import load
from clcr.config import EncoderConfig

SOURCE = os.environ.get("CLCR_DATA", "")
OPEN = ("cmu_mosi", "ravdess", "ucf101", "av_digits")

pytestmark = pytest.mark.skipif(not SOURCE, reason="CLCR_DATA is not set: it names the folder of published files")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All open benchmarks, prepared from their published files."""
    folder = tmp_path_factory.mktemp("cache")
    for name in OPEN:
        catalog.prepare(name, Path(SOURCE), folder)
    return folder


@pytest.fixture(scope="module")
def fold(cache: Path) -> Callable[..., FoldData]:
    def build(name: str, protocol: str, seed: int = 0, number: int = 0) -> FoldData:
        prepared, chosen = catalog.open_prepared(name, "real", cache), catalog.spec(name).protocol(protocol)
        return FoldData(prepared, catalog.spec(name), chosen, catalog.arrange(prepared, chosen, seed), number)

    return build


def accuracy(data: FoldData) -> float:
    model = LogisticRegression(C=0.01, max_iter=300).fit(data.pooled("train"), data.targets("train"))
    return float(model.score(data.pooled("test"), data.targets("test")))


def correlation(data: FoldData, strength: float = 300.0) -> float:
    model = Ridge(alpha=strength).fit(data.pooled("train"), data.targets("train"))
    return float(np.corrcoef(model.predict(data.pooled("test")), data.targets("test"))[0, 1])


@pytest.mark.parametrize("name", OPEN)
def test_every_open_protocol_is_served_and_holds_its_counts(name: str, cache: Path) -> None:
    data = load(catalog.prepared_folder(cache, name), verify=True)
    served = [p for p in catalog.spec(name).protocols if catalog.is_prepared(name, p, cache)]
    assert catalog.choose(name, None, "auto", cache) == (served[0], "real")
    for protocol in served:
        digests = set()
        for seed in range(3):
            arrangement = catalog.arrange(data, protocol, seed)
            catalog.check_counts(protocol, arrangement, name)
            assert min(len(part) for fold in arrangement.folds for part in (fold.train, fold.valid, fold.test)) > 60
            digests.add(catalog.data_digest(data, protocol, arrangement))
        assert len(digests) == (1 if protocol.name in ("transcripts", *ROTATIONS) else 3)


ROTATIONS = ("actor_disjoint", "actor_disjoint_8")


def test_preparing_twice_gives_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    again = catalog.prepare("cmu_mosi", Path(SOURCE), tmp_path)
    for path in catalog.prepared_folder(cache, "cmu_mosi").iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_mosi_holds_no_vector_whose_extractor_saw_the_label(cache: Path) -> None:
    data = catalog.open_prepared("cmu_mosi", "real", cache)
    assert data.array("language100").shape == data.array("vision100").shape == (752, 100)
    assert (data.column("unseen_row") >= 0).sum() == 752
    arrangement = catalog.arrange(data, catalog.spec("cmu_mosi").protocol("utterance"), 0)
    assert len(arrangement.target) == 752
    assert arrangement.group is not None
    assert len(set(arrangement.group.tolist())) == 31


def test_mosi_utterance_vectors_belong_to_their_labels(fold: Callable[..., FoldData]) -> None:
    data = fold("cmu_mosi", "utterance")
    scores = {
        name: float(np.mean([correlation(data.at_fold(k).restrict(name)) for k in range(5)]))
        for name in ("language", "audio", "vision")
    }
    assert scores["language"] == pytest.approx(0.60, abs=0.06)
    assert scores["audio"] == pytest.approx(0.08, abs=0.10)
    assert scores["vision"] == pytest.approx(0.07, abs=0.10)


def test_mosi_transcripts_belong_to_their_labels(cache: Path) -> None:
    data = catalog.open_prepared("cmu_mosi", "real", cache)
    arrangement = catalog.arrange(data, catalog.spec("cmu_mosi").protocol("transcripts"), 0)
    part, y, text = arrangement.folds[0], arrangement.target, data.column("text")[arrangement.rows["language"]]
    x = TfidfVectorizer().fit(text[part.train].tolist())
    model = Ridge(alpha=1.0).fit(x.transform(text[part.train].tolist()), y[part.train])
    predicted = model.predict(x.transform(text[part.test].tolist()))
    assert np.corrcoef(predicted, y[part.test])[0, 1] == pytest.approx(0.54, abs=0.02)  # 0.43-0.54 by the settings
    assert np.abs(predicted - y[part.test]).mean() == pytest.approx(1.12, abs=0.03)


def test_ravdess_joins_sound_and_face_and_its_random_split_is_optimistic(fold: Callable[..., FoldData]) -> None:
    data = fold("ravdess", "actor_disjoint")
    both = float(np.mean([accuracy(data.at_fold(k)) for k in range(6)]))
    face = float(np.mean([accuracy(data.at_fold(k).restrict("vision")) for k in range(6)]))
    assert both == pytest.approx(0.73, abs=0.04)
    assert face == pytest.approx(0.634, abs=0.05)
    assert accuracy(fold("ravdess", "clip_random")) > both + 0.04


def test_ucf101_subset_joins_frames_and_flow(fold: Callable[..., FoldData]) -> None:
    data = fold("ucf101", "subset3")
    assert accuracy(data) == pytest.approx(0.817, abs=0.07)
    assert min(accuracy(data.restrict("rgb")), accuracy(data.restrict("flow"))) > 0.5
    assert data.restrict("flow").batch(data.indices["train"][:4]).inputs[0].shape == (4, 4, 2, 56, 56)


def test_av_digits_pair_sound_and_image_of_one_class(fold: Callable[..., FoldData]) -> None:
    data = fold("av_digits", "paired", seed=6)
    assert set(data.group("test").tolist()) == {"jackson"}  # type: ignore[union-attr]
    assert accuracy(data.restrict("image")) == pytest.approx(0.87, abs=0.04)
    assert accuracy(data.restrict("audio")) == pytest.approx(0.74, abs=0.10)
    assert accuracy(data) > 0.90


@pytest.mark.parametrize(
    ("name", "protocol"), [("ravdess", "actor_disjoint"), ("ucf101", "subset3"), ("av_digits", "paired")]
)
def test_backbones_read_the_real_batches(name: str, protocol: str, fold: Callable[..., FoldData]) -> None:
    data = fold(name, protocol)
    backbones, modalities = data.backbones(EncoderConfig(width=8))
    batch = data.batch(data.indices["train"][:16])
    for backbone, modality, x, mask in zip(backbones, modalities, batch.inputs, batch.masks, strict=True):
        tokens, kept = backbone(x, mask)
        assert bool(tokens.isfinite().all())
        assert tokens.shape[:2] == kept.shape == (16, min(modality.tokens, tokens.shape[1]))

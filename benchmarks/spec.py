"""What a benchmark is: modalities, task, protocols, official counts, citation and licence. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.errors import unknown

LAYOUTS = ("vector", "tokens", "levels", "text", "spectrogram", "image", "frames")
TESTS = ("paired", "welch")
BACKBONES = ("none", "sequence_conv", "image_conv", "frames_conv", "language_model", "resnet18")


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of a protocol.

    array: name of the prepared array it reads (``text`` layout: the column of samples that holds the text).
    layout and shape per sample: vector (D,), tokens (T, D), levels (3, T, D), text () -> levels after the language
    encoder, spectrogram (T, F), image (H, W, C), frames (N, H, W, C). T is the largest number of tokens.
    backbone: key of benchmarks/encoders.py, the same for every method. standardise: per feature, on training data only.
    flow: frames of optical flow (u, v): whoever mirrors them changes the sign of u.
    """

    name: str
    array: str
    layout: str
    shape: tuple[int, ...]
    backbone: str = "none"
    standardise: bool = False
    flow: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise unknown("layout", self.layout, LAYOUTS, self.name)
        if self.backbone not in BACKBONES:
            raise unknown("backbone", self.backbone, BACKBONES, self.name)


@dataclass(frozen=True)
class Protocol:
    """One way to split and score a benchmark.

    folds: 1, or the number of folds of a cross-validated protocol (one run = one seed = all folds).
    n_classes: None for regression. classes: their names in index order, where they are few.
    counts: official number of samples per split, checked wherever real data is prepared.
    group: what a group is ("speaker", "video"), or None. groups_shared: True where groups occur in several splits.
    selection: "validation", or "test" for the literature's habit (marked in every table it enters).
    note: what a reader of its numbers must know, one sentence.
    """

    name: str
    title: str
    modalities: tuple[ModalitySpec, ...]
    n_classes: int | None
    classes: tuple[str, ...] = ()
    folds: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    group: str | None = None
    groups_shared: bool = False
    selection: str = "validation"
    note: str = ""

    def modality(self, name: str) -> ModalitySpec:
        """The modality of that name, or InputError."""
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise unknown("modality", name, [m.name for m in self.modalities], f"protocol {self.name}")


@dataclass(frozen=True)
class BenchmarkSpec:
    """One benchmark. The first protocol is the default of real data; ``twin_protocol`` is what the twin stands for
    (None: no twin). value_range: of the regression target. metrics: names of benchmarks.metrics.METRICS.
    leaks: protocol -> {"train/test": groups that its official lists have on both sides}; facts, checked by a test.
    test: the t test between two methods, declared here before there are runs: "paired" by seed, where equal seeds share
    split and order, or "welch". cycles: protocol -> arrangements that its seeds go through in turn (seed modulo them);
    seeds that share one are no independent runs, and are averaged before a test. Neither enters a run's digest."""

    name: str
    title: str
    task: str
    protocols: tuple[Protocol, ...]
    metrics: tuple[str, ...]
    main_metric: str
    citation: str
    licence: str
    source: str
    value_range: tuple[float, float] | None = None
    twin_protocol: str | None = None
    leaks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    test: str = "paired"
    cycles: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise unknown("test", self.test, TESTS, self.name)
        if self.task not in ("classification", "regression"):
            raise unknown("task", self.task, ("classification", "regression"), self.name)
        if self.main_metric not in self.metrics:
            raise unknown("metric", self.main_metric, self.metrics, self.name)

    def protocol(self, name: str) -> Protocol:
        """The protocol of that name, or InputError."""
        for protocol in self.protocols:
            if protocol.name == name:
                return protocol
        raise unknown("protocol", name, [p.name for p in self.protocols], f"benchmark {self.name}")

    @property
    def loss(self) -> str:
        """The task loss, the same for every method: cross entropy, or L1 for sentiment."""
        return "cross_entropy" if self.task == "classification" else "l1"

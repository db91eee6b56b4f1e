"""Synthetic twins: data with a benchmark's modalities, task and metrics, small, and with a best score that is known.

SYNTHETIC: a twin says whether code works and methods learn, never how a method does on the benchmark it stands for.

How a sample comes about (levels l = shallow, mid, deep; modalities m):
1. Factors. A shared factor s[l] per level, shown by every modality, and a private factor p[l, m] per level and
   modality. Classification: a factor is strength * prototype[class] + N(0, I). Regression: a factor is N(0, I) and the
   clean value the strength-weighted sum of one direction of each. Strength 0 makes a private factor pure nuisance.
2. Label. Classification: the class, replaced by a uniformly drawn one with probability ``label_noise``. Regression: the
   clean value plus N(0, label_noise^2), rounded to steps of 0.2 (so that exact zeros occur) and clipped to the range.
3. Tokens. Modality m shows (s[l], p[l, m]) along its own directions, at its own gain, times an envelope: level 1 two
   bursts of two tokens, level 2 one hump of about half the sequence, level 3 a slow decline over all of it. Events are
   common to the modalities but arrive with the modality's lag and a jitter (asynchrony). Part of the directions is the
   same at all levels and stands for *other* factors at each: what mixes levels confuses factors.
4. Distractors. Some tokens lose their content and carry strong random values along the same directions instead, with a
   mark of their own by which they can be told. All tokens carry noise and an offset of the sample's group.
A modality of layout "levels" has one such sequence per level, where its own level is loud and the others leak in.

The best reachable score is that of a predictor which knows every factor: posterior mode, or conditional median, which
is exactly the best for MAE and within 0.005 of it for the other metrics of regression. Tokens show the factors with
noise, so a method that reads only tokens stays a little below. Arrays are rounded to 1/1024: the last bit of a
machine's mathematics does not reach a digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.errors import InputError
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement, Fold, Prepared, with_digests
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol

SPLITS = ("train", "valid", "test")
LEVELS = 3
SHARED, PRIVATE = 3, 2  # numbers in a shared and in a private factor
CENSUS = 20_000  # samples on which the ceiling is measured: a standard error of at most 0.0035
STEP, FINE = 5, 1024  # labels are multiples of 1 / STEP, token values of 1 / FINE


@dataclass(frozen=True)
class TwinModality:
    """One modality of a twin.

    tokens, width: T and D. gain: how loud each level's factors are. private: label strength of its private factor at
    each level. lag: tokens by which its events come late. layout: "tokens" or "levels". noise: deviation per number.
    """

    name: str
    tokens: int
    width: int
    gain: tuple[float, float, float]
    private: tuple[float, float, float]
    lag: int = 0
    layout: str = "tokens"
    noise: float = 0.5


@dataclass(frozen=True)
class TwinRecipe:
    """All numbers of a twin; equal recipes give equal data, whatever the seed of a run.

    shared: label strength of the shared factor of each level. n_classes: None for regression, where ``spread`` is the
    standard deviation of the clean value around ``centre``. sizes: train, validation, test. groups: their number.
    distractors: share of tokens; distractor: their amplitude. leak: of other levels into a level ("levels" layout).
    overlap: share of a direction's square length that all levels have in common. offset: size of group effects.
    """

    seed: int
    modalities: tuple[TwinModality, ...]
    shared: tuple[float, float, float]
    n_classes: int | None = None
    label_noise: float = 0.05
    centre: float = 0.0
    spread: float = 1.0
    sizes: tuple[int, int, int] = (448, 128, 256)
    groups: int = 24
    distractors: float = 0.35
    distractor: float = 10.0
    leak: float = 0.6
    overlap: float = 0.3
    offset: float = 0.3


@dataclass(frozen=True)
class _Factors:
    """shared (n, 3, SHARED), private[m] (n, 3, PRIVATE) and what the label would be without noise (n,)."""

    shared: np.ndarray
    private: tuple[np.ndarray, ...]
    clean: np.ndarray


def twin_protocol(spec: BenchmarkSpec, recipe: TwinRecipe) -> Protocol:
    """The protocol ``spec.twin_protocol`` with the twin's modalities, classes and sizes in place of the real ones."""
    real = spec.protocol(spec.twin_protocol or "")
    modalities = tuple(
        ModalitySpec(m.name, m.name, m.layout, (LEVELS,) * (m.layout == "levels") + (m.tokens, m.width))
        for m in recipe.modalities
    )
    return Protocol(
        name=real.name,
        title=f"Synthetic twin of: {real.title}",
        modalities=modalities,
        n_classes=recipe.n_classes,
        counts=dict(zip(SPLITS, recipe.sizes, strict=True)),
        group=real.group,
        groups_shared=real.groups_shared,
        note=f"Synthetic data that stands in for {spec.title}; its scores say nothing about the real benchmark.",
    )


def generate(recipe: TwinRecipe, spec: BenchmarkSpec) -> Prepared:
    """The twin's data: array ``m`` (n, T, D) or (n, 3, T, D) per modality, zero after its real tokens; columns id,
    split, group and label. ``truth``: factors (by name), clean (n,), best (the predictions (n, C) or (n,) of who knows
    the factors), ceiling (their score per metric, on CENSUS fresh samples), and per modality informative (n, 3, T),
    distractor (n, T) and directions (3, SHARED + PRIVATE, D)."""
    n, names = sum(recipe.sizes), [m.name for m in recipe.modalities]
    factors = _factors(recipe, n, "data")
    label, group = _label(recipe, spec, factors.clean, "data"), _groups(recipe, spec)
    events = _rng(recipe, "events").uniform(0.1, 0.9, (n, 2))
    drawn = [_modality(recipe, m, factors, events, group) for m in range(len(names))]
    truth: dict[str, Any] = {
        "factors": {
            "shared": factors.shared,
            **{f"private_{x}": p for x, p in zip(names, factors.private, strict=True)},
        },
        "clean": factors.clean,
        "best": _best(recipe, spec, factors),
        "ceiling": _ceiling(recipe, spec),
    }
    for key in ("informative", "distractor", "directions"):
        truth[key] = {name: tokens[key] for name, tokens in zip(names, drawn, strict=True)}
    samples = {
        "id": np.array([f"{spec.name}-twin-{i:04d}" for i in range(n)]),
        "split": np.repeat(SPLITS, recipe.sizes),
        "group": group,
        "label": label,
    }
    arrays = {name: tokens["tokens"] for name, tokens in zip(names, drawn, strict=True)}
    lengths = {name: tokens["lengths"] for name, tokens in zip(names, drawn, strict=True)}
    return with_digests(Prepared(spec.name, arrays, samples, lengths, truth=truth, origin="twin"))


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The twin's one split: fixed by the recipe, so ``seed`` changes nothing. InputError for cross-validation."""
    del seed
    if protocol.folds != 1:
        raise InputError(f"{prepared.name}: protocol {protocol.name}: the twin has one split; use --data real")
    split = prepared.column("split")
    every = np.arange(len(split), dtype=np.int64)
    return Arrangement(
        rows={modality.name: every for modality in protocol.modalities},
        target=prepared.column("label"),
        ids=prepared.column("id"),
        folds=(Fold(*(np.flatnonzero(split == name).astype(np.int64) for name in SPLITS)),),
        group=prepared.column("group"),
    )


def _rng(recipe: TwinRecipe, purpose: str, index: int = 0) -> np.random.Generator:
    """A random stream of its own for each purpose (and modality): a change to one moves no other."""
    return np.random.default_rng([recipe.seed, index, *purpose.encode()])


def _strengths(recipe: TwinRecipe) -> list[tuple[int, tuple[float, float, float]]]:
    """(numbers in the factor, strength per level) of the shared factors, then of each modality's private ones."""
    return [(SHARED, recipe.shared), *((PRIVATE, m.private) for m in recipe.modalities)]


def _loadings(recipe: TwinRecipe) -> list[np.ndarray]:
    """What ties factors to the label, for each entry of ``_strengths``: prototypes (C, 3, k), centred, of mean square
    length strength^2; or for regression directions (1, 3, k), scaled so that the clean value has variance spread^2."""
    rng = _rng(recipe, "loadings")
    drawn = [rng.standard_normal((recipe.n_classes or 1, LEVELS, k)) for k, _ in _strengths(recipe)]
    if recipe.n_classes is not None:
        drawn = [x - x.mean(axis=0) for x in drawn]
    sizes = [np.sqrt((x**2).sum(axis=2, keepdims=True).mean(axis=0)) for x in drawn]
    strengths = [np.array(strength)[None, :, None] for _, strength in _strengths(recipe)]
    total = recipe.spread / np.sqrt(sum((s**2).sum() for s in strengths)) if recipe.n_classes is None else 1.0
    return [x / size * s * total for x, size, s in zip(drawn, sizes, strengths, strict=True)]


def _factors(recipe: TwinRecipe, n: int, purpose: str) -> _Factors:
    rng, loadings = _rng(recipe, f"factors {purpose}"), _loadings(recipe)
    noise = [rng.standard_normal((n, *x.shape[1:])) for x in loadings]
    if recipe.n_classes is None:
        clean = recipe.centre + sum((x * z).sum(axis=(1, 2)) for x, z in zip(loadings, noise, strict=True))
        return _Factors(noise[0], tuple(noise[1:]), np.asarray(clean))
    clean = rng.permutation(np.arange(n) % recipe.n_classes)
    drawn = [x[clean] + z for x, z in zip(loadings, noise, strict=True)]
    return _Factors(drawn[0], tuple(drawn[1:]), clean)


def _label(recipe: TwinRecipe, spec: BenchmarkSpec, clean: np.ndarray, purpose: str) -> np.ndarray:
    rng = _rng(recipe, f"label {purpose}")
    if recipe.n_classes is None:
        return _on_scale(clean + recipe.label_noise * rng.standard_normal(len(clean)), spec)
    replaced = rng.random(len(clean)) < recipe.label_noise
    return np.where(replaced, rng.integers(0, recipe.n_classes, len(clean)), clean)


def _on_scale(values: np.ndarray, spec: BenchmarkSpec) -> np.ndarray:
    """Rounded to the label's steps and clipped to its range."""
    low, high = spec.value_range or (-np.inf, np.inf)
    return np.asarray(np.clip(_rounded(values, STEP), np.float32(low), np.float32(high)))


def _rounded(values: np.ndarray, steps: int) -> np.ndarray:
    """To multiples of 1 / steps, without negative zeros."""
    return np.asarray((np.round(values * steps) / steps + 0.0).astype(np.float32))


def _best(recipe: TwinRecipe, spec: BenchmarkSpec, factors: _Factors) -> np.ndarray:
    """Predictions of who knows all factors: log-likelihoods of the classes (n, C), or the conditional median (n,)."""
    if recipe.n_classes is None:
        return _on_scale(factors.clean, spec)
    pairs = zip(_loadings(recipe), (factors.shared, *factors.private), strict=True)
    return np.asarray(sum(_match(x, z) for x, z in pairs))


def _match(prototypes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Log-likelihood (n, C) of unit normals around prototypes (C, 3, k), up to a constant of the sample."""
    return np.asarray(np.einsum("nlk,clk->nc", factor, prototypes) - 0.5 * (prototypes**2).sum(axis=(1, 2)))


def _ceiling(recipe: TwinRecipe, spec: BenchmarkSpec) -> dict[str, float]:
    factors = _factors(recipe, CENSUS, "census")
    return compute(spec.metrics, _best(recipe, spec, factors), _label(recipe, spec, factors.clean, "census"))


def _groups(recipe: TwinRecipe, spec: BenchmarkSpec) -> np.ndarray:
    """A group per sample. Splits have groups of their own unless the protocol shares them."""
    rng, edges = _rng(recipe, "groups"), np.cumsum((0, *recipe.sizes))
    if spec.protocol(spec.twin_protocol or "").groups_shared:
        return rng.integers(0, recipe.groups, int(edges[-1]))
    bounds = np.round(edges * recipe.groups / edges[-1]).astype(int)
    drawn = [rng.integers(bounds[i], bounds[i + 1], recipe.sizes[i]) for i in range(len(SPLITS))]
    return np.concatenate(drawn)


def _modality(
    recipe: TwinRecipe, index: int, factors: _Factors, events: np.ndarray, group: np.ndarray
) -> dict[str, np.ndarray]:
    """Tokens, lengths, masks and directions of one modality."""
    modality, n = recipe.modalities[index], len(group)
    rng, directions = _rng(recipe, "tokens", index), _directions(recipe, index)
    lengths = rng.integers(-(-modality.tokens * 5 // 8), modality.tokens + 1, n)
    real = np.arange(modality.tokens) < lengths[:, None]
    envelope = _envelope(modality, events, lengths, rng) * real[:, None]
    distractor = real & (rng.random(real.shape) < recipe.distractors) & (envelope[:, 0] == 0)
    envelope *= ~distractor[:, None]
    content = np.concatenate([factors.shared, factors.private[index]], axis=2)
    content = np.einsum("nlk,lkd->nld", content, directions[:, :-1]) + directions[:, -1]  # the last row marks an event
    shown = envelope[..., None] * (content * np.array(modality.gain)[None, :, None])[:, :, None]
    tokens = _levels(recipe, shown) if modality.layout == "levels" else shown.sum(axis=1)
    nuisance = _nuisance(recipe, index, distractor, directions) + _offsets(recipe, index)[group][:, None]
    tokens = tokens + (nuisance[:, None] if modality.layout == "levels" else nuisance)
    tokens += modality.noise * rng.standard_normal(tokens.shape)
    tokens *= real[:, None, :, None] if modality.layout == "levels" else real[..., None]
    return {
        "tokens": _rounded(tokens, FINE),
        "lengths": lengths,
        "informative": envelope > 0.2,
        "distractor": distractor,
        "directions": directions[:, :-1],
    }


def _directions(recipe: TwinRecipe, index: int) -> np.ndarray:
    """(3, SHARED + PRIVATE + 1, D): unit directions of each level's factors and of its event mark. The part that the
    levels have in common is the same three directions, turned by one place from level to level."""
    rng, width = _rng(recipe, "directions", index), recipe.modalities[index].width
    own = _unit(rng.standard_normal((LEVELS, SHARED + PRIVATE + 1, width)))
    common = _unit(rng.standard_normal((SHARED, width)))
    turned = np.stack([np.roll(common, level, axis=0) for level in range(LEVELS)])
    own[:, :SHARED] = np.sqrt(1 - recipe.overlap) * own[:, :SHARED] + np.sqrt(recipe.overlap) * turned
    return _unit(own)


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt((x**2).sum(axis=-1, keepdims=True)))


def _envelope(modality: TwinModality, events: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 3, T): when each level speaks; events (n, 2) are in shares of the sequence."""
    steps = np.arange(modality.tokens)[None, :]
    late = events * lengths[:, None] + modality.lag + rng.integers(-1, 2, events.shape)
    starts = np.clip(np.round(late), 0, lengths[:, None] - 2)[..., None]
    bursts = ((steps[None] >= starts) & (steps[None] <= starts + 1)).any(axis=1)
    middle, half = late.mean(axis=1, keepdims=True) + rng.uniform(-1, 1, (len(late), 1)), modality.tokens / 4
    hump = np.cos(0.5 * np.pi * np.clip((steps - middle) / half, -1, 1))
    phase = rng.uniform(-0.2, 0.2, (len(late), 1))
    decline = 0.6 + 0.4 * np.cos(np.pi * (steps / lengths[:, None] - phase))
    return np.stack([bursts.astype(np.float64), hump, decline], axis=1)


def _levels(recipe: TwinRecipe, shown: np.ndarray) -> np.ndarray:
    """Per level its own content and a leak of the others: (n, 3, T, D) -> (n, 3, T, D)."""
    mixing = np.where(np.eye(LEVELS, dtype=bool), 1.0, recipe.leak)
    return np.asarray(np.einsum("kl,nltd->nktd", mixing, shown))


def _nuisance(recipe: TwinRecipe, index: int, distractor: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, T, D): random values along the shared directions, and a mark, on distractor tokens; 0 elsewhere."""
    rng = _rng(recipe, "distractors", index)
    coordinates = rng.standard_normal((*distractor.shape, LEVELS, SHARED)) / np.sqrt(LEVELS)
    mark = _unit(rng.standard_normal((1, directions.shape[-1])))
    random = np.einsum("ntlk,lkd->ntd", coordinates, directions[:, :SHARED])
    return np.asarray(recipe.distractor * distractor[..., None] * (random + mark))


def _offsets(recipe: TwinRecipe, index: int) -> np.ndarray:
    """(groups, D): what all tokens of a group have in common."""
    shape = (recipe.groups, recipe.modalities[index].width)
    return recipe.offset * _rng(recipe, "offsets", index).standard_normal(shape)

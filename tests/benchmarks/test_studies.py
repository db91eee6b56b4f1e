"""Settings and studies: what studies.yaml declares is resolved, selected and refused as the rest of the suite is."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from benchmarks import catalog, studies
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import names, plan
from benchmarks.runner.config import load_tuned, resolve
from benchmarks.runner.execute import Options, describe, setting
from benchmarks.runner.names import profile_names
from benchmarks.runner.plan import Selection

KEY = RunKey("cmu_mosi", "transcripts", "real", "open", "clcr", "full", 0)
TWIN = RunKey("crema_d", catalog.twin_protocol("crema_d").name, "twin", "tiny", "late_fusion", "full", 0)


def with_profile(profile: str, key: RunKey = KEY) -> RunKey:
    return replace(key, profile=profile)


def test_a_setting_speaks_over_the_profile_and_what_its_search_found() -> None:
    found = load_tuned("open")["cmu_mosi.transcripts"]["clcr"]
    plain, fixed = resolve(KEY), resolve(with_profile("open+share-30"))
    assert (fixed.method.budget, fixed.method.fixed_budget) == ("fixed", 0.3)
    assert fixed.training == plain.training
    assert fixed.training.lr == found["training.lr"]
    both = resolve(with_profile("open+share-30+dropout-0"))
    assert (both.method, both.encoder.dropout) == (fixed.method, 0.0)


def test_a_setting_without_the_search_starts_from_the_profile() -> None:
    assert resolve(with_profile("open+untuned")) == resolve(KEY, tuned=False)
    published = resolve(with_profile("open+sgd-published")).training
    assert (published.optimizer, published.lr, published.momentum, published.epochs) == ("sgd", 1e-3, 0.9, 100)


def test_a_search_of_its_own_speaks_over_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open.yaml", "open.tuned.yaml"):
        (tmp_path / name).write_bytes((names.PROFILES / name).read_bytes())
    monkeypatch.setattr(names, "PROFILES", tmp_path)
    before = resolve(with_profile("open+sgd")).training
    assert before.lr == studies.declared()[0]["sgd"].values["training.lr"]
    (tmp_path / "open+sgd.tuned.yaml").write_text("tuned:\n  cmu_mosi.transcripts: {clcr: {training.lr: 0.05}}\n")
    assert resolve(with_profile("open+sgd")).training == replace(before, lr=0.05)
    assert resolve(KEY).training.optimizer == "adamw"
    assert profile_names() == ["open"]


def test_a_setting_may_speak_to_one_method_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = studies.Setting("mine", {"encoder.pooling": "attention"}, "none", {"clcr": {"method.heads": 2}})
    monkeypatch.setattr(studies, "declared", lambda: ({"mine": mine}, {}))
    ours, other = (resolve(with_profile("open+mine", replace(KEY, method=method))) for method in ("clcr", "misa"))
    assert (ours.encoder.pooling, other.encoder.pooling, ours.method.heads) == ("attention", "attention", 2)
    assert other.method == resolve(replace(KEY, method="misa"), tuned=False).method


@pytest.mark.parametrize(
    ("profile", "told"),
    [("open+shar-30", "did you mean 'share-30'"), ("opne+share-30", "did you mean 'open'"), ("open+", "setting ''")],
)
def test_unknown_parts_of_a_profile_are_refused(profile: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        plan.select(Selection(("crema_d",), profile=profile, data="twin"), tmp_path)


def test_every_declared_setting_resolves_for_the_methods_of_its_studies() -> None:
    for name, study in studies.declared()[1].items():
        for benchmark, protocol, profile in studies.one_each(study):
            for method in study.methods or ("late_fusion", "linear"):
                if method != "unimodal":
                    resolve(RunKey(benchmark, protocol, study.data, profile, method, "full", 0))
        assert plan.of_study(study)[0].seeds, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("settings: {a: {tuned: maybe}}", "settings.a.tuned"),
        ("settings: [a]", "expected a mapping"),
        ("settings: {a: {methods: {clrc: {x.y: 1}}}}", "did you mean 'clcr'"),
        ("settings: {a: {methods: {clcr: 1}}}", "settings.a.methods.clcr"),
        ("stories: {}", "did you mean 'studies'"),
        ("studies: {a: {title: x}}", "'protocols' is missing"),
        ("studies: {a: {title: x, protocols: [m.t], settings: [b]}}", "setting 'b'"),
        ("settings: {bc: {}}\nstudies: {a: {title: x, protocols: [m.t], settings: [d*]}}", r"setting 'd\*'"),
        ("studies: {a: {title: x, protocols: m.t}}", "expected a list of names"),
        ("studies: {a: {title: x, protocols: [m.t], main: 1}}", "expected bool"),
        ("studies: {a: {title: x, protocols: [m.t], colour: red}}", "field 'colour'"),
        ("screening: {a: {k: [1]}}", r"expected \[low, high\]"),
        ("screening: {" + ", ".join(f"f{n}: {{k{n}: [0, 1]}}" for n in range(17)) + "}", "room for 16"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "studies.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told) as refused:
        studies.declared(path)
    assert "studies.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_screening_mixes_no_main_effect_with_another_or_with_a_pair() -> None:
    design = np.array(studies.design())
    assert design.shape == (32, 16)
    assert set(np.unique(design)) == {-1, 1}
    assert not design.sum(0).any()
    main = design.T @ design
    assert np.array_equal(main, 32 * np.eye(16))
    for a, b in combinations(range(16), 2):
        assert not (design.T @ (design[:, a] * design[:, b])).any()


def test_screening_settings_hold_the_levels_of_the_design() -> None:
    settings, factors = studies.declared()[0], studies.factors()
    for number, levels in enumerate(studies.design(), 1):
        values = settings[f"screen-{number:02d}"].values
        for (name, keys), level in zip(factors.items(), levels, strict=True):
            for key, (low, high) in keys.items():
                assert values[key] == (high if level > 0 else low), (number, name)


def test_a_share_of_the_training_samples_is_nested_and_leaves_the_rest(tmp_path: Path) -> None:
    options = Options(tmp_path, tmp_path)
    whole = setting(TWIN, options).arrangement.folds[0]
    parts = [setting(with_profile(f"tiny+data-{n}", TWIN), options).arrangement.folds[0] for n in (10, 25, 50)]
    assert [len(part.train) for part in parts] == [round(len(whole.train) * share) for share in (0.1, 0.25, 0.5)]
    for smaller, larger in zip(parts, [*parts[1:], whole], strict=True):
        assert np.isin(smaller.train, larger.train).all()
        assert np.array_equal(smaller.valid, whole.valid)
        assert np.array_equal(smaller.test, whole.test)
    other = setting(with_profile("tiny+data-10", replace(TWIN, seed=1)), options).arrangement.folds[0]
    assert not np.array_equal(other.train, parts[0].train)
    same = setting(with_profile("tiny+data-10", replace(TWIN, method="clcr")), options).arrangement.folds[0]
    assert np.array_equal(same.train, parts[0].train)


def test_the_share_is_part_of_what_a_run_is_also_of_a_fitted_one(tmp_path: Path) -> None:
    options = Options(tmp_path, tmp_path)
    for method in ("late_fusion", "linear"):
        key = replace(TWIN, method=method)
        plain, tenth = describe(key, options), describe(with_profile("tiny+data-10", key), options)
        assert "data" not in plain["config"]
        assert tenth["config"]["data"] == {"fraction": 0.1}
        assert plain["data_digest"] != tenth["data_digest"]


def test_a_study_is_every_setting_on_every_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols = tuple(f"{name}.{catalog.twin_protocol(name).name}" for name in ("crema_d", "ave"))
    common = {"profile": "tiny", "data": "twin", "methods": ("linear",), "seeds": "0-1"}
    mine = studies.Study("mine", "t", protocols, settings=("share-30", "share-70"), **common)
    settings = studies.declared()[0]
    monkeypatch.setattr(studies, "declared", lambda: (settings, {"mine": mine}))
    keys, _ = plan.select(Selection(studies=("mine",)), tmp_path)
    assert len(keys) == len(set(keys)) == 2 * 2 * 2
    assert {key.profile for key in keys} == {"tiny+share-30", "tiny+share-70"}
    with pytest.raises(InputError, match="study 'mime'"):
        plan.select(Selection(studies=("mime",)), tmp_path)

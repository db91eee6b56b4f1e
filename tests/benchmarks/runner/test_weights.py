"""Weights that runs keep: they give the run's own predictions again, and only they are taken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_execute
import torch
from test_execute import KEY
from test_resume import After

from benchmarks.errors import InputError, Stopped
from benchmarks.record import RunKey
from benchmarks.runner import execute as engine
from benchmarks.runner import serve, store, weights
from benchmarks.runner.execute import Options

options = test_execute.options
KEYS = (KEY, replace(KEY, seed=1))


def served(keys: tuple[RunKey, ...], options: Options) -> list[str]:
    return [end["state"] for end in serve.serve(serve.Job(keys), engine, options, lambda _: None)]


def folders(keys: tuple[RunKey, ...], options: Options) -> list[Path]:
    return [store.folder_of(options.out, key) for key in keys]


@pytest.mark.parametrize("keep", ["best", "epochs"])
def test_weights_give_the_predictions_of_the_run_bit_for_bit(keep: str, options: Options) -> None:
    options = replace(options, keep=keep)
    assert served(KEYS, options) == ["done", "done"]
    kept = [weights.read(folder) for folder in folders(KEYS, options)]
    group = weights.restore(kept, KEYS, options, 0)
    for found, folder in zip(group.evaluate("test"), folders(KEYS, options), strict=True):
        written = store.read_predictions(folder, store.read_record(folder))
        assert np.array_equal(found.prediction, written["prediction"])
    record = store.read_record(folders(KEYS, options)[0])
    epochs = record.what["config"]["training"]["epochs"]
    assert sorted(kept[0].folds[0]) == (list(range(1, epochs + 1)) if keep == "epochs" else [kept[0].best[0]])
    alone = weights.restore(kept[1:], KEYS[1:], options, 0)
    assert np.array_equal(alone.evaluate("test")[0].prediction, group.evaluate("test")[1].prediction)


def test_keeping_changes_no_number_and_a_run_without_weights_is_made_again(options: Options) -> None:
    assert served(KEYS, options) == ["done", "done"]
    before = [store.read_record(folder) for folder in folders(KEYS, options)]
    with pytest.raises(InputError, match="--keep best"):
        weights.read(folders(KEYS, options)[0])
    keeping = replace(options, keep="best")
    assert store.lacks_weights(folders(KEYS, options)[0], KEY, "best")
    assert served(KEYS, keeping) == ["done", "done"]
    after = [store.read_record(folder) for folder in folders(KEYS, options)]
    assert [(x.digest, x.predictions) for x in before] == [(x.digest, x.predictions) for x in after]
    assert served(KEYS, keeping) == ["kept", "kept"]
    assert served(KEYS, options) == ["kept", "kept"]
    assert served(KEYS, replace(options, keep="epochs")) == ["done", "done"]
    assert served(KEYS, keeping) == ["kept", "kept"]


def test_all_epochs_are_kept_across_an_interruption(options: Options, tmp_path: Path) -> None:
    options = replace(options, keep="epochs")
    places = [tmp_path / "whole", tmp_path / "cut"]
    engine.execute([KEY], options, places[:1], lambda _: None)
    with pytest.raises(Stopped):
        engine.execute([KEY], options, places[1:], lambda _: None, After(20))
    engine.execute([KEY], options, places[1:], lambda _: None)
    whole, cut = (torch.load(place / store.WEIGHTS["epochs"], weights_only=True) for place in places)
    assert whole["best"] == cut["best"]
    assert len(whole["folds"][0]) > 1
    for epoch, values in whole["folds"][0].items():
        for name, value in values.items():
            assert torch.equal(value, cut["folds"][0][epoch][name]), (epoch, name)


class Mischief:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch mischief",)


@pytest.mark.parametrize("case", ["code", "text", "short", "folds", "digest", "shape", "epoch"])
def test_weights_of_a_stranger_are_refused_in_one_line(case: str, options: Options) -> None:
    options = replace(options, keep="best")
    served(KEYS[:1], options)
    (folder,) = folders(KEYS[:1], options)
    path = folder / store.WEIGHTS["best"]
    content = torch.load(path, weights_only=True)
    if case == "code":
        torch.save({**content, "more": Mischief()}, path)
    elif case == "text":
        path.write_text("no weights")
    elif case == "short":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        first = content["folds"][0][content["best"][0]]
        name = next(iter(first))
        changed = {
            "folds": {"folds": []},
            "digest": {"digest": "0" * 64},
            "shape": {"folds": [{content["best"][0]: {**first, name: torch.zeros(3)}}]},
            "epoch": {"best": [99]},
        }[case]
        torch.save({**content, **changed}, path)
    with pytest.raises(InputError, match="--keep") as refused:
        weights.restore([weights.read(folder)], KEYS[:1], options, 0)
    assert "\n" not in str(refused.value)
    assert not (Path.cwd() / "mischief").exists()


def test_an_epoch_that_was_not_kept_is_named(options: Options) -> None:
    options = replace(options, keep="best")
    served(KEYS[:1], options)
    kept = weights.read(folders(KEYS[:1], options)[0])
    other = 1 if kept.best[0] != 1 else 2
    with pytest.raises(InputError, match=f"epoch {other}.*--keep epochs"):
        weights.restore([kept], KEYS[:1], options, 0, other)


def test_a_fitted_method_keeps_none_and_lacks_none(options: Options) -> None:
    linear = (replace(KEY, method="linear", variant="full"),)
    assert served(linear, replace(options, keep="best")) == ["done"]
    assert served(linear, replace(options, keep="best")) == ["kept"]

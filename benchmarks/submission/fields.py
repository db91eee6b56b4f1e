"""The types of what a submitted line says, field by field: what comes from elsewhere is never taken at its word."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any

from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner.plan import MAX_SEED

MOST_TEXT, MOST_ENTRIES = 300, 1000
SHA, COMMIT, NAME = (re.compile(pattern) for pattern in ("[0-9a-f]{64}", "[0-9a-f]{40}", "[a-z][a-z0-9_]{0,39}"))
URL = re.compile(r"https://[^\s<>\"'`]{1,200}")
Test = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """A finite number."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def is_count(value: Any) -> bool:
    """A whole number from 0 on."""
    return type(value) is int and 0 <= value < 2**63


def is_text(value: Any) -> bool:
    """One printable line."""
    return isinstance(value, str) and value.isprintable() and len(value) <= MOST_TEXT


def is_moment(value: Any) -> bool:
    """A moment in ISO 8601."""
    try:
        return is_text(value) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def matches(pattern: re.Pattern[str]) -> Test:
    """Text that fits a pattern from end to end."""
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def listed(test: Test) -> Test:
    """A list of such values."""
    return lambda value: isinstance(value, list) and len(value) <= MOST_ENTRIES and all(map(test, value))


def named(test: Test) -> Test:
    """An object of such values."""
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= MOST_ENTRIES
        and all(map(is_text, value))
        and all(map(test, value.values()))
    )


def shaped(**tests: Test) -> Test:
    """An object with exactly these fields."""
    return lambda value: (
        isinstance(value, dict) and set(value) == set(tests) and all(test(value[name]) for name, test in tests.items())
    )


def one_of(*tests: Test) -> Test:
    """A value that passes one of the tests."""
    return lambda value: any(test(value) for test in tests)


is_name, is_sha = matches(NAME), matches(SHA)
is_seed: Test = lambda value: type(value) is int and 0 <= value <= MAX_SEED  # noqa: E731
is_flag: Test = lambda value: isinstance(value, bool)  # noqa: E731
is_setting = one_of(is_number, is_text, is_flag, lambda value: value is None)
is_config = one_of(is_setting, listed(is_setting))
is_scores = named(named(is_number))
is_key = shaped(**{each.name: is_seed if each.name == "seed" else is_name for each in fields_of(RunKey)})
is_what: Test = lambda value: isinstance(value, dict) and named(named(is_config))(value.get("config"))  # noqa: E731

SELECTIONS = (
    shaped(metric=is_name, value=is_number, epoch=is_count),
    shaped(metric=is_name, value=is_number, epochs=listed(is_count), values=listed(is_number)),
    lambda value: value == {},
)
RECORD: Mapping[str, tuple[Test, str]] = {
    "key": (is_key, "the seven parts of a run, in small letters, digits and _"),
    "what": (is_what, "an object whose config holds sections of plain settings"),
    "status": (is_name, "done"),
    "selection": (one_of(*SELECTIONS), "metric, epoch and value"),
    "metrics": (is_scores, "finite numbers by metric by split"),
    "folds": (listed(is_scores), "a list of finite numbers by metric by split"),
    "diagnostics": (named(is_number), "finite numbers by name"),
    "n_parameters": (is_count, "a whole number"),
    "time_s": (lambda value: is_number(value) and value >= 0, "seconds"),
    "peak_memory_bytes": (is_count, "a whole number"),
    "predictions": (one_of(is_sha, lambda value: value == ""), "a sha256"),
    "provenance": (lambda value: isinstance(value, dict), "an object"),
    "error": (lambda value: isinstance(value, str) and value.isprintable() and len(value) <= 4000, "one line of text"),
    "digest": (is_sha, "a sha256"),
    "schema": (is_count, "a whole number"),
}
METHOD: Mapping[str, Test] = {
    "label": lambda value: is_text(value) and 0 < len(value) <= 60,
    "citation": is_text,
    "year": is_count,
    "package": lambda value: is_text(value) and bool(value),
    "version": lambda value: is_text(value) and bool(value),
    "url": matches(URL),
    "commit": matches(COMMIT),
    "dirty": is_flag,
}
PROVENANCE: Mapping[str, tuple[Test, str]] = {
    "commit": (matches(COMMIT), "the suite's commit, 40 digits: run from a checkout of it"),
    "dirty": (is_flag, "true or false"),
    "finished_at": (is_moment, "a moment in ISO 8601"),
    "started_at": (is_moment, "a moment in ISO 8601"),
    "versions": (named(is_text), "versions by name"),
    "cpu": (is_text, "one line"),
    "cpu_kind": (is_text, "one line"),
    "device": (is_text, "one line"),
    "threads": (is_count, "a whole number"),
    "together": (listed(is_seed), "the seeds that trained together"),
    "resumed": (
        listed(shaped(epoch=is_count, fold=is_count, cpu_kind=is_text, cpu_kind_before=is_text, at=is_moment)),
        "where the run was taken up again: epoch, fold, cpu_kind, cpu_kind_before, at",
    ),
    "best_together": (shaped(seeds=is_count, why=is_text), "a number of seeds and why it is that"),
    "ceiling": (named(is_number), "finite numbers by metric"),
    "language_model": (is_text, "one line"),
    "not_official": (is_text, "one line"),
    "method": (lambda value: isinstance(value, dict), "an object"),
}
NEEDED = ("commit", "dirty", "finished_at", "versions", "device")
AGAIN = "make it again with `clcr run` and `clcr report`"


def check(raw: Any, where: str) -> None:
    """InputError for the first field of a record that is missing, unknown or not of its type."""
    if not isinstance(raw, dict):
        raise InputError(f"{where}: not a record; {AGAIN}")
    if wrong := sorted(set(raw) ^ ({each.name for each in fields_of(RunRecord)} | {"digest"}), key=str):
        raise InputError(f"{where}: field {wrong[0][:60]!r} is missing or unknown; {AGAIN}")
    _check(raw, RECORD, where)
    told = raw["provenance"]
    if unknown := sorted(set(told) - set(PROVENANCE)):
        raise InputError(f"{where}: field 'provenance.{unknown[0][:60]}' is unknown; {AGAIN}")
    if raw["status"] != "failed":
        for name in NEEDED:
            if name not in told:
                raise InputError(f"{where}: field 'provenance.{name}' is missing; {AGAIN}")
    _check(told, PROVENANCE, where, "provenance.")


def _check(raw: Mapping[str, Any], tests: Mapping[str, tuple[Test, str]], where: str, prefix: str = "") -> None:
    for name, (test, expected) in tests.items():
        if name in raw and not test(raw[name]):
            raise InputError(f"{where}: field '{prefix}{name}' is {shown(raw[name])}, expected {expected}; {AGAIN}")


def shown(value: object) -> str:
    """A value in a message: short, on one line, nothing that a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_curve(raw: Any, where: str) -> None:
    """InputError where a line is not a learning curve."""
    course = shaped(loss=listed(is_number), score=listed(is_number))
    whole = shaped(key=is_key, digest=is_sha, predictions=is_sha, metric=is_name, split=is_name, folds=listed(course))
    if not whole(raw) or not raw["folds"]:
        raise InputError(f"{where}: not a learning curve of finite numbers; {AGAIN}")
    if any(len(fold["loss"]) != len(fold["score"]) or not fold["score"] for fold in raw["folds"]):
        raise InputError(f"{where}: field 'folds': not one loss and one score an epoch; {AGAIN}")

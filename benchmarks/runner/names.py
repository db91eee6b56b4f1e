"""Names of methods and profiles, as runs carry them. No torch."""

from __future__ import annotations

from pathlib import Path

from baselines import METHODS
from benchmarks import studies
from benchmarks.errors import unknown

PROFILES = Path(__file__).resolve().parent.parent / "profiles"


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if not path.stem.endswith(".tuned"))


def check_profile(profile: str) -> None:
    """InputError, with the nearest name, for a profile or a setting of it that is not there."""
    base, _ = studies.split(profile)
    if base not in profile_names():
        raise unknown("profile", base, profile_names(), "--profile")


def base_of(method: str) -> str:
    """The row of the table of methods that a method belongs to: "unimodal" for "unimodal_audio"."""
    if method in METHODS:
        return method
    return next((row for row in METHODS if METHODS[row].per_modality and method.startswith(f"{row}_")), method)

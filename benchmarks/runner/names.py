"""Names of methods and profiles, as runs carry them. No torch."""

from __future__ import annotations

from pathlib import Path

from baselines import METHODS

PROFILES = Path(__file__).resolve().parent.parent / "profiles"


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if not path.stem.endswith(".tuned"))


def base_of(method: str) -> str:
    """The row of the table of methods that a method belongs to: "unimodal" for "unimodal_audio"."""
    if method in METHODS:
        return method
    return next((row for row in METHODS if METHODS[row].per_modality and method.startswith(f"{row}_")), method)

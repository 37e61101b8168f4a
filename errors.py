"""The one base class of every error that is the user's to mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["VitruviusError", "nearest"]


class VitruviusError(Exception):
    """A mistake in what the user gave: the text says what was expected, what came, and where.

    The command prints the text as one sentence (or one list) and ends with exit code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Names among ``known`` that resemble ``name``, as a clause for an error text.

    >>> nearest("vit_digit", ["vit_digits", "deit"])
    "did you mean 'vit_digits'? known: deit, vit_digits"
    """
    names = sorted(known)
    matches = get_close_matches(name, names, n=3, cutoff=0.5)
    listing = "known: " + (", ".join(names) if names else "none")
    if not matches:
        return listing
    return "did you mean " + " or ".join(f"'{match}'" for match in matches) + f"? {listing}"

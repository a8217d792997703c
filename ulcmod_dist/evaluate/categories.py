"""Categories as numbers, and how many of them the evaluation takes apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

MAX_COMPARED = 50
"""Categories that are told apart at most: what compares them grows with their square."""

MAX_LISTED = 1000
"""Categories that are listed by name at most: a corpus may have one for every sample."""


@dataclass(frozen=True, eq=False)
class CodedCategories:
    """The category of each sample, as a number."""

    names: tuple[str, ...]  # names of the C categories, sorted
    codes: Labels  # category of each sample, -1 where it has none, shape (samples,)

    @classmethod
    def of(cls, categories: Sequence[str | None]) -> "CodedCategories":
        """From names."""
        # Not an array of texts, in which each takes the space of the longest.
        names = tuple(sorted({name for name in categories if name is not None}))
        positions: dict[str | None, int] = {name: code for code, name in enumerate(names)}
        codes = (positions.get(name, -1) for name in categories)
        return cls(names, np.fromiter(codes, np.int64, len(categories)))

    @property
    def counts(self) -> Labels:
        """Samples of each category, shape (C,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def most_frequent(counts: Labels, most: int) -> Labels:
    """The largest of the counts, at most so many; ascending positions, the lower of equals."""
    return np.sort(np.argsort(-counts, kind="stable")[:most])

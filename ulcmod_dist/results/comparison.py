"""Two sets of modules side by side, and the versions of one run over time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.results.types import Counts, share_rows


@dataclass(frozen=True)
class ModulePair:
    """Two modules that correspond."""

    module: int  # module of the first run
    other: int  # module of the second run
    units: int  # units in both
    units_overlap: float  # those units as a share of the units in either (Jaccard index)
    samples: int  # samples in both
    samples_overlap: float  # likewise


@dataclass(frozen=True, eq=False)
class Matching:
    """The modules of two runs matched one to one, over the units and samples that both have."""

    pairs: tuple[ModulePair, ...]  # modules that correspond, in order of the first run's modules
    unmatched: tuple[int, ...]  # modules of the first run without a partner
    other_unmatched: tuple[int, ...]  # modules of the second run without a partner
    unit_counts: Counts  # shared units, first run's module by second run's, shape (K, other K)
    sample_counts: Counts  # shared samples, likewise
    units_adjusted_rand: float | None  # adjusted Rand index over shared units; None without any
    samples_adjusted_rand: float | None  # the same over shared samples
    units_moved: int  # shared units that left their module's partner
    samples_moved: int  # shared samples that did

    @property
    def shared_units(self) -> int:
        """Units that both runs have."""
        return int(self.unit_counts.sum())

    @property
    def shared_samples(self) -> int:
        """Samples that both runs have."""
        return int(self.sample_counts.sum())

    @property
    def descent(self) -> NDArray[np.bool_]:
        """Which modules of the second run descend from which of the first, shape (K, other K).

        One does if it holds more than half of the other's members, or has more than half of its own
        from it: the mean share of units and of samples, or of what is shared alone.
        """
        shared = [c for c in (self.unit_counts, self.sample_counts) if c.any()]
        kept = np.mean([share_rows(counts) for counts in shared], axis=0)
        inherited = np.mean([share_rows(counts.T).T for counts in shared], axis=0)
        return np.asarray((kept > 0.5) | (inherited > 0.5))


@dataclass(frozen=True, eq=False)
class Comparison:
    """The modules of two runs, or of two versions of one run."""

    names: tuple[str, str]  # names of the two
    objectives: tuple[float, float]  # objective L of each
    matching: Matching  # their modules matched


@dataclass(frozen=True)
class VersionDrift:
    """How far the modules of one version are from those before and from the present ones."""

    version: int
    made: str  # when its modules were found, as text
    samples: int  # train samples that they were found on
    objective: float  # objective L
    units_rand: float | None  # adjusted Rand index to the version before; None where none is shared
    samples_rand: float | None  # the same over shared samples
    units_rand_now: float | None  # the same to the present modules; None for the present version
    samples_rand_now: float | None  # the same over shared samples

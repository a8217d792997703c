"""Two sets of modules side by side, and the versions of one run over time."""

from dataclasses import dataclass

from ulcmod_dist.results.types import Counts


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
    """The modules of two runs matched one to one, over the units and samples that both have.

    Attributes:
        pairs: Modules that correspond, in order of the first run's modules.
        unmatched: Modules of the first run without a partner.
        other_unmatched: Modules of the second run without a partner.
        unit_counts: Shared units, first run's module by second run's, shape (K, other K).
        sample_counts: Shared samples, likewise.
        units_adjusted_rand: Adjusted Rand index over shared units; None where none is shared.
        samples_adjusted_rand: The same over shared samples.
        units_moved: Shared units that left their module's partner.
        samples_moved: Shared samples that did.
    """

    pairs: tuple[ModulePair, ...]
    unmatched: tuple[int, ...]
    other_unmatched: tuple[int, ...]
    unit_counts: Counts
    sample_counts: Counts
    units_adjusted_rand: float | None
    samples_adjusted_rand: float | None
    units_moved: int
    samples_moved: int

    @property
    def shared_units(self) -> int:
        """Units that both runs have."""
        return int(self.unit_counts.sum())

    @property
    def shared_samples(self) -> int:
        """Samples that both runs have."""
        return int(self.sample_counts.sum())


@dataclass(frozen=True, eq=False)
class Comparison:
    """The modules of two runs, or of two versions of one run."""

    names: tuple[str, str]  # names of the two
    objectives: tuple[float, float]  # objective L of each
    matching: Matching  # their modules matched


@dataclass(frozen=True)
class VersionDrift:
    """How far the modules of one version are from those before and from the present ones.

    Attributes:
        version: Its number.
        made: When its modules were found, as text.
        samples: Train samples that they were found on.
        objective: Objective L.
        units_rand: Adjusted Rand index to the version before over shared units; None where there
            is no such version, or no unit is shared.
        samples_rand: The same over shared samples.
        units_rand_now: Adjusted Rand index to the present modules over shared units; None for
            the present version, or where no unit is shared.
        samples_rand_now: The same over shared samples.
    """

    version: int
    made: str
    samples: int
    objective: float
    units_rand: float | None
    samples_rand: float | None
    units_rand_now: float | None
    samples_rand_now: float | None

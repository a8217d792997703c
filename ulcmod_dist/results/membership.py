"""How strongly units and samples belong to every module, beside the one that they are put into."""

from dataclasses import dataclass
from enum import StrEnum

from ulcmod_dist.results.types import Counts, Floats


class MembershipKind(StrEnum):
    """In how many modules a unit or sample is strong."""

    SPECIFIC = "specific"  # in one
    SHARED = "shared"  # in several
    GENERAL = "general"  # in none: it does not tell the modules apart
    SILENT = "silent"  # in none, and hardly ever active; units only


@dataclass(frozen=True, eq=False)
class MembershipCounts:
    """The units, or the samples, of one K by how strongly they belong to the modules."""

    kinds: Counts  # of each module by kind, in the order of `MembershipKind`, shape (K, 4)
    breadth: Floats  # mean effective number of modules of a module's members, shape (K,)
    # Strong in two modules at once, whichever they were put into; diagonal: in one, shape (K, K).
    together: Counts


@dataclass(frozen=True, eq=False)
class Membership:
    """Both sides of the modules of one K."""

    units: MembershipCounts
    samples: MembershipCounts  # train samples

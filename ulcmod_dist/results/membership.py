"""How strongly units and samples belong to every module, beside the one that they are put into."""

from dataclasses import dataclass
from enum import StrEnum

from ulcmod_dist.results.types import Counts


class MembershipKind(StrEnum):
    """In how many modules a unit or sample is strong."""

    SPECIFIC = "specific"  # in one
    SHARED = "shared"  # in several
    GENERAL = "general"  # in none: it does not tell the modules apart
    SILENT = "silent"  # in none, and hardly ever active; units only


@dataclass(frozen=True, eq=False)
class Membership:
    """Units and train samples of each module by kind, in the order of `MembershipKind`, (K, 4)."""

    units: Counts
    samples: Counts

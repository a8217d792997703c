"""How figures name modules."""

from collections.abc import Sequence

from ulcmod_dist.runtime.text import LABEL_LIMIT, label


def short_names(names: Sequence[str], limit: int = LABEL_LIMIT) -> tuple[str, ...]:
    """Return "number name" for modules 0, 1, ..., each cut to ``limit`` characters."""
    return tuple(label(f"{number} {name}", limit) for number, name in enumerate(names))


def numbers(amount: int) -> tuple[str, ...]:
    """Return the modules' bare numbers."""
    return tuple(str(number) for number in range(amount))

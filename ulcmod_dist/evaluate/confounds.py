"""How properties of the prompts other than their content are related to the modules."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ulcmod_dist.results.discovery import Confound, ConfoundMeasure, PromptProperty
from ulcmod_dist.results.types import Absent, Floats, divide, share_rows

_COMPONENTS = 3


def measure_confounds(
    properties: Mapping[PromptProperty, NDArray[Any]],
    sample_labels: NDArray[np.int64],
    features: Floats,
    num_modules: int,
) -> tuple[Confound, ...] | Absent:
    """Relate properties of the prompts to the modules.

    For each property: eta squared of its ranks (the share of their variance that the modules
    explain, ranks since lengths are skewed), less what as many random modules would explain
    (epsilon squared); the largest rank correlation with a module's feature; and the rank
    correlation with each of the first three principal components of the module features, shape
    (samples, K).
    """
    varying = {name: rankdata(values) for name, values in properties.items() if np.ptp(values) > 0}
    if not varying or len(features) <= num_modules:
        return Absent("No property of the prompts is known that varies over enough samples.")
    centred = features - features.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    components = (left * values)[:, :_COMPONENTS]
    return tuple(
        confound
        for name, ranks in varying.items()
        for confound in _measure(name, ranks, sample_labels, features, components)
    )


def _measure(
    name: PromptProperty,
    ranks: Floats,
    labels: NDArray[np.int64],
    features: Floats,
    components: Floats,
) -> Iterator[Confound]:
    yield Confound(name, ConfoundMeasure.EXPLAINED_VARIANCE, _epsilon_squared(ranks, labels))
    by_module = _rank_correlations(ranks, features)
    strongest = int(np.abs(by_module).argmax())
    yield Confound(name, ConfoundMeasure.MODULE_CORRELATION, float(by_module[strongest]), strongest)
    for index, value in enumerate(_rank_correlations(ranks, components), start=1):
        yield Confound(name, ConfoundMeasure.COMPONENT_CORRELATION, float(value), index)


def count_characters(texts: Sequence[str]) -> dict[PromptProperty, Floats]:
    """Share of each prompt's characters that are digits, punctuation, or non-ASCII letters."""
    shares = share_rows(np.array([_count_kinds(text) for text in texts]).reshape(-1, 4))
    names = (PromptProperty.DIGITS, PromptProperty.PUNCTUATION, PromptProperty.NON_ASCII)
    return {name: shares[:, column] for column, name in enumerate(names)}


def _count_kinds(text: str) -> tuple[int, int, int, int]:
    """Digits, punctuation, letters outside ASCII, and all other characters."""
    digits = punctuation = foreign = 0
    for character, count in Counter(text).items():
        kind = unicodedata.category(character)[0]
        digits += count * (kind == "N")
        punctuation += count * (kind in "PS")
        foreign += count * (kind in "LM" and not character.isascii())
    return digits, punctuation, foreign, len(text) - digits - punctuation - foreign


def _epsilon_squared(ranks: Floats, labels: NDArray[np.int64]) -> float:
    """Share of the ranks' variance that the modules explain; 0 on average for random modules."""
    counts = np.bincount(labels)
    means = np.bincount(labels, ranks) / np.maximum(counts, 1)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    within = float(((ranks - means[labels]) ** 2).sum())
    groups = int((counts > 0).sum())
    return max(0.0, 1 - (within / (len(ranks) - groups)) / (total / (len(ranks) - 1)))


def _rank_correlations(ranks: Floats, columns: Floats) -> Floats:
    """Rank correlation of a property with each column; 0 with one that does not vary."""
    centred = ranks - ranks.mean()
    others = np.apply_along_axis(rankdata, 0, columns)
    others = others - others.mean(axis=0)
    scale = np.linalg.norm(others, axis=0) * np.linalg.norm(centred)
    return divide(centred @ others, scale, missing=0.0)

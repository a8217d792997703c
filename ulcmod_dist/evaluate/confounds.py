"""What else goes along with the modules: the length of a prompt, its characters, its words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.decomposition import PCA

from ulcmod_dist.results.discovery import Confound
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import number

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_COMPONENTS = 3
_STRONG, _WEAK = 0.5, 0.1


def measure_confounds(
    properties: Mapping[str, NDArray[np.generic]],
    sample_labels: Labels,
    features: Floats,
    num_modules: int,
) -> tuple[Confound, ...] | Absent:
    """Relate properties of the prompts to the modules.

    For each property: eta squared of its ranks (the share of their variance that the modules
    explain, ranks since lengths are skewed), less what as many random modules would explain
    (epsilon squared); the largest rank correlation with a module's feature; and the rank
    correlation with each of the first three principal components of the module features.

    Args:
        properties: Values of each property, one a sample, by the property's name.
        sample_labels: Module of each sample.
        features: Module features x_s[k], shape (samples, K).
        num_modules: K.
    """
    varying = {name: rankdata(values) for name, values in properties.items() if np.ptp(values) > 0}
    if not varying or len(features) <= num_modules:
        return Absent("No property of the prompts is known that varies over enough samples.")
    scores = _components(features)
    return tuple(
        confound
        for name, ranks in varying.items()
        for confound in (
            _by_module(name, ranks, np.asarray(sample_labels), num_modules),
            _by_feature(name, ranks, features),
            *_by_component(name, ranks, scores),
        )
    )


def surface_properties(texts: Sequence[str]) -> dict[str, Floats]:
    """What can be counted on a prompt's surface: shares of its characters, by kind."""
    counts = np.array([_kinds(text) for text in texts], dtype=np.float64).reshape(-1, 4)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = ("share of digits", "share of punctuation", "share of letters outside ASCII")
    return {name: counts[:, place] / totals[:, 0] for place, name in enumerate(names)}


def _kinds(text: str) -> tuple[int, int, int, int]:
    """Digits, punctuation, letters outside ASCII, and all other characters."""
    digits = punctuation = foreign = 0
    for character, count in Counter(text).items():
        kind = unicodedata.category(character)[0]
        digits += count * (kind == "N")
        punctuation += count * (kind in "PS")
        foreign += count * (kind in "LM" and not character.isascii())
    return digits, punctuation, foreign, len(text) - digits - punctuation - foreign


def _components(features: Floats) -> Floats:
    size = min(_COMPONENTS, *features.shape)
    return np.asarray(PCA(size, svd_solver="full").fit_transform(features))


def _by_module(name: str, ranks: Floats, labels: Labels, num_modules: int) -> Confound:
    counts = np.bincount(labels, minlength=num_modules)
    means = np.bincount(labels, ranks, minlength=num_modules) / np.maximum(counts, 1)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    within = float(((ranks - means[labels]) ** 2).sum())
    groups = int((counts > 0).sum())
    # Epsilon squared: random modules explain nothing on average.
    value = max(0.0, 1 - (within / (len(ranks) - groups)) / (total / (len(ranks) - 1)))
    return Confound(
        subject=name,
        measure="variance of ranks explained by the module (epsilon squared)",
        value=value,
        reading=f"The modules explain {value:.0%} of the variance of {name}: {_word(value)}.",
    )


def _by_feature(name: str, ranks: Floats, features: Floats) -> Confound:
    correlations = _correlations(ranks, features)
    strongest = int(np.abs(correlations).argmax())
    value = float(correlations[strongest])
    return Confound(
        subject=name,
        measure="largest rank correlation with a module's mean activation",
        value=value,
        reading=f"Module {strongest} goes along with {name} most: {_strength(value)}.",
    )


def _by_component(name: str, ranks: Floats, scores: Floats) -> tuple[Confound, ...]:
    return tuple(
        Confound(
            subject=name,
            measure=f"rank correlation with principal component {place} of the module features",
            value=float(value),
            reading=f"Component {place} goes along with {name}: {_strength(float(value))}.",
        )
        for place, value in enumerate(_correlations(ranks, scores), start=1)
    )


def _correlations(ranks: Floats, columns: Floats) -> Floats:
    """Rank correlation of a property with each column; 0 with one that does not vary."""
    centred = ranks - ranks.mean()
    others = np.apply_along_axis(rankdata, 0, columns)
    others = others - others.mean(axis=0)
    scale = np.linalg.norm(others, axis=0) * np.linalg.norm(centred)
    products = centred @ others
    found: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return found


def _strength(correlation: float) -> str:
    return f"{_word(correlation**2)} (rank correlation {number(correlation, 2)})"


def _word(share: float) -> str:
    if share >= _STRONG:
        return "a strong relation"
    return "a moderate relation" if share >= _WEAK else "a weak relation"

"""What each module is about: typical prompts, keywords, category mix, length, and a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from ulcmod_dist.evaluate.words import words_of
from ulcmod_dist.results.types import Absent

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MAX_TEXTS = 4000
"""Prompts of a module that are read for keywords at most, drawn with the seed."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

ALIKE = 0.4
"""Share of the words of two prompts in both from which they say the same (Jaccard overlap)."""

_READ = 200
_NAMED_SHARE = 0.25
_NAME_WORDS = 3


@dataclass(frozen=True)
class Topic:
    """One module in words.

    Attributes:
        module: The module's number.
        name: One line made from its commonest categories and strongest keywords. Untrusted text.
        typical: Rows of its most typical samples, the largest margin first.
        keywords: Its keywords, the strongest first (untrusted text), or why there are none.
        categories: Its categories with their shares of its samples, the commonest first; empty
            where the corpus has none.
        length: Quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of its samples' token counts, if known.
    """

    module: int
    name: str
    typical: tuple[int, ...]
    keywords: tuple[str, ...] | Absent
    categories: tuple[tuple[str, float], ...]
    length: tuple[float, float, float, float, float] | None


def describe_topics(
    margins: Floats,
    sample_labels: Labels,
    num_modules: int,
    *,
    texts: Sequence[str] | None = None,
    categories: Sequence[str | None] | None = None,
    tokens: Labels | None = None,
    num_typical: int = 8,
    num_keywords: int = 12,
    seed: int = 0,
) -> tuple[Topic, ...]:
    """Describe every module by the samples in it.

    Args:
        margins: Margin of each sample (mean activation in its module minus the largest elsewhere).
        sample_labels: Module of each sample.
        num_modules: K.
        texts: Text of each sample, or None where there is none or it must not be shown.
        categories: Category of each sample, if any.
        tokens: Token count of each sample, if known.
        num_typical: Typical samples a module; of samples that say much the same only the first
            counts, as long as there are others.
        num_keywords: Keywords a module.
        seed: Seed of the draw of texts where a module has more than ``MAX_TEXTS``.
    """
    labels = np.asarray(sample_labels)
    keywords = find_keywords(texts, labels, num_modules, num_keywords, seed)
    topics = []
    for module in range(num_modules):
        rows = np.flatnonzero(labels == module)
        mix = _mix(rows, categories)
        topics.append(
            Topic(
                module=module,
                name=_name(module, mix, keywords[module]),
                typical=_typical(rows, margins, texts, num_typical),
                keywords=keywords[module],
                categories=mix,
                length=_length(rows, tokens),
            )
        )
    return tuple(topics)


def find_keywords(
    texts: Sequence[str] | None,
    sample_labels: Labels,
    num_modules: int,
    count: int,
    seed: int = 0,
) -> tuple[tuple[str, ...] | Absent, ...]:
    """Keywords of each module by class-based TF-IDF over prompts.

    The score of word w in module k is p log(1 + 1/q) log(p/q), where p is the share of the module's
    prompts with w and q the mean of that share over the modules; words with p <= q score nothing.
    Words common everywhere have p near q, so no list of stop words is needed, in any
    language. A word must occur in two prompts.
    """
    if texts is None:
        return (Absent("The prompts' texts are not available."),) * num_modules
    rows = np.concatenate(list(_drawn_rows(sample_labels, num_modules, seed)))
    vectorizer = CountVectorizer(
        analyzer=words_of, binary=True, min_df=min(2, len(rows)), dtype=np.float64
    )
    try:
        present = vectorizer.fit_transform([texts[row] for row in rows])
    except ValueError:
        # scikit-learn's answer to texts without a single word that counts.
        return (Absent("The prompts share no words."),) * num_modules
    labels = np.asarray(sample_labels)[rows]
    members = np.eye(num_modules)[:, labels]
    sizes = np.maximum(members.sum(axis=1, keepdims=True), 1)
    share = np.asarray((present.T @ members.T).T) / sizes
    mean = share.mean(axis=0)
    ratio = np.where(share > mean, share, mean) / mean
    scores = share * np.log1p(1 / mean) * np.log(ratio)
    words = vectorizer.get_feature_names_out()
    return tuple(_strongest(scores[module], words, count) for module in range(num_modules))


def _strongest(scores: Floats, words: NDArray[np.object_], count: int) -> tuple[str, ...] | Absent:
    order = np.lexsort((words.astype(str), -scores))[:count]
    found = tuple(str(words[place]) for place in order if scores[place] > 0)
    return found or Absent("No word sets its prompts apart.")


def _drawn_rows(sample_labels: Labels, num_modules: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for module in range(num_modules):
        rows = np.flatnonzero(np.asarray(sample_labels) == module)
        drawn = rng.choice(rows, MAX_TEXTS, replace=False) if len(rows) > MAX_TEXTS else rows
        yield np.sort(drawn)


def _typical(
    rows: NDArray[np.int64], margins: Floats, texts: Sequence[str] | None, count: int
) -> tuple[int, ...]:
    strongest = [int(row) for row in rows[np.argsort(-margins[rows], kind="stable")][:_READ]]
    if texts is None:
        return tuple(strongest[:count])
    shown: dict[str, int] = {}
    for row in strongest:
        shown.setdefault(texts[row], row)
    chosen: list[int] = []
    seen: list[frozenset[str]] = []
    for text, row in shown.items():
        words = frozenset(words_of(text))
        if not any(_alike(words, other) for other in seen):
            chosen.append(row)
            seen.append(words)
    rest = [row for row in shown.values() if row not in chosen]
    return tuple([*chosen, *rest][:count])


def _alike(words: frozenset[str], others: frozenset[str]) -> bool:
    return len(words & others) >= ALIKE * max(1, len(words | others))


def _mix(
    rows: NDArray[np.int64], categories: Sequence[str | None] | None
) -> tuple[tuple[str, float], ...]:
    named = [] if categories is None else [categories[row] for row in rows]
    counts = Counter(name for name in named if name is not None)
    total = max(sum(counts.values()), 1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((name, number / total) for name, number in ordered)


def _length(
    rows: NDArray[np.int64], tokens: Labels | None
) -> tuple[float, float, float, float, float] | None:
    if tokens is None or len(rows) == 0:
        return None
    low, lower, middle, upper, high = np.quantile(np.asarray(tokens)[rows], QUANTILES).tolist()
    return low, lower, middle, upper, high


def _name(
    module: int, mix: tuple[tuple[str, float], ...], keywords: tuple[str, ...] | Absent
) -> str:
    leading = [name for name, share in mix if share >= _NAMED_SHARE] or [n for n, _ in mix[:1]]
    strongest = () if isinstance(keywords, Absent) else keywords[:_NAME_WORDS]
    parts = [" / ".join(leading), ", ".join(strongest)]
    return ": ".join(part for part in parts if part) or f"Module {module}"

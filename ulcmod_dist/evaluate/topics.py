"""Describe each module by its samples: typical prompts, keywords, length, and a name."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from ulcmod_dist.config.schema import ReportConfig
from ulcmod_dist.results.discovery import Module, TypicalPrompt
from ulcmod_dist.results.types import Absent, Floats

Labels = NDArray[np.int64]

MAX_TEXTS = 4000
"""Prompts of a module that are read for keywords at most, drawn with the seed."""

MAX_CANDIDATES = 200
"""Samples of largest margin among which the typical ones are chosen."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

NEAR_DUPLICATE = 0.4
"""Jaccard overlap of their words from which two prompts count as near-duplicates."""

LONGEST_WORD = 40
"""Longer runs of letters are encoded data, not words."""

# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, Japanese, Chinese.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)

_NAMED_SHARE = 0.25
_NAME_WORDS = 3


@dataclass(frozen=True, eq=False)
class Samples:
    """What is known of the samples of a split beside their activations."""

    ids: list[str]  # id of each sample
    categories: list[str | None]  # category of each sample, None where it has none
    tokens: Labels  # token count of each sample; 0 where it is not known
    texts: list[str] | Absent  # text of each sample, or why there is none. Untrusted text


def describe_modules(
    samples: Samples,
    margins: Floats,
    sample_labels: Labels,
    unit_labels: Labels,
    num_modules: int,
    config: ReportConfig,
    *,
    unit_stability: Floats | None = None,
    seed: int = 0,
) -> tuple[Module, ...]:
    """Describe every module by the train samples in it.

    A margin is the L lost by moving a sample to the next best module, as `Modules.sample_margins`;
    NaN for K = 1. A stability is the share of the other restarts in which a unit lies in the same
    module; None for one restart.
    """
    labels = np.asarray(sample_labels)
    num_units = np.bincount(unit_labels, minlength=num_modules)
    stability = None
    if unit_stability is not None:
        sums = np.bincount(unit_labels, unit_stability, minlength=num_modules)
        stability = sums / num_units
    keywords: Sequence[tuple[str, ...] | Absent]
    if isinstance(samples.texts, Absent):
        keywords = [samples.texts] * num_modules
    else:
        keywords = find_keywords(samples.texts, labels, num_modules, config.keywords, seed)
    modules = []
    for module in range(num_modules):
        rows = np.flatnonzero(labels == module)
        modules.append(
            Module(
                number=module,
                name=_name_module(module, rows, samples.categories, keywords[module]),
                num_samples=len(rows),
                num_units=int(num_units[module]),
                keywords=keywords[module],
                prompts=_choose_prompts(rows, margins, samples, config.typical),
                length=_length_quantiles(rows, samples.tokens),
                stability=None if stability is None else float(stability[module]),
            )
        )
    return tuple(modules)


def find_keywords(
    texts: Sequence[str], sample_labels: Labels, num_modules: int, num_keywords: int, seed: int = 0
) -> tuple[tuple[str, ...] | Absent, ...]:
    """Keywords of each module by class-based TF-IDF over prompts.

    The score of word w in module k is p log(1 + 1/q) log(p/q), where p is the share of the module's
    prompts with w and q the mean of that share over the modules; words with p <= q score nothing.
    Words common everywhere have p near q, so no list of stop words is needed, in any language. A
    word must occur in two prompts.
    """
    rows = np.concatenate(list(_drawn_rows(sample_labels, num_modules, seed)))
    vectorizer = CountVectorizer(
        analyzer=split_words, binary=True, min_df=min(2, len(rows)), dtype=np.float64
    )
    try:
        present = vectorizer.fit_transform([texts[row] for row in rows])
    except ValueError:
        # scikit-learn raises this for texts without a single word that counts.
        return (Absent("The prompts share no words."),) * num_modules
    labels = np.asarray(sample_labels)[rows]
    members = np.eye(num_modules)[:, labels]
    sizes = np.maximum(members.sum(axis=1, keepdims=True), 1)
    share = np.asarray((present.T @ members.T).T) / sizes
    mean = share.mean(axis=0)
    ratio = np.where(share > mean, share, mean) / mean
    scores = share * np.log1p(1 / mean) * np.log(ratio)
    words = vectorizer.get_feature_names_out()
    return tuple(_strongest(scores[module], words, num_keywords) for module in range(num_modules))


def _strongest(scores: Floats, words: NDArray[np.object_], count: int) -> tuple[str, ...] | Absent:
    order = np.lexsort((words.astype(str), -scores))[:count]
    found = tuple(str(words[index]) for index in order if scores[index] > 0)
    return found or Absent("No word sets its prompts apart.")


def _drawn_rows(sample_labels: Labels, num_modules: int, seed: int) -> Iterator[Labels]:
    rng = np.random.default_rng(seed)
    for module in range(num_modules):
        rows = np.flatnonzero(np.asarray(sample_labels) == module)
        drawn = rng.choice(rows, MAX_TEXTS, replace=False) if len(rows) > MAX_TEXTS else rows
        yield np.sort(drawn)


def _choose_prompts(
    rows: Labels, margins: Floats, samples: Samples, count: int
) -> tuple[TypicalPrompt, ...] | Absent:
    """The prompts of largest margin; near-duplicates of a chosen one come after all others."""
    texts = samples.texts
    if isinstance(texts, Absent):
        return texts
    if np.isnan(margins).all():
        return Absent("In a single module no prompt is more typical than another.")
    strongest = rows[np.argsort(-margins[rows], kind="stable")][:MAX_CANDIDATES]
    distinct: dict[str, int] = {}
    for row in strongest.tolist():
        distinct.setdefault(texts[row], row)
    chosen: list[int] = []
    seen: list[frozenset[str]] = []
    for text, row in distinct.items():
        words = frozenset(split_words(text))
        if all(len(words & other) < NEAR_DUPLICATE * max(1, len(words | other)) for other in seen):
            chosen.append(row)
            seen.append(words)
    rest = [row for row in distinct.values() if row not in chosen]
    return tuple(
        TypicalPrompt(samples.ids[row], texts[row], float(margins[row]), samples.categories[row])
        for row in [*chosen, *rest][:count]
    )


def _length_quantiles(
    rows: Labels, tokens: Labels
) -> tuple[float, float, float, float, float] | None:
    if not tokens.any() or len(rows) == 0:
        return None
    low, lower, middle, upper, high = np.quantile(tokens[rows], QUANTILES).tolist()
    return low, lower, middle, upper, high


def _name_module(
    module: int, rows: Labels, categories: Sequence[str | None], keywords: tuple[str, ...] | Absent
) -> str:
    """One line of the commonest categories and the strongest keywords."""
    counts = Counter(name for row in rows if (name := categories[row]) is not None)
    total = max(1, counts.total())
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    leading = [name for name in ordered if counts[name] >= _NAMED_SHARE * total] or ordered[:1]
    strongest = () if isinstance(keywords, Absent) else keywords[:_NAME_WORDS]
    parts = [" / ".join(leading), ", ".join(strongest)]
    return ": ".join(part for part in parts if part) or f"Module {module}"


def split_words(text: str) -> list[str]:
    """Split a text into words, folded in case and width; no numbers, no single letters.

    Marks stay with their letters (Hindi, Arabic), ``c++`` and ``c#`` stay whole, and runs of
    scripts without spaces become overlapping pairs of characters.
    """
    found = _pattern().finditer(unicodedata.normalize("NFKC", text).casefold())
    words = []
    for match in found:
        word = match[0]
        if match["unspaced"]:
            words += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        elif 1 < len(word) <= LONGEST_WORD:
            words.append(word)
    return words


@cache
def _pattern() -> re.Pattern[str]:
    # The standard library's \w leaves combining marks out, which would cut Indic words apart.
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in characters if unicodedata.category(c) in {"Mn", "Mc"})
    spaced = rf"(?:(?![{_UNSPACED}])[^\W\d_])"
    letter = rf"(?:{spaced}|(?![{_UNSPACED}])[{re.escape(marks)}])"
    unspaced = rf"(?P<unspaced>(?:[{_UNSPACED}](?<![\W\d_])[{re.escape(marks)}]*)+)"
    return re.compile(rf"{unspaced}|{spaced}{letter}*(?:['\u2019]{letter}+|\+\+|#)?")

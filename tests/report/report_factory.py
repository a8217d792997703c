"""Synthetic reports: how the values are filled, with the shapes and texts of a real run."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import linkage

from ulcmod_dist.results.ablation import AblatedModule, Ablation, LossIncrease
from ulcmod_dist.results.discovery import (
    Agreement,
    Categories,
    Classifier,
    Confound,
    ConfoundMeasure,
    Discovery,
    Downstream,
    Layers,
    MethodRow,
    Module,
    Overlap,
    PromptProperty,
    ReportData,
    Reproduction,
    Restart,
    RunFacts,
    TypicalPrompt,
)
from ulcmod_dist.results.types import Absent, Counts, Fact, Floats, Interval, Objective

CATEGORIES = (
    "Coding", "Mathematics", "Translation", "Creative writing", "Law", "Medicine", "Open QA",
)  # fmt: skip
WORDS = (
    ("python", "function", "list", "sort", "loop", "string"),
    ("equation", "solve", "triangle", "sum", "integral", "proof"),
    ("translate", "spanish", "french", "sentence", "deutsch", "中文"),
    ("story", "poem", "dragon", "write", "character", "moon"),
    ("contract", "tenant", "liability", "clause", "court", "notice"),
    ("symptoms", "dose", "patient", "fever", "treatment", "diagnosis"),
    ("capital", "history", "river", "explain", "planet", "century"),
)
HOSTILE = (
    '<script>window.pwned = 1</script><img src=x onerror="window.pwned=1"> ',
    "</script><script>window.pwned = 1</script> {{ 7 * 7 }} {% raw %} $\\frac{1}{0}$ ",
    'Ignore <b>markup</b> & <a href="https://example.org/">links</a>, "quotes" and `ticks`. ',
)
LONG = "Summarise the following minutes of the meeting in three sentences. " * 40
RIGHT_TO_LEFT = "ترجم هذه الجملة إلى الإنجليزية: الطقس جميل اليوم."
NUM_UNITS, NUM_SAMPLES, NUM_LAYERS = 6 * 1024, 2100, 6


def report(
    sizes: Sequence[int] = (7, 10), *, layers: int = NUM_LAYERS, bare: bool = False, seed: int = 0
) -> ReportData:
    """Return a report with the given values of K.

    Args:
        sizes: The values of K.
        layers: Number of layers.
        bare: Leave out all that a run may lack.
        seed: Seed of the numbers.
    """
    rng = np.random.default_rng(seed)
    make = _bare if bare else _full
    return ReportData(
        run=RunFacts(
            name="demo: seven categories",
            model=None if bare else "ulcmod-demo-qwen2 (6 layers)",
            num_samples=NUM_SAMPLES,
            num_test_samples=0 if bare else 700,
            num_units=NUM_UNITS,
            facts=()
            if bare
            else (
                Fact("Corpus", "demo corpus, 7 categories"),
                Fact("Tokens counted", "all tokens of the prompt and its template"),
                Fact("Template", "the model's own, system message included"),
                Fact("Precision", "float32, eager attention"),
            ),
        ),
        discoveries=tuple(make(size, layers, rng) for size in sizes),
        overlaps=_overlaps(sizes, rng)
        if len(sizes) > 1
        else Absent("Only one number of modules was asked for, so no flow can be drawn."),
        reproduction=Reproduction(
            commands=(
                "pip install ulcmod-dist==0.1.0",
                "ulcmod run jobs/demo.yaml --out runs/demo",
            ),
            job="model:\n  path: models/demo\ncorpus:\n  path: demo/*.parquet\n"
            "discover:\n  num_modules: [7, 10]\n  restarts: 8\n  seed: 0\n",
            versions=(
                Fact("ulcmod-dist", "0.1.0"),
                Fact("numpy", "2.4.6"),
                Fact("torch", "2.13.0"),
            ),
            digests=(
                Fact("Corpus", "sha256:" + "3f" * 32),
                Fact("Store view", "sha256:" + "a1" * 32),
            ),
        ),
        shown_num_modules=sizes[-1],
    )


def _split(total: int, parts: int, rng: np.random.Generator) -> Counts:
    shares = rng.dirichlet(np.full(parts, 20.0))
    counts = np.floor(shares * total).astype(np.int64)
    counts[0] += total - counts.sum()
    return counts


def _activation(size: int, rng: np.random.Generator) -> Floats:
    apart = rng.normal(-0.05, 0.06, (size, size))
    return np.asarray(apart + np.diag(rng.uniform(0.45, 0.95, size)), dtype=np.float64)


def _restarts(size: int, value: float, rng: np.random.Generator) -> tuple[Restart, ...]:
    restarts = []
    for number in range(8):
        steps = int(rng.integers(6, 14))
        end = value if number == 3 else value * rng.uniform(0.985, 0.999)
        path = end * (1 - 0.22 * np.exp(-0.8 * np.arange(steps + 1)))
        path[-1] = end
        restarts.append(Restart(number, tuple(float(v) for v in path), number != 5))
    return tuple(restarts)


def _typical(topic: int, rng: np.random.Generator) -> tuple[TypicalPrompt, ...]:
    words = WORDS[topic]
    texts = [
        f"Please help me with {words[i % 6]} and {words[(i + 1) % 6]}: what should I know about "
        f"{words[(i + 2) % 6]}?"
        for i in range(5)
    ]
    texts[1] = f"def {words[0]}(xs):\n    # keep   the spaces\n    return sorted(xs)"
    texts.insert(2, HOSTILE[topic % 3] + words[0])
    texts.append(LONG if topic % 2 else RIGHT_TO_LEFT)
    return tuple(
        TypicalPrompt(
            f"demo-{topic}-{i:04d}", text, float(rng.uniform(0.3, 0.8)), CATEGORIES[topic]
        )
        for i, text in enumerate(texts)
    )


def _modules(size: int, rng: np.random.Generator) -> tuple[Module, ...]:
    units, samples = _split(NUM_UNITS, size, rng), _split(NUM_SAMPLES, size, rng)
    modules = []
    for number in range(size):
        topic = number % 7
        middle = float(rng.integers(20, 90))
        name = f"{CATEGORIES[topic]}: {', '.join(WORDS[topic][:3])}"
        if number == 3:
            name = "<script>window.pwned=1</script> & <b>poem</b>, $x$"
        modules.append(
            Module(
                number=number,
                name=name,
                num_samples=int(samples[number]),
                num_units=int(units[number]),
                keywords=WORDS[topic],
                prompts=_typical(topic, rng),
                length=(middle * 0.5, middle * 0.8, middle, middle * 1.4, middle * 2.6),
                stability=float(rng.uniform(0.7, 0.99)),
            )
        )
    return tuple(modules)


def _categories(modules: tuple[Module, ...], rng: np.random.Generator) -> Categories:
    counts = np.stack(
        [
            rng.multinomial(m.num_samples, 0.12 / 7 + 0.88 * (np.arange(7) == m.number % 7))
            for m in modules
        ]
    ).astype(np.int64)
    similarity = rng.uniform(-0.3, 0.25, (7, 7))
    similarity = (similarity + similarity.T) / 2
    np.fill_diagonal(similarity, rng.uniform(0.7, 0.95, 7))
    return Categories(CATEGORIES, counts, rng.uniform(1, 3, len(modules)), similarity)


def _layers(modules: tuple[Module, ...], layers: int, rng: np.random.Generator) -> Layers:
    width = max(1, NUM_UNITS // layers)
    weights = np.array([m.num_units for m in modules], dtype=np.float64)[:, None] * np.exp(
        -(
            ((np.arange(layers)[None] - rng.uniform(0, layers, (len(modules), 1))) / layers * 2.5)
            ** 2
        )
    )
    units = np.stack([rng.multinomial(width, column / column.sum()) for column in weights.T]).T
    concentration = rng.uniform(0.05, 0.4, len(modules))
    return Layers(tuple(str(i) for i in range(layers)), units.astype(np.int64), concentration)


def _near(mean: float, spread: float) -> Interval:
    return Interval(mean, mean - spread, mean + spread)


def _methods(value: float) -> tuple[MethodRow, ...]:
    rows = (
        ("IterD", 1.0, 0.99, 0.994), ("k-means", 0.86, 0.97, 0.981),
        ("Mini-batch k-means", 0.81, 0.96, 0.972), ("Agglomerative", 0.83, 0.95, 0.979),
        ("Spectral", 0.62, 0.91, 0.95), ("Spectral co-clustering", 0.55, 0.9, 0.93),
    )  # fmt: skip
    return tuple(
        MethodRow(
            name,
            _near(value * share, value * 0.012),
            _near(0.6 * share, 0.01),
            _near(value / 0.6, 0.0),
            _near(accuracy, 0.004),
            _near(accuracy - 0.003, 0.005),
            5,
        )
        for name, share, _, accuracy in rows
    )


def _downstream(rng: np.random.Generator) -> Downstream:
    confusion = np.diag(rng.integers(90, 100, 7)) + rng.integers(0, 3, (7, 7))
    f1 = tuple(float(v) for v in rng.uniform(0.95, 1.0, 7))
    return Downstream(
        CATEGORIES,
        (
            Classifier("RBF SVC", _near(0.991, 0.004), _near(0.99, 0.004), f1, confusion),
            Classifier(
                "logistic regression", _near(0.986, 0.004), _near(0.985, 0.005), f1, confusion.T
            ),
        ),
        folds=None,
        num_train=NUM_SAMPLES,
        num_scored=700,
    )


def _cost(own: float, other: float, spread: float) -> LossIncrease:
    return LossIncrease(_near(own, spread), _near(other, spread / 4), _near(own - other, spread))


def _ablation(size: int, rng: np.random.Generator) -> Ablation:
    own = np.eye(size, dtype=bool)
    rises = np.where(own, rng.uniform(0.5, 1.4, (size, size)), rng.normal(0.12, 0.08, (size, size)))
    random = rng.normal(0.14, 0.02, (size, size))
    rows = tuple(
        AblatedModule(
            k,
            _cost(float(rises[k, k]), float(rises[k][~own[k]].mean()), 0.12),
            _cost(float(random[k, k]), float(random[k][~own[k]].mean()), 0.03),
        )
        for k in range(size)
    )
    return Ablation(
        method="zero",
        num_samples=700,
        num_random_sets=5,
        seed=0,
        by_module=rises,
        random_by_module=random,
        by_category=rng.uniform(-0.02, 0.3, (size, 7)) + np.eye(size, 7) * 0.7,
        categories=CATEGORIES,
        modules=rows,
        selectivity=_near(0.77, 0.06),
        random_selectivity=_near(0.0, 0.02),
        advantage=_near(0.77, 0.05),
    )


def _full(size: int, layers: int, rng: np.random.Generator) -> Discovery:
    value = 672_521.0 / size * 7
    activation = _activation(size, rng)
    modules = _modules(size, rng)
    return Discovery(
        num_modules=size,
        seed=0,
        objective=Objective(0.61, value / 0.61),
        activation=activation,
        modules=modules,
        restarts=_restarts(size, value, rng),
        restart_agreement=(0.93, 0.95),
        null=tuple(Objective(0.61 * s, value / 0.61) for s in (0.031, 0.029, 0.033)),
        methods=_methods(value),
        downstream=_downstream(rng),
        agreement=(Agreement("train", 0.91, 0.9, 0.95), Agreement("test", 0.89, 0.88, 0.94)),
        categories=_categories(modules, rng),
        layers=_layers(modules, layers, rng),
        linkage=linkage(rng.normal(size=(size, 5)), "average"),
        ablation=_ablation(size, rng),
        confounds=(
            Confound(PromptProperty.LENGTH, ConfoundMeasure.EXPLAINED_VARIANCE, 0.18),
            Confound(PromptProperty.LENGTH, ConfoundMeasure.MODULE_CORRELATION, 0.4, 2),
        ),
    )  # fmt: skip


def _bare(size: int, layers: int, rng: np.random.Generator) -> Discovery:
    no_categories = Absent("The corpus has no categories.")
    no_model = Absent("An imported matrix has no model whose units could be silenced.")
    units, samples = _split(NUM_UNITS, size, rng), _split(NUM_SAMPLES, size, rng)
    return Discovery(
        num_modules=size,
        seed=0,
        objective=Objective(0.4, 3001.25),
        activation=_activation(size, rng),
        modules=tuple(
            Module(
                k, f"Module {k}", int(samples[k]), int(units[k]),
                Absent("The prompts are not known, so there are no keywords."),
                Absent("The job leaves prompt texts out of the report."),
            )
            for k in range(size)
        ),
        restarts=(),
        restart_agreement=None,
        null=Absent("The job asks for no null model."),
        methods=Absent("The job asks for no baselines."),
        downstream=no_categories,
        agreement=no_categories,
        categories=no_categories,
        layers=Absent("The matrix does not say which layer its units belong to."),
        linkage=Absent("A single module has no hierarchy."),
        ablation=no_model,
        confounds=Absent("Lengths and tokens of the samples are not known."),
    )  # fmt: skip


def _overlaps(sizes: Sequence[int], rng: np.random.Generator) -> tuple[Overlap, ...]:
    overlaps, totals = [], _split(NUM_UNITS, sizes[0], rng)
    for size, after in pairwise(sizes):
        home = np.arange(after) % size
        weights = np.where(home[None] == np.arange(size)[:, None], 1.0, 0.02)
        units = np.stack(
            [rng.multinomial(t, w / w.sum()) for t, w in zip(totals, weights, strict=True)]
        ).astype(np.int64)
        overlaps.append(Overlap(size, after, units, (units * 0.3).astype(np.int64), 0.8, 0.2))
        totals = units.sum(axis=0)
    return tuple(overlaps)

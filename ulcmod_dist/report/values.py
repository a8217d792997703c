"""What a report tells: plain frozen values that a run is turned into before it is shown.

Whatever a run may lack is typed ``X | Absent``; the page then prints the reason instead.
Modules carry the numbers that the run's files and the Python interface use (from 0).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Absent:
    """Stands where a part of the report would be.

    Attributes:
        reason: Why the part is not there, as one full sentence.
    """

    reason: str


@dataclass(frozen=True)
class Fact:
    """One labelled fact, such as a version or a digest."""

    label: str
    value: str


@dataclass(frozen=True)
class Estimate:
    """A number with the interval that its seeds, folds or bootstrap draws support.

    Attributes:
        mean: The number itself.
        low: Lower end of the interval, or None where only one value was measured.
        high: Upper end of the interval, or None likewise.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Score:
    """The objective L = xi * B of one set of modules (DESIGN equations L, xi and B).

    Attributes:
        value: Objective L.
        xi: Activation modularity.
        balance: Harmonic mean of the modules' block sizes.
    """

    value: float
    xi: float
    balance: float


@dataclass(frozen=True)
class RunFacts:
    """What was run.

    Attributes:
        name: The run's name, the page's title.
        model: Model whose units were split; None for an imported matrix.
        num_samples: Train samples.
        num_test_samples: Held-out samples; 0 where there are none.
        num_units: Units of all layers.
        facts: Further facts in the order to print: corpus, revision, template, token rule, ...
    """

    name: str
    model: str | None
    num_samples: int
    num_test_samples: int
    num_units: int
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class MethodRow:
    """One method's modules: a row of the comparison; the first row is IterD.

    Attributes:
        method: The method's name, e.g. "IterD" or "k-means".
        value: Objective L over the seeds.
        xi: Activation modularity over the seeds.
        balance: Balance B over the seeds.
        accuracy: Downstream accuracy on held-out samples, or None where not measured.
        macro_f1: Downstream macro-F1, or None where not measured.
        num_seeds: Number of seeds behind the estimates.
    """

    method: str
    value: Estimate
    xi: Estimate
    balance: Estimate
    accuracy: Estimate | None
    macro_f1: Estimate | None
    num_seeds: int


@dataclass(frozen=True)
class Classifier:
    """A classifier that reads a sample's category from its module features.

    Attributes:
        name: The classifier's name.
        accuracy: Share of the held-out samples put into their own category.
        macro_f1: Mean of the categories' F1 scores.
        f1: F1 of each category, in the order of ``Downstream.categories``.
        confusion: Held-out samples, true category (rows) by predicted category (columns).
    """

    name: str
    accuracy: Estimate
    macro_f1: Estimate
    f1: tuple[float, ...] | None = None
    confusion: Counts | None = None


@dataclass(frozen=True)
class Downstream:
    """Scores of classifiers on the module features.

    Attributes:
        categories: Names of the categories.
        classifiers: The classifiers, the main one first.
    """

    categories: tuple[str, ...]
    classifiers: tuple[Classifier, ...]


@dataclass(frozen=True)
class Agreement:
    """How far the modules of the samples agree with their categories.

    Attributes:
        split: "train" or "test" (held-out samples go to the module of largest mean activation).
        adjusted_rand: Adjusted Rand index (1: same partition, 0: chance).
        mutual_information: Normalised mutual information, 0 to 1.
        purity: Share of samples in the commonest category of their module.
    """

    split: str
    adjusted_rand: float
    mutual_information: float
    purity: float


@dataclass(frozen=True)
class Prompt:
    """One typical prompt of a module. Untrusted text.

    Attributes:
        sample_id: The sample's id in the corpus.
        text: The whole prompt; the page shortens it.
        margin: Mean activation in its module minus the largest one elsewhere.
        category: The sample's category, if it has one.
    """

    sample_id: str
    text: str
    margin: float
    category: str | None = None


@dataclass(frozen=True)
class Module:
    """One module in words and numbers.

    Attributes:
        number: The module's number, from 0.
        name: One line made from its keywords and categories. Untrusted text.
        num_samples: Train samples in it.
        num_units: Units in it.
        keywords: Its keywords, the strongest first (untrusted text), or why there are none.
        prompts: Its most typical prompts, the strongest first, or why none are shown.
        length: Quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of its samples' token counts, if known.
        stability: Mean overlap (0 to 1) with its best match in the other restarts, if known.
    """

    number: int
    name: str
    num_samples: int
    num_units: int
    keywords: tuple[str, ...] | Absent
    prompts: tuple[Prompt, ...] | Absent
    length: tuple[float, float, float, float, float] | None = None
    stability: float | None = None


@dataclass(frozen=True, eq=False)
class Categories:
    """Modules against the corpus's categories.

    Attributes:
        names: Names of the C categories.
        counts: Train samples, module by category, shape (K, C).
        similarity: Mean cosine of module-feature vectors between categories, shape (C, C).
    """

    names: tuple[str, ...]
    counts: Counts
    similarity: Floats | Absent


@dataclass(frozen=True, eq=False)
class Layers:
    """Where the modules' units are.

    Attributes:
        names: Names of the layers from the input to the output.
        units: Units, module by layer, shape (K, layers).
    """

    names: tuple[str, ...]
    units: Counts


@dataclass(frozen=True)
class AblatedModule:
    """What silencing one module costs, beside random sets of as many units a layer.

    Attributes:
        module: The silenced module.
        own: Rise of the loss on its own samples, nats a token.
        other: Rise on all other samples.
        random_own: Rise on its own samples when random sets are silenced instead.
        random_other: Rise on all other samples, likewise.
    """

    module: int
    own: Estimate
    other: Estimate
    random_own: Estimate
    random_other: Estimate


@dataclass(frozen=True, eq=False)
class Ablation:
    """The causal check of the modules of one K. Losses in nats a token.

    Attributes:
        method: What replaced the silenced units' values, "zero" or "mean".
        tokens: Which tokens the loss counts, in words.
        num_samples: Samples measured.
        num_random_sets: Random sets a module is compared with.
        by_module: Rise of the loss, silenced module by module of the samples, shape (K, K).
        random_by_module: The same for random sets of equal size a layer, shape (K, K).
        by_category: Rise of the loss, silenced module by category, shape (K, C).
        categories: Names of the C categories; empty where ``by_category`` is absent.
        modules: One value a module, in ascending order.
        selectivity: Mean over the modules of rise on own minus rise on other samples.
        random_selectivity: The same for the random sets.
    """

    method: str
    tokens: str
    num_samples: int
    num_random_sets: int
    by_module: Floats
    random_by_module: Floats
    by_category: Floats | Absent
    categories: tuple[str, ...]
    modules: tuple[AblatedModule, ...]
    selectivity: Estimate
    random_selectivity: Estimate


@dataclass(frozen=True)
class Restart:
    """One run of the search.

    Attributes:
        number: The restart's number, from 0.
        objectives: Objective at the start and after each iteration.
        converged: Whether it ended because nothing moved.
    """

    number: int
    objectives: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Confound:
    """How strongly something that is not meaning goes along with the modules.

    Attributes:
        subject: What might explain the modules, e.g. "prompt length".
        measure: The statistic, e.g. "variance explained by the module (eta squared)".
        value: Its value.
        reading: One plain sentence on what the value says.
    """

    subject: str
    measure: str
    value: float
    reading: str


@dataclass(frozen=True, eq=False)
class Discovery:
    """All that is known of the modules found for one K.

    Attributes:
        num_modules: K.
        seed: Seed of the search.
        score: Objective of the modules kept.
        activation: Mean z of a module's samples (rows) on a module's units, shape (K, K).
        modules: The modules in ascending order.
        restarts: The runs of the search; the modules come from the best.
        null: Objectives found on the same data with each unit's column permuted.
        methods: Comparison with other methods, IterD first.
        downstream: Categories read from the module features.
        agreement: Agreement of modules and categories, one value a split.
        categories: Modules against categories.
        layers: Modules against layers.
        linkage: Hierarchy of the modules, as SciPy's linkage matrix, shape (K - 1, 4).
        ablation: The causal check.
        confounds: What else goes along with the modules.
    """

    num_modules: int
    seed: int
    score: Score
    activation: Floats
    modules: tuple[Module, ...]
    restarts: tuple[Restart, ...]
    null: tuple[Score, ...] | Absent
    methods: tuple[MethodRow, ...] | Absent
    downstream: Downstream | Absent
    agreement: tuple[Agreement, ...] | Absent
    categories: Categories | Absent
    layers: Layers | Absent
    linkage: Floats | Absent
    ablation: Ablation | Absent
    confounds: tuple[Confound, ...] | Absent


@dataclass(frozen=True, eq=False)
class Overlap:
    """How the modules of one K share their units with those of the next larger K.

    Attributes:
        num_modules: The smaller K.
        next_num_modules: The larger K.
        units: Units that two modules share, shape (smaller K, larger K).
        samples: Samples that two modules share, same shape.
    """

    num_modules: int
    next_num_modules: int
    units: Counts
    samples: Counts


@dataclass(frozen=True)
class Reproduction:
    """What somebody else needs to get the same modules.

    Attributes:
        commands: Shell commands, in order.
        job: The job's YAML text.
        versions: Versions of the software.
        digests: Digests of corpus, model, store and code.
    """

    commands: tuple[str, ...]
    job: str
    versions: tuple[Fact, ...]
    digests: tuple[Fact, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows.

    Attributes:
        run: What was run.
        discoveries: The modules of each K, K ascending, at least one.
        overlaps: Overlaps between successive K, in order.
        reproduction: How to get the same again.
        shown_num_modules: K that the page opens with; None for the smallest.
    """

    run: RunFacts
    discoveries: tuple[Discovery, ...]
    overlaps: tuple[Overlap, ...] | Absent
    reproduction: Reproduction
    shown_num_modules: int | None = None

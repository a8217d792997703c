"""All that is known of a run's modules, as frozen values that the report shows.

Whatever a run may lack is typed ``X | Absent``; the page then prints the reason instead.
Modules carry the numbers that the run's files and the Python interface use (from 0).
"""

from dataclasses import dataclass
from enum import StrEnum

from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.types import Absent, Counts, Fact, Floats, Interval, Objective


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
    """One method's modules: a row of the comparison; the first row is IterD."""

    method: str  # such as "IterD" or "k-means"
    value: Interval  # objective L over the seeds
    xi: Interval  # activation modularity over the seeds
    balance: Interval  # balance B over the seeds
    accuracy: Interval | None  # downstream accuracy on held-out samples, or None where not measured
    macro_f1: Interval | None  # downstream macro-F1, or None where not measured
    num_seeds: int  # number of seeds behind the estimates


@dataclass(frozen=True)
class Classifier:
    """A classifier that reads a sample's category from its module features."""

    name: str
    accuracy: Interval  # share of the held-out samples put into their own category
    macro_f1: Interval  # mean of the categories' F1 scores
    f1: tuple[float, ...]  # F1 of each category, in the order of ``Downstream.categories``
    confusion: Counts  # held-out samples, true category (rows) by predicted category (columns)


@dataclass(frozen=True)
class Downstream:
    """Scores of classifiers on the module features.

    Attributes:
        categories: Names of the categories.
        classifiers: The classifiers, the main one first.
        folds: Folds of the cross-validation on the train samples; None where held-out samples were
            scored.
        num_train: Samples that a classifier was fitted on.
        num_scored: Samples that were scored.
    """

    categories: tuple[str, ...]
    classifiers: tuple[Classifier, ...]
    folds: int | None
    num_train: int
    num_scored: int


@dataclass(frozen=True)
class Agreement:
    """How far the modules of the samples agree with their categories."""

    split: str  # "train" or "test" (held-out samples go to the module of largest mean activation)
    adjusted_rand: float  # adjusted Rand index (1: same partition, 0: chance)
    mutual_information: float  # normalised mutual information, 0 to 1
    purity: float  # share of samples in the commonest category of their module


@dataclass(frozen=True)
class TypicalPrompt:
    """One typical prompt of a module. Untrusted text."""

    sample_id: str  # the sample's id in the corpus
    text: str  # the whole prompt; the page shortens it
    margin: float  # mean activation in its module minus the largest one elsewhere
    category: str | None = None  # the sample's category, if it has one


@dataclass(frozen=True)
class Module:
    """One module, described.

    Attributes:
        number: The module's number, from 0.
        name: One line made from its keywords and categories. Untrusted text.
        num_samples: Train samples in it.
        num_units: Units in it.
        keywords: Its keywords, the strongest first (untrusted text), or why there are none.
        prompts: Its most typical prompts, the strongest first, or why none are shown.
        length: Quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of its samples' token counts, if known.
        stability: Share of the other restarts in which a unit of it lies in the same module (by
            overlap), mean over its units; None where there is a single restart.
    """

    number: int
    name: str
    num_samples: int
    num_units: int
    keywords: tuple[str, ...] | Absent
    prompts: tuple[TypicalPrompt, ...] | Absent
    length: tuple[float, float, float, float, float] | None = None
    stability: float | None = None


@dataclass(frozen=True, eq=False)
class Categories:
    """Modules against the corpus's categories.

    Attributes:
        names: Names of the C categories.
        counts: Train samples, module by category, shape (K, C).
        breadth: Effective number of categories of each module, exp of the entropy of its mix: 1
            for a single category, C for an even mix, 0 for a module without such samples,
            shape (K,).
        similarity: Mean cosine of the module-feature vectors of two samples, category by category;
            NaN where there are no two, shape (C, C).
    """

    names: tuple[str, ...]
    counts: Counts
    breadth: Floats
    similarity: Floats


@dataclass(frozen=True, eq=False)
class Layers:
    """Where the modules' units are.

    Attributes:
        names: Names of the layers from the input to the output.
        units: Units, module by layer, shape (K, layers).
        concentration: Distance (total variation) of each module's distribution over the layers from
            that of all units: 0 for a module spread like the model, towards 1 for one in a single
            layer of many, shape (K,).
    """

    names: tuple[str, ...]
    units: Counts
    concentration: Floats


@dataclass(frozen=True)
class Restart:
    """One run of the search."""

    number: int  # the restart's number, from 0
    objectives: tuple[float, ...]  # objective at the start and after each iteration
    converged: bool  # whether it ended because nothing moved


class PromptProperty(StrEnum):
    """A property of a prompt that modules may follow in place of its content."""

    LENGTH = "length"
    DIGITS = "digits"
    PUNCTUATION = "punctuation"
    NON_ASCII = "non_ascii"


class ConfoundMeasure(StrEnum):
    """How the relation of a property with the modules is measured."""

    EXPLAINED_VARIANCE = "explained_variance"  # epsilon squared of the property's ranks
    MODULE_CORRELATION = "module_correlation"  # the largest with a module's feature
    COMPONENT_CORRELATION = "component_correlation"  # with a principal component of the features


@dataclass(frozen=True)
class Confound:
    """How strongly a property of the prompts is related to the modules.

    Attributes:
        property: The property.
        measure: What is measured; correlations are rank correlations.
        value: Its value.
        index: The module or the component (from 1) of a correlation; None for explained variance.
    """

    property: PromptProperty
    measure: ConfoundMeasure
    value: float
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Discovery:
    """All that is known of the modules found for one K.

    Attributes:
        num_modules: K.
        seed: Seed of the search.
        objective: Objective of the modules kept.
        activation: Mean z of a module's samples (rows) on a module's units, shape (K, K).
        modules: The modules in ascending order.
        restarts: The runs of the search; the modules come from the best.
        restart_agreement: Mean adjusted Rand index between the restarts, of their units and of
            their samples; None where there is a single restart.
        null: Objectives found on the same data with each unit's column permuted.
        methods: Comparison with other methods, IterD first; empty where it was not made.
        downstream: Categories read from the module features.
        agreement: Agreement of modules and categories, one value a split.
        categories: Modules against categories.
        layers: Modules against layers.
        linkage: Hierarchy of the modules, as SciPy's linkage matrix, shape (K - 1, 4).
        ablation: The causal check.
        confounds: Properties of the prompts that are related to the modules.
    """

    num_modules: int
    seed: int
    objective: Objective
    activation: Floats
    modules: tuple[Module, ...]
    restarts: tuple[Restart, ...]
    restart_agreement: tuple[float, float] | None
    null: tuple[Objective, ...] | Absent
    methods: tuple[MethodRow, ...]
    downstream: Downstream | Absent
    agreement: tuple[Agreement, ...] | Absent
    categories: Categories | Absent
    layers: Layers | Absent
    linkage: Floats | Absent
    ablation: Ablation | Absent
    confounds: tuple[Confound, ...] | Absent

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modules, in ascending order of their numbers."""
        return tuple(module.name for module in self.modules)


@dataclass(frozen=True, eq=False)
class Overlap:
    """How the modules of one K share their units with those of the next larger K.

    Attributes:
        num_modules: The smaller K.
        next_num_modules: The larger K.
        units: Units that two modules share, shape (smaller K, larger K).
        samples: Samples that two modules share, same shape.
        nestedness: Share of the units that lie in the module of the smaller K which holds most of
            their own module.
        expected: What that share would be if the two sets of modules were independent.
    """

    num_modules: int
    next_num_modules: int
    units: Counts
    samples: Counts
    nestedness: float
    expected: float


@dataclass(frozen=True)
class Reproduction:
    """What it takes to get the same modules again."""

    commands: tuple[str, ...]  # shell commands, in order
    job: str  # the job's YAML text
    versions: tuple[Fact, ...]  # versions of the software
    digests: tuple[Fact, ...]  # digests of corpus, model, store and code


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows."""

    run: RunFacts  # what was run
    discoveries: tuple[Discovery, ...]  # the modules of each K, K ascending, at least one
    overlaps: tuple[Overlap, ...] | Absent  # overlaps between successive K, in order
    reproduction: Reproduction  # how to get the same again

"""All that is known of a run's modules, as frozen values that the report shows.

Whatever a run may lack is typed ``X | Absent``; the page then prints the reason instead.
Modules carry the numbers that the run's files and the Python interface use (from 0).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from ulcmod_dist.results.ablation import AblatedMethod, Ablation
from ulcmod_dist.results.explanation import Explanation
from ulcmod_dist.results.types import Absent, Counts, Fact, Floats, Interval, Objective, Repeats


@dataclass(frozen=True)
class RunFacts:
    """What was run."""

    name: str  # the run's name, the page's title
    model: str | None  # model whose units were split; None for an imported matrix
    num_samples: int  # train samples
    num_test_samples: int  # held-out samples; 0 where there are none
    num_units: int  # units of all layers
    facts: tuple[Fact, ...] = ()  # further facts, in the order to print


NOT_EXPLAINED = Absent("The modules have not been explained: ulcmod explain does it.")
"""Stands where the explanation of modules would be."""

NOT_MEASURED = Absent("Evaluated before degrees of membership were measured.")

ITERD = "IterD"
"""Name of the search for a run's own modules among the methods."""

SUPERVISED = "supervised selectivity"
"""Name of the method that groups units by the given categories: an upper line, no baseline."""

RANDOM_GROUPS = "random groups of units"
"""Name of the row that serves as level: groups as large as IterD's modules, drawn at random."""


@dataclass(frozen=True)
class MethodRow:
    """One method's modules: a row of the comparison; the first row is IterD.

    Measures are absent, None, where the corpus has no categories, a method ran with one seed, or
    found no modules in a half.
    """

    method: str  # such as "IterD" or "k-means"
    value: Repeats  # objective L, one value a seed as all of these
    xi: Repeats  # activation modularity
    balance: Repeats  # balance B
    accuracy: Repeats | None = None  # of the support vector machine on the K features, held out
    macro_f1: Repeats | None = None  # its macro-F1
    adjusted_rand: Repeats | None = None  # modules of the train samples against their categories
    mutual_information: Repeats | None = None  # the same, normalised by the mean entropy
    # Modules that tell a category better than 95% of the random groups of units do.
    stand_out: Repeats | None = None
    # Mean adjusted Rand index between seeds, of the units' modules and of the samples'.
    seeds_agreement: tuple[float, float] | None = None
    # Adjusted Rand index of the units' modules that two random halves of the samples lead to.
    halves_agreement: float | None = None

    @property
    def num_seeds(self) -> int:
        """Seeds behind the values; of random groups, draws."""
        return len(self.value.values)


@dataclass(frozen=True)
class MethodComparison:
    """The modules of several methods, for one K."""

    rows: tuple[MethodRow, ...]  # IterD first, random groups last
    left_out: tuple[Fact, ...] = ()  # methods that found no modules, and why not


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
    """Scores of classifiers on the module features."""

    categories: tuple[str, ...]  # names of the categories
    classifiers: tuple[Classifier, ...]  # the classifiers, the main one first
    folds: int | None  # folds of the cross-validation; None where held-out samples were scored
    num_train: int  # samples that a classifier was fitted on
    num_scored: int  # samples that were scored
    note: str = ""  # which categories took no part and why, in full sentences


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
    margin: float  # L lost by moving it to the next best module, as in the table of samples
    category: str | None = None  # the sample's category, if it has one


@dataclass(frozen=True)
class Module:
    """One module, described."""

    number: int  # the module's number, from 0
    name: str  # one line made from its keywords and categories. Untrusted text
    num_samples: int  # train samples in it
    num_units: int  # units in it
    keywords: tuple[str, ...] | Absent  # strongest first (untrusted text), or why there are none
    prompts: tuple[TypicalPrompt, ...] | Absent  # the most typical first, or why none are shown
    # Quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of its samples' token counts, if known.
    length: tuple[float, float, float, float, float] | None = None
    # Share of the other restarts in which a unit of it lies in the same module (by overlap), mean
    # over its units; None where there is a single restart.
    stability: float | None = None


@dataclass(frozen=True, eq=False)
class Categories:
    """Modules against the corpus's categories."""

    names: tuple[str, ...]  # names of the C categories; of very many, the most frequent
    counts: Counts  # train samples, module by category, shape (K, C)
    # Effective number of all categories of each module, exp of the entropy of its mix: 1 for a
    # single category, their number for an even mix, 0 for a module without such samples, shape (K,)
    breadth: Floats
    # Mean cosine of the module features of two samples, by pairs of ``compared``; NaN where there
    # are no two, shape (compared, compared).
    similarity: Floats
    compared: tuple[int, ...]  # positions of the categories of ``similarity``, the most frequent
    num_others: int = 0  # categories without a name here
    others: tuple[int, ...] = ()  # train samples of these, by module; empty where there are none


@dataclass(frozen=True, eq=False)
class Layers:
    """Where the modules' units are."""

    names: tuple[str, ...]  # names of the layers from the input to the output
    units: Counts  # units, module by layer, shape (K, layers)
    # Distance (total variation) of each module's distribution over the layers from that of all
    # units: 0 for a module spread like the model, towards 1 for a single layer of many, shape (K,).
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
    """How strongly a property of the prompts is related to the modules."""

    property: PromptProperty
    measure: ConfoundMeasure  # what is measured; correlations are rank correlations
    value: float
    index: int | None = None  # module, or component from 1; None for explained variance


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


@dataclass(frozen=True, eq=False)
class Discovery:
    """All that is known of the modules found for one K."""

    num_modules: int  # K
    seed: int  # seed of the search
    objective: Objective  # objective of the modules kept
    activation: Floats  # mean z of a module's samples (rows) on a module's units, shape (K, K)
    modules: tuple[Module, ...]  # the modules in ascending order
    restarts: tuple[Restart, ...]  # the runs of the search; the modules come from the best
    # Mean adjusted Rand index between the restarts, of their units and of their samples; None where
    # there is a single restart.
    restart_agreement: tuple[float, float] | None
    null: tuple[Objective, ...] | Absent  # objectives with each unit's column permuted
    methods: tuple[MethodRow, ...]  # IterD first, random groups last; empty where none was made
    downstream: Downstream | Absent  # categories read from the module features
    agreement: tuple[Agreement, ...] | Absent  # of modules and categories, one value a split
    categories: Categories | Absent  # modules against categories
    layers: Layers | Absent  # modules against layers
    linkage: Floats | Absent  # the modules' tree, SciPy's linkage matrix, shape (K - 1, 4)
    ablation: Ablation | Absent  # the causal check
    confounds: tuple[Confound, ...] | Absent  # properties of the prompts related to the modules
    methods_left_out: tuple[Fact, ...] = ()  # methods that were not compared, and why not
    # What drives the modules, and what the model says without them.
    explanation: Explanation | Absent = NOT_EXPLAINED
    # How strongly units and samples belong to every module.
    membership: Membership | Absent = NOT_MEASURED
    # The modules of other methods, ablated likewise; empty where the job names none.
    ablated_methods: tuple[AblatedMethod, ...] = ()

    @property
    def best_baseline(self) -> MethodRow | None:
        """The other method with the largest L, of those that do not know the categories."""
        reference = {RANDOM_GROUPS, SUPERVISED}
        others = (row for row in self.methods[1:] if row.method not in reference)
        return next(others, None)

    @property
    def random_groups(self) -> MethodRow | None:
        """The level that random groups of units of the modules' sizes reach."""
        return next((row for row in self.methods if row.method == RANDOM_GROUPS), None)

    @property
    def ablations(self) -> dict[str, Ablation]:
        """The ablation by method, IterD first; empty where the modules were not ablated."""
        own = {} if isinstance(self.ablation, Absent) else {ITERD: self.ablation}
        return own | {other.method: other.ablation for other in self.ablated_methods}

    @property
    def left_out(self) -> dict[str, str]:
        """Parts of the evaluation that are not there, and why not."""
        parts = {
            "null model": self.null,
            **{fact.label: Absent(fact.value) for fact in self.methods_left_out},
            "classifiers": self.downstream,
            "agreement with categories": self.agreement,
            "categories": self.categories,
            "layers": self.layers,
            "hierarchy": self.linkage,
            "confounds": self.confounds,
        }
        return {name: part.reason for name, part in parts.items() if isinstance(part, Absent)}

    def with_ablation(self, ablation: Ablation) -> "Discovery":
        """Attach an ablation; names of modules that are not selective begin so."""
        flags = {
            row.module: "General machinery" if row.is_general else "Not selective"
            for row in ablation.modules
            if not row.is_selective
        }
        modules = tuple(
            replace(module, name=f"{flags[module.number]} ({module.name})")
            if module.number in flags
            else module
            for module in self.modules
        )
        return replace(self, modules=modules, ablation=ablation)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modules, in ascending order of their numbers."""
        return tuple(module.name for module in self.modules)


@dataclass(frozen=True, eq=False)
class Overlap:
    """How the modules of one K share their units with those of the next larger K."""

    num_modules: int  # the smaller K
    next_num_modules: int  # the larger K
    units: Counts  # units that two modules share, shape (smaller K, larger K)
    samples: Counts  # samples that two modules share, same shape
    nestedness: float  # share of units in the smaller-K module that holds most of theirs
    expected: float  # what that share would be if the two sets of modules were independent


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

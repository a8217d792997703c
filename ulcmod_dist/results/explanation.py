"""What drives the modules of one K, what the model says without them, and lines that describe them.

All texts are those of prompts and models, hence untrusted.
"""

from dataclasses import dataclass

from ulcmod_dist.results.types import Absent, Floats


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """One typical prompt of a module, token by token, without the chat template around it."""

    sample_id: str
    tokens: tuple[str, ...]  # their texts, which join to the text of the prompt
    values: Floats  # mean z of the module's units at each token, shape (tokens,)
    num_left_out: int = 0  # tokens of the prompt after these


@dataclass(frozen=True)
class TopToken:
    """A token at which a module or a unit is most active."""

    text: str
    value: float  # z at the token; of a module the mean z of its units
    sample_id: str  # the sample in which it stands


@dataclass(frozen=True)
class TopUnit:
    """One of the units that belong most clearly to a module."""

    unit: int  # its number in the model
    name: str  # such as "layer 11 unit 1229"
    margin: float | None  # L lost by moving it to the next best module; None for K = 1
    tokens: tuple[TopToken, ...] | Absent  # over the typical prompts of all modules


@dataclass(frozen=True)
class Completion:
    """What the model says to a prompt of a module, untouched and with the module ablated to 0."""

    sample_id: str
    prompt: str
    untouched: str
    ablated: str


@dataclass(frozen=True)
class Description:
    """One line on a module by a language model, and how well it tells the module's samples."""

    text: str
    # Area under the ROC curve of the same model's log-odds of "yes" when it is asked of each
    # held-out prompt whether the line fits it: 0.5 by chance; None without prompts of both kinds.
    auc: float | None
    num_own: int  # held-out prompts of the module that were asked about
    num_other: int  # held-out prompts of other modules


@dataclass(frozen=True)
class ExplainedModule:
    """One module, explained."""

    module: int
    prompts: tuple[TokenActivations, ...] | Absent  # the most typical first
    tokens: tuple[TopToken, ...] | Absent  # of the module itself, over its typical prompts
    units: tuple[TopUnit, ...]  # of largest margin first
    completions: tuple[Completion, ...] | Absent
    description: Description | Absent


@dataclass(frozen=True)
class Explanation:
    """The modules of one K, explained."""

    num_modules: int  # K
    modules: tuple[ExplainedModule, ...]  # in ascending order
    max_tokens: int = 0  # of a completion
    describer: str | None = None  # the model that wrote and scored the descriptions

    @property
    def mean_auc(self) -> float | None:
        """Mean score of the descriptions that have one."""
        scores = [
            each.description.auc
            for each in self.modules
            if not isinstance(each.description, Absent) and each.description.auc is not None
        ]
        return sum(scores) / len(scores) if scores else None

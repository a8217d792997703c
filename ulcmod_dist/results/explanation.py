"""What drives the modules of one K, and what the model says without them. Untrusted texts."""

from dataclasses import dataclass

from ulcmod_dist.results.types import Absent, Floats


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """One typical prompt of a module, token by token, without the chat template around it."""

    sample_id: str
    tokens: tuple[str, ...]  # their texts, which join to that of the prompt; long ones are cut
    values: Floats  # mean z of the module's units at each token, shape (tokens,)


@dataclass(frozen=True)
class TopToken:
    """A token at which a module or a unit is most active over the typical prompts."""

    text: str
    value: float  # z at the token; of a module the mean z of its units


@dataclass(frozen=True)
class TopUnit:
    """One of the units that belong most clearly to a module."""

    unit: int  # its number in the model
    name: str  # such as "layer 11 unit 1229"
    margin: float  # L lost by moving it to the next best module; NaN for K = 1
    tokens: tuple[TopToken, ...] | Absent  # over the typical prompts of all modules


@dataclass(frozen=True)
class Completion:
    """What the model says to a held-out prompt, untouched and with the prompt's module at 0."""

    sample_id: str
    prompt: str
    untouched: str
    ablated: str


@dataclass(frozen=True)
class Description:
    """One line on a module by a language model, and how well it tells the module's samples."""

    text: str
    # Area under the ROC curve of the same model's log-odds of "Yes" when asked of held-out prompts
    # whether the line fits: 0.5 by chance; None without prompts of the module or of others.
    auc: float | None
    num_own: int  # held-out prompts of the module that were asked about
    num_other: int  # those of other modules


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
    """The modules of one K, explained, in ascending order."""

    num_modules: int  # K
    modules: tuple[ExplainedModule, ...]

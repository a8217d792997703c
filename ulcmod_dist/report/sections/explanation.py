"""What the card of a module shows of its explanation: tokens, units and completions."""

from ulcmod_dist.report.blocks import (
    Block,
    CompletionPairs,
    Facts,
    Note,
    ShadedPrompts,
)
from ulcmod_dist.results.explanation import ExplainedModule, TopToken
from ulcmod_dist.results.types import Absent, Fact
from ulcmod_dist.runtime.text import label, number


def show_tokens(explained: ExplainedModule) -> tuple[Block, ...]:
    """The description of a module, its top tokens, and its typical prompts token by token."""
    blocks: list[Block] = []
    if not isinstance(described := explained.description, Absent):
        words = f"Described by a language model: {label(described.text, 200)}"
        if described.auc is not None:
            words += (
                f" (area under the curve {described.auc:.2f} for {described.num_own} held-out "
                f"prompts of the module against {described.num_other} others; 0.5 by chance)"
            )
        blocks.append(Note(words))
    if isinstance(explained.prompts, Absent):
        return tuple(blocks)
    if not isinstance(explained.tokens, Absent):
        blocks.append(Facts((Fact("Top tokens", _join(explained.tokens)),)))
    words = (
        "Shaded by the module's activation at each token (mean z of its units): darker is more, "
        "and the strongest are underlined. Point at a token to read the number."
    )
    return (*blocks, Note(words), ShadedPrompts(explained.prompts))


def show_units(explained: ExplainedModule) -> tuple[Block, ...]:
    """The units that belong most clearly to a module, with their top tokens."""
    facts = (
        Fact(unit.name, "" if isinstance(unit.tokens, Absent) else _join(unit.tokens))
        for unit in explained.units
    )
    words = (
        "Units of largest margin, and the tokens of all typical prompts at which each is most "
        "active, with its z there."
    )
    return (Note(words), Facts(tuple(facts)))


def show_completions(explained: ExplainedModule) -> tuple[Block, ...]:
    """What the model says to a few held-out prompts of a module, with and without it."""
    if isinstance(explained.completions, Absent):
        return ()
    words = "Greedy completions of held-out prompts: untouched, and with the module's units at 0."
    return (Note(words), CompletionPairs(explained.completions))


def _join(tokens: tuple[TopToken, ...]) -> str:
    # A line ends between tokens, not between a token and its number.
    return " · ".join(f"{label(token.text)}\u00a0{number(token.value)}" for token in tokens)

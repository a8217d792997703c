"""What a page is made of: sections of blocks, before any HTML."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ulcmod_dist.report.specs import Figure
from ulcmod_dist.report.tables import Table
from ulcmod_dist.results.discovery import Discovery, Module, ReportData, TypicalPrompt
from ulcmod_dist.results.explanation import Completion, TokenActivations
from ulcmod_dist.results.types import Absent, Fact
from ulcmod_dist.runtime.text import number


@dataclass(frozen=True)
class Note:
    """One or more plain sentences."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Labelled facts below each other."""

    facts: tuple[Fact, ...]
    title: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """One number that sums something up, with what it means."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """The few numbers a reader should leave with."""

    figures: tuple[KeyFigure, ...]


@dataclass(frozen=True)
class Claim:
    """One thing that was found, or that was not, with its evidence."""

    text: str  # the finding, in one sentence
    evidence: str  # the numbers behind it
    section: str  # key of the section that shows them


@dataclass(frozen=True)
class Claims:
    """What was found, most important first; or why something is not known."""

    claims: tuple[Claim | Absent, ...]


@dataclass(frozen=True)
class Picture:
    """A figure under a name that is its file's too; a wide one has a row of its own."""

    name: str
    spec: Figure
    wide: bool = False


@dataclass(frozen=True)
class Collapsible:
    """A table that stays closed until the reader opens it: a picture has shown it already."""

    table: Table


@dataclass(frozen=True)
class Listing:
    """Text to copy, such as a file or commands."""

    title: str
    text: str


@dataclass(frozen=True)
class ShareBar:
    """One bar of a small bar list: its label, its share of 1 and its printed value."""

    label: str
    share: float
    text: str


@dataclass(frozen=True)
class ShadedPrompts:
    """The typical prompts of a module, token by token. Untrusted text."""

    prompts: tuple[TokenActivations, ...]

    def shade(self, prompt: TokenActivations) -> Iterator[tuple[str, str, int]]:
        """Yield text, value and shade of each token, from 0 to 5 for the module's largest value."""
        largest = max(float(each.values.max(initial=0)) for each in self.prompts) or 1.0
        for text, value in zip(prompt.tokens, prompt.values.tolist(), strict=True):
            yield text, number(value), int(5 * max(0.0, value) / largest)


@dataclass(frozen=True)
class CompletionPairs:
    """What a model says to prompts, untouched and changed."""

    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class ShareBars:
    """A bar list under a heading."""

    title: str
    bars: tuple[ShareBar, ...]


@dataclass(frozen=True)
class LayerColumns:
    """The share of each layer's units that a module holds, as columns from input to output."""

    columns: tuple[ShareBar, ...]


@dataclass(frozen=True)
class Prompts:
    """The typical prompts of a module."""

    prompts: tuple[TypicalPrompt, ...]


@dataclass(frozen=True)
class Tab:
    """One view of a module; equal keys are the same view of different modules."""

    key: str
    title: str
    blocks: "tuple[Block, ...]"  # at least one


@dataclass(frozen=True)
class ModuleCard:
    """What the page tells about one module when it is picked."""

    module: Module
    summary: str  # size, activation and stability in plain sentences
    tabs: tuple[Tab, ...]


@dataclass(frozen=True)
class ModulePicker:
    """The modules of one K, of which the reader picks one at a time."""

    cards: tuple[ModuleCard, ...]


Block = (
    Note | Absent | Facts | KeyFigures | Claims | Picture | Table | Collapsible | Listing
    | ModulePicker | ShareBars | LayerColumns | Prompts | ShadedPrompts | CompletionPairs
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One question and its answer."""

    key: str  # anchor on the page
    title: str  # the question, as a heading
    lead: str  # the answer in a sentence or two, the same for each K; may be empty
    shared: tuple[Block, ...] = ()  # blocks that hold for each K
    by_num_modules: tuple[tuple[int, tuple[Block, ...]], ...] = ()  # blocks of each K, K ascending

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks, those of each K first, in order."""
        for _, blocks in self.by_num_modules:
            yield from blocks
        yield from self.shared


def build_choices(
    data: ReportData, build_blocks: Callable[[Discovery], tuple[Block, ...]]
) -> tuple[tuple[int, tuple[Block, ...]], ...]:
    """Return the blocks of each K, which the names of its figures and tables end in."""
    return tuple(
        (found.num_modules, tuple(_name_by_choice(block, found) for block in build_blocks(found)))
        for found in data.discoveries
    )


def _name_by_choice(block: Block, found: Discovery) -> Block:
    suffix = f"-k{found.num_modules:03d}"  # three digits, so that names sort
    if isinstance(block, Collapsible):
        return Collapsible(replace(block.table, name=block.table.name + suffix))
    return replace(block, name=block.name + suffix) if isinstance(block, Picture | Table) else block

"""The sections of a job but for `cluster`: keys, meaning, defaults and validation."""

import os
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from ulcmod_dist.config.fields import IntList, Size, StrList
from ulcmod_dist.errors import InvalidInput

_COMMIT = re.compile(r"[0-9a-f]{40}")

PLACEMENT_TIMEOUT = 45.0
"""Seconds that actors wait for resources before the run gives up and says what is short."""
AUTOSCALING_TIMEOUT = 1200.0
"""The same where the cluster may add machines for waiting actors, which takes minutes."""


class Config(BaseModel):
    """A section of the job: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """The section from keyword arguments of the public API; InvalidInput names a bad one."""
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidInput(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']} (it is {first['input']!r})."
            ) from error


class ModelConfig(Config):
    """The language model, its revision and its precision."""

    id: str
    """Local folder, id on the Hugging Face hub, or a [GGUF file](faq.md#hardware-and-models)."""
    revision: str | None = None
    """Commit (40 hexadecimal digits); required for a hub id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass; float32 is the reference."""
    attention: Literal["sdpa", "eager"] | None = None
    """Attention implementation of transformers; by default `sdpa`, or `eager` for models that
    have no other."""
    units: StrList = ()
    """Paths of the MLP's down-projections in the base model, with `{}` for each number, such as
    `layers.{}.mlp.down_proj`; only for models whose units are not found by themselves."""

    @field_validator("units")
    @classmethod
    def _require_placeholder(cls, units: tuple[str, ...]) -> tuple[str, ...]:
        for path in units:
            if "{}" not in path:
                raise ValueError(f"{path!r} has no {{}} in place of the layer's number")
        return units

    @field_validator("revision")
    @classmethod
    def _require_commit(cls, revision: str | None) -> str | None:
        if revision is not None and _COMMIT.fullmatch(revision) is None:
            raise ValueError(f"{revision!r} is not a commit of 40 hexadecimal digits")
        return revision


class CorpusConfig(Config):
    """The files of the prompts, and the columns to read, see [the FAQ](faq.md#data)."""

    train: StrList = Field(min_length=1)
    """File, folder, glob or URL of the train samples, or a list of these."""
    test: StrList = ()
    """The same for held-out samples; none by default."""
    text: str | None = "text"
    """Column of the prompts' texts."""
    messages: str | None = None
    """Column of chats, which are lists of messages, in place of `text`."""
    category: str | None = None
    """Column of the category, in the files or in their path (`category=Math/`); none by default."""
    id: str | None = None
    """Column of the sample ids; by default the rows of a split are numbered."""
    answer: str | None = None
    """Column of the expected answers, which `ulcmod ablate` measures beside the prompts; none by
    default. A blank one is none."""

    @model_validator(mode="before")
    @classmethod
    def _messages_replace_text(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("messages") and "text" not in data:
            return {**data, "text": None}
        return data

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("name exactly one of text and messages")
        return self


RESERVED_ARGUMENTS = frozenset(
    [
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation",
        "conversations", "max_length", "messages", "padding", "raise_exception",
        "return_assistant_tokens_mask", "return_dict", "return_tensors",
        "sanitize_control_tokens", "self", "strftime_now", "tokenize", "tokenizer_kwargs",
        "truncation",
    ]
)  # fmt: skip
"""What the program or transformers itself gives to a chat template."""


class TokenizationConfig(Config):
    """How prompts are tokenized, and which tokens enter the mean."""

    template: str = Field("model", min_length=1)
    """`model`: the model's chat template; `none`: the plain text; else the name of one of several
    templates of the model."""
    template_arguments: dict[str, JsonValue] = {}
    """Variables of the chat template, such as `enable_thinking: false` or `tools`."""
    system: str | None = "You are a helpful assistant."
    """System message of the chat template."""
    control_tokens: Literal["text", "tokens"] = "text"
    """Whether control tokens that a prompt spells, such as `<|im_end|>`, are read as text or as
    the tokens."""
    tokens: Literal["all", "prompt", "last"] = "all"
    """Tokens that enter the mean: all, those of the user's text, or the last."""
    max_tokens: int | None = Field(None, gt=0)
    """Length limit; by default the model's own maximum."""
    long: Literal["truncate", "refuse"] = "truncate"
    """Whether a prompt over the limit is truncated or refused."""

    @model_validator(mode="after")
    def _check_template_arguments(self) -> Self:
        if self.template_arguments and self.template == "none":
            raise ValueError("template_arguments: there is no template to read them")
        reserved = sorted(RESERVED_ARGUMENTS & self.template_arguments.keys())
        if reserved:
            raise ValueError(f"template_arguments: {reserved[0]!r} is set by the program itself")
        return self


Statistic = Literal["activation", "attribution"]


class ExtractConfig(Config):
    """What is measured of the units, and how the passes are distributed over Ray actors."""

    statistic: Statistic = "activation"
    """What a row holds of a unit: its mean absolute `activation`, or its `attribution`, activation
    times gradient of the prompt's own loss (decoders; see [Method](method.md#attribution))."""
    workers: int | None = Field(None, gt=0)
    """Number of actors; by default as many as fit on the cluster."""
    cpus: float = Field(1.0, gt=0)
    """CPUs of an actor; also its number of threads."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of an actor. With `ranks: 1` several GPUs hold whole layers and work in turn
    (`device_map`): for models that fit no single GPU and have no tensor-parallel plan."""
    ranks: int = Field(1, gt=0)
    """Processes that share a model by tensor parallelism, one GPU each."""
    address: str | None = None
    """Address of the Ray cluster; by default RAY_ADDRESS, else a local Ray."""
    patience: float | None = Field(None, gt=0)
    """Timeout for placing the actors, in seconds; by default 45, or 1,200 where a Ray cluster
    is named and `workers` is set, so that its machines can still join."""
    shard_samples: int | None = Field(None, gt=0)
    """Number of samples of a shard; by default as in the run's plan, else 512, and more for over a
    million prompts: 2,000 shards, but none above 64 MiB for that."""
    batch_tokens: int | None = Field(None, gt=0)
    """Tokens of a batch, padding included; by default as the device's memory allows, from 512
    to 4,096 on CPUs and to 65,536 on GPUs."""

    @model_validator(mode="after")
    def _require_gpu_per_rank(self) -> Self:
        if self.ranks > 1 and self.gpus not in (0, self.ranks):
            raise ValueError(f"{self.ranks} ranks need gpus: {self.ranks}, not {self.gpus:g}")
        return self

    @property
    def needs_loss(self) -> bool:
        """Whether rows depend on the loss of their prompts, and so on the model's head."""
        return self.statistic == "attribution"

    @property
    def device(self) -> str:
        """Device of torch of an actor; ``auto`` spreads the layers over several GPUs."""
        if self.gpus == 0:
            return "cpu"
        return "auto" if self.gpus > 1 else "cuda"

    @property
    def threads(self) -> int:
        """Threads of an actor for computing on CPUs."""
        return max(1, int(self.cpus))

    @property
    def can_grow(self) -> bool:
        """Whether machines may join the Ray of the actors, which a local one does not allow."""
        return (self.address or os.environ.get("RAY_ADDRESS") or "local") != "local"

    @property
    def placement_timeout(self) -> float:
        """Seconds that actors may wait for resources."""
        if self.patience is not None:
            return self.patience
        # A cluster may still be adding machines for a known number of actors.
        return AUTOSCALING_TIMEOUT if self.can_grow and self.workers else PLACEMENT_TIMEOUT


class SearchConfig(Config):
    """The search for modules by IterD."""

    modules: IntList = Field(min_length=1)
    """Number of modules K, or a list of them."""
    restarts: int = Field(10, gt=0)
    """Maximum number of restarts; the highest L wins. No more are made once two of them ended at
    the best L."""
    moves: bool = True
    """Improve the best restart by merging two modules and splitting a third while this raises L."""
    seed: int = Field(0, ge=0)
    """Seed of initial modules and sweep orders."""
    max_iterations: int = Field(100, ge=0)
    """Maximum number of iterations."""
    tolerance: float = Field(0.0, ge=0, lt=1)
    """The search stops after an iteration that raises L by no more than this fraction; with 0
    it stops when no label changes."""
    mode: Literal["auto", "exact", "blockwise"] = "auto"
    """`exact`, `blockwise` (one read an iteration), or as memory allows."""
    memory: Size | None = Field(None, gt=0)
    """Memory limit of the whole search, such as `8 GiB`, and of the arrays of the evaluation; by
    default 70% of what the executor's machines have."""
    keep: Literal["float32", "float16"] = "float32"
    """Precision in memory; `float16` holds standardised values."""
    executor: str = "threads"
    """`threads`, `distributed`, the address of a scheduler, or `ray`."""

    @field_validator("modules")
    @classmethod
    def _sort_distinct(cls, modules: tuple[int, ...]) -> tuple[int, ...]:
        if min(modules) < 1 or len(set(modules)) < len(modules):
            raise ValueError(f"numbers of modules must be positive and distinct, not {modules}")
        return tuple(sorted(modules))


Baseline = Literal[
    "k-means",
    "mini-batch k-means",
    "agglomerative",
    "spectral",
    "spectral co-clustering",
    "functional networks",
    "per-layer experts",
    "supervised selectivity",
]


class EvaluateConfig(Config):
    """How the modules are evaluated."""

    seed: int = Field(0, ge=0)
    """Seed of permutations and classifiers."""
    null_permutations: int = Field(3, ge=0)
    """Number of searches on permuted columns (null model), one start each."""
    baselines: tuple[Baseline, ...] = typing.get_args(Baseline)
    """Methods to compare with; see [Method](method.md#evaluation)."""
    seeds: int = Field(3, gt=0)
    """Number of seeds of each method, counted from `discover.seed`."""


class AblateConfig(Config):
    """The causal check: how much the loss increases when a module is ablated."""

    with_run: bool = False
    """Whether `ulcmod run` ablates the modules too, in 1 + K + 3K x `random_sets` passes over
    the measured samples of each K, and two for each module with units of extreme activation;
    otherwise only `ulcmod ablate` does."""
    baselines: tuple[Baseline, ...] = ()
    """Methods of `evaluate.baselines` whose modules are ablated too, beside random groups of
    units: as many passes for each as for the modules."""
    method: Literal["resample", "mean", "zero"] = "resample"
    """Value of ablated units: what they hold in a sample of another module, their mean over the
    samples, or zero."""
    samples: int = Field(40, gt=0)
    """Number of samples of each module to measure, drawn with the seed."""
    random_sets: int = Field(1, gt=0)
    """Number of control sets of each kind, of as many units a layer: random, matched in mean
    activation, and of low activation."""
    seed: int = Field(0, ge=0)
    """Seed of samples, their pairs, control sets and intervals."""


class DescribeConfig(Config):
    """A local model that writes a line on each module and is scored by it; by default none."""

    model: str
    """Local folder, id on the Hugging Face hub, or a GGUF file of a decoder for chats."""
    revision: str | None = None
    """Commit (40 hexadecimal digits); required for a hub id."""

    def as_model(self) -> ModelConfig:
        """The section `model` that loads it."""
        return ModelConfig(id=self.model, revision=self.revision)

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        self.as_model()
        return self


class ExplainConfig(Config):
    """What drives the modules, and what the model says without them."""

    with_run: bool = False
    """Whether `ulcmod run` explains the modules too; otherwise only `ulcmod explain` does."""
    completions: int = Field(3, ge=0)
    """Number of held-out prompts of each module to complete, untouched and with it at 0."""
    tokens: int = Field(40, gt=0)
    """Maximum number of tokens of a completion."""
    describe: DescribeConfig | None = None
    """The model that describes modules; nothing is sent to another machine."""


class ReportConfig(Config):
    """What the report shows."""

    prompts: Literal["all", "none"] = "all"
    """`none` leaves the prompts' texts out of report, tables and logs."""
    typical: int = Field(8, gt=0)
    """Number of typical prompts of each module."""
    keywords: int = Field(12, gt=0)
    """Number of keywords of each module."""
    titles: bool = True
    """Whether the files in `figures` bear their titles, with seeds and restarts. A paper has these
    in the caption."""
    formats: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg", "pdf")
    """Formats of the files in `figures`. Drawing them takes most of the time of a report; with `[]`
    the page alone shows figures."""


class RerunConfig(Config):
    """What `ulcmod rerun` keeps, and the limits of drift."""

    start: Literal["warm", "cold"] = "warm"
    """`warm`: search from the last modules; `cold`: from new ones."""
    keep: int = Field(5, ge=0)
    """Number of past versions of the results to keep."""
    min_units_rand: float = Field(0.7, le=1)
    """Lowest adjusted Rand index of units, before and after, without drift."""
    min_samples_rand: float = Field(0.7, le=1)
    """The same for the train samples that both versions have."""
    min_objective: float = Field(0.9, ge=0)
    """Lowest ratio of L per sample and unit to that before, without drift."""


class MatrixConfig(Config):
    """Activations extracted by other means, in place of model and corpus."""

    path: str
    """Activations [samples, units]: a .npy, .npz, .safetensors or .zarr."""
    samples: str | None = None
    """Table (Parquet, JSONL, CSV) of the samples: sample_id, split, category."""
    units: str | None = None
    """Table (Parquet, JSONL, CSV) of the units: layer, index, path, expert."""
    allow_missing_chunks: bool = False
    """Whether a chunk that a Zarr lacks counts as left out on purpose: it is read as the fill
    value. Otherwise such a matrix is refused, since the chunk may be lost."""

    def locations(self) -> dict[str, str]:
        """The files that are given, by key."""
        files = {"path": self.path, "samples": self.samples, "units": self.units}
        return {key: location for key, location in files.items() if location is not None}

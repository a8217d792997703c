"""The sections of a job: which keys there are, what they mean and what they may hold."""

from __future__ import annotations

import re
import typing
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Config(BaseModel):
    """A part of the job: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Config):
    """Which language model, at which revision, in which precision."""

    id: str = Field(description="Local folder of the model, or its id on the Hugging Face hub.")
    revision: str | None = Field(
        None, description="Commit (40 hexadecimal digits); required for a hub id."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the forward pass; float32 is the reference."
    )
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa", description="Attention implementation of transformers."
    )

    @field_validator("revision")
    @classmethod
    def _fixed(cls, revision: str | None) -> str | None:
        if revision is not None and _COMMIT.fullmatch(revision) is None:
            raise ValueError(f"{revision!r} is not a commit of 40 hexadecimal digits")
        return revision


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _bytes(value: Any) -> Any:
    """A number of bytes from a text such as ``8 GiB`` or ``500 MB``."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no size such as 8 GiB") from error


class CorpusConfig(Config):
    """Where the prompts are and which columns bear what."""

    train: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        description="File, folder, glob or URL of the training samples, or a list of them.",
        min_length=1,
    )
    test: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        (), description="The same for held-out samples; none by default."
    )
    text: str | None = Field("text", description="Column of the prompt's text.")
    messages: str | None = Field(
        None, description="Column of chat messages (role and content), in place of `text`."
    )
    category: str | None = Field(None, description="Column of the category; none by default.")
    id: str | None = Field(
        None, description="Column of the sample's id; by default ids count the rows of a split."
    )

    @model_validator(mode="before")
    @classmethod
    def _messages_replace_text(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("messages") and "text" not in data:
            return {**data, "text": None}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("name exactly one of text and messages")
        return self


class TokenizationConfig(Config):
    """How a prompt becomes tokens and which of them count."""

    template: Literal["model", "none"] = Field(
        "model", description="The model's chat template, or none: the plain text."
    )
    system: str | None = Field(
        "You are a helpful assistant.", description="System message of the chat template."
    )
    tokens: Literal["all", "prompt", "last"] = Field(
        "all", description="Tokens that count: all, those of the prompt's own text, or the last."
    )
    max_tokens: int | None = Field(
        None, gt=0, description="Length limit; by default the model's own maximum."
    )
    long: Literal["truncate", "refuse"] = Field(
        "truncate", description="What happens to a prompt over the limit."
    )


class ExtractConfig(Config):
    """How the forward passes are spread."""

    workers: int | None = Field(
        None, gt=0, description="Actors; by default as many as the cluster has room for."
    )
    cpus: float = Field(1.0, gt=0, description="CPUs of an actor, also its threads.")
    gpus: float = Field(
        0.0,
        ge=0,
        description="GPUs of an actor. Several, with `ranks: 1`, hold whole layers each and work "
        "one after another (`device_map`): for models that no GPU holds and no ranks can share.",
    )
    ranks: int = Field(
        1, gt=0, description="Processes that share one model by tensor parallelism, a GPU each."
    )
    address: str | None = Field(
        None, description="Ray cluster; by default RAY_ADDRESS, else a local Ray is started."
    )
    patience: float | None = Field(
        None,
        gt=0,
        description="Seconds that actors wait for resources; by default 45, or 1,200 where a Ray "
        "cluster is named and `workers` is set: its machines may still have to come.",
    )
    shard_samples: int = Field(512, gt=0, description="Samples of a shard.")
    batch_tokens: int | None = Field(
        None,
        gt=0,
        description="Tokens of a batch, padding included; by default as the device's memory "
        "allows, from 512 to 4,096 on CPUs and to 65,536 on GPUs.",
    )

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> Self:
        if self.ranks > 1 and self.gpus not in (0, self.ranks):
            raise ValueError(f"{self.ranks} ranks need gpus: {self.ranks}, not {self.gpus:g}")
        return self


class SearchConfig(Config):
    """The search."""

    modules: Annotated[tuple[int, ...], BeforeValidator(_one_or_more)] = Field(
        description="Number of modules K, or a list of them.", min_length=1
    )
    restarts: int = Field(10, gt=0, description="Starts of the search; the best L wins.")
    seed: int = Field(0, ge=0, description="Seed of starts and orders.")
    max_iterations: int = Field(100, gt=0, description="Iterations at most.")
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="An iteration that raises L by no more than this share of it is the last; 0: "
        "until nothing moves.",
    )
    mode: Literal["auto", "exact", "blockwise"] = Field(
        "auto", description="`exact`, `blockwise` (one read an iteration), or as memory allows."
    )
    memory: Annotated[int, BeforeValidator(_bytes)] | None = Field(
        None, gt=0, description="Limit of the whole search, such as `8 GiB`; 70% by default."
    )
    keep: Literal["float32", "float16"] = Field(
        "float32", description="Precision of what is kept in memory; float16 keeps z."
    )
    executor: str = Field(
        "threads", description="`threads`, `distributed`, the address of a scheduler, or `ray`."
    )

    @field_validator("modules")
    @classmethod
    def _distinct(cls, modules: tuple[int, ...]) -> tuple[int, ...]:
        if min(modules) < 1 or len(set(modules)) < len(modules):
            raise ValueError(f"numbers of modules must be positive and distinct, not {modules}")
        return tuple(sorted(modules))


Baseline = Literal[
    "k-means", "mini-batch k-means", "agglomerative", "spectral", "spectral co-clustering"
]


class EvaluateConfig(Config):
    """What is measured of the modules."""

    seed: int = Field(0, ge=0, description="Seed of permutations and classifiers.")
    null_permutations: int = Field(
        3,
        ge=0,
        description="Searches on column-wise permuted data, from one start each: the null model.",
    )
    baselines: tuple[Baseline, ...] = Field(
        typing.get_args(Baseline), description="Clustering methods to compare with."
    )
    seeds: int = Field(
        3, gt=0, description="Seeds that each method is run with, from `discover.seed` on."
    )


class AblateConfig(Config):
    """The causal check: what silencing a module costs."""

    with_run: bool = Field(
        False,
        description="Whether `ulcmod run` silences the modules too, for 1 + K + K x `random_sets` "
        "passes over the measured samples of each K; else only `ulcmod ablate` does.",
    )
    method: Literal["zero", "mean"] = Field(
        "zero", description="What silenced units hold: zero, or their mean over the samples."
    )
    samples: int = Field(
        40, gt=0, description="Samples of each module that are measured, drawn with the seed."
    )
    random_sets: int = Field(
        3, gt=0, description="Random sets of as many units a layer, beside each module."
    )
    seed: int = Field(0, ge=0, description="Seed of draws, random sets and intervals.")


class ReportConfig(Config):
    """What the page shows."""

    prompts: Literal["all", "none"] = Field(
        "all", description="none leaves every prompt's text out of report, tables and logs."
    )
    typical: int = Field(8, gt=0, description="Typical prompts shown for each module.")
    keywords: int = Field(12, gt=0, description="Keywords shown for each module.")


class RerunConfig(Config):
    """What `ulcmod rerun` keeps and where it raises the alarm."""

    start: Literal["warm", "cold"] = Field(
        "warm", description="The search goes on from the last modules, or starts anew."
    )
    keep: int = Field(5, ge=0, description="Past versions of the results that are kept.")
    min_units_rand: float = Field(
        0.7,
        le=1,
        description="Alarm where the adjusted Rand index of shared units, before and after, is "
        "lower.",
    )
    min_samples_rand: float = Field(
        0.7, le=1, description="The same for the samples (train split) that both versions have."
    )
    min_objective: float = Field(
        0.9,
        ge=0,
        description="Alarm where L per sample and unit, relative to that before, is lower.",
    )


class MatrixConfig(Config):
    """A matrix that someone extracted elsewhere, in place of model and corpus."""

    path: str = Field(description="Activations [samples, units]: a .npy, .npz or .zarr.")
    samples: str | None = Field(
        None, description="Table (Parquet, CSV) of the samples: sample_id, split, category."
    )
    units: str | None = Field(
        None, description="Table (Parquet, CSV) of the units: layer, index, path, expert."
    )


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_CRON: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
"""Name, lowest and highest value of each field as Kubernetes takes it, and names of its values."""


def _cron(schedule: str | None) -> str | None:
    """A schedule that Kubernetes takes; it would refuse any other, or never start a job."""
    if schedule is None:
        return None
    fields = schedule.split()
    if len(fields) != len(_CRON):
        raise ValueError(f"{schedule!r} has not five fields, such as 0 2 * * *")
    for text, (name, low, high, names) in zip(fields, _CRON, strict=True):
        for part in text.split(","):
            if not _cron_part(part, low, high, names):
                allowed = f"{low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
                raise ValueError(f"{part!r} is no {name} of a schedule: {allowed}")
    return " ".join(fields)


def _cron_part(part: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Whether one of a field's parts is ``*``, a value or a range, each with or without a step."""
    span, slash, step = part.partition("/")
    if slash and re.fullmatch(r"0*[1-9][0-9]*", step) is None:
        return False
    if span == "*":
        return True
    known = {name: low + number for number, name in enumerate(names)}
    known |= {f"{n:0{width}}": n for n in range(low, high + 1) for width in (1, 2)}
    ends = [known.get(end.lower()) for end in span.split("-")]
    if None in ends or len(ends) > 2:
        return False
    return ends == sorted(ends, key=lambda end: end or 0)


def _is_time_zone(name: str) -> bool:
    """Whether a time zone is known here, or no time zone is: small images come without them."""
    try:
        return zoneinfo.ZoneInfo(name).key == name
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return not zoneinfo.available_timezones()


class ClusterConfig(Config):
    """The machines that `ulcmod submit` asks for; nothing a run computes depends on them."""

    nodes: int = Field(1, gt=0, description="Machines that work.")
    min_nodes: int | None = Field(
        None, ge=1, description="Kubernetes: machines kept while idle; below `nodes` it autoscales."
    )
    cpus: int = Field(8, gt=0, description="CPUs of a machine.")
    memory_gib: int = Field(32, gt=0, description="Memory of a machine in GiB.")
    gpus: int = Field(0, ge=0, description="GPUs of a machine.")
    hours: float | None = Field(None, gt=0, description="Time limit of one submission.")
    log_format: Literal["text", "json"] = Field(
        "text", description="What the job prints: text for people, or JSON lines for collectors."
    )
    partition: str | None = Field(None, pattern=_NAME, description="Slurm: partition.")
    account: str | None = Field(None, pattern=_NAME, description="Slurm: account to charge.")
    image: str | None = Field(None, description="Kubernetes: container image; required there.")
    volumes: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        (), description="Kubernetes: volume claims and where they are mounted, as `claim:/path`."
    )
    secrets: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        (), description="Kubernetes: names of Secrets whose keys become environment variables."
    )
    node_selector: dict[str, str] = Field(
        {}, description="Kubernetes: labels of the machines that work."
    )
    tolerations: tuple[dict[str, str | int], ...] = Field(
        (), description="Kubernetes: tolerations of the machines that work, as in a pod."
    )
    service_account: str | None = Field(
        None,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Kubernetes: service account of the pods, such as one that may use a bucket.",
    )
    schedule: Annotated[str | None, AfterValidator(_cron)] = Field(
        None, description="Cron schedule of reruns, five fields such as `0 2 * * *`."
    )
    time_zone: str = Field("Etc/UTC", description="Kubernetes: time zone of the schedule.")
    scheduler: Literal["cronjob", "raycronjob"] = Field(
        "cronjob",
        description="Kubernetes: CronJob beside a standing RayCluster, or RayCronJob (alpha).",
    )

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        for volume in self.volumes:
            if re.fullmatch(r"[a-z0-9.-]+:/[^:\s]*", volume) is None:
                raise ValueError(f"volumes: {volume!r} is not of the form claim:/path")
        for secret in self.secrets:
            if re.fullmatch(r"[a-z0-9.-]+", secret) is None:
                raise ValueError("secrets: give the names of Secrets, never their contents")
        if not _is_time_zone(self.time_zone):
            raise ValueError(f"{self.time_zone!r} is no time zone, such as Europe/Zurich")
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is above nodes {self.nodes}")
        return self

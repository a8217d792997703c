"""The sections of a job: keys, meaning, defaults and validation."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ulcmod_dist.config.cron import check_schedule, is_time_zone
from ulcmod_dist.errors import InvalidInput

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SIZE = re.compile(r"(\d*\.?\d+(?:e\d+)?)\s*(?:([kmgtp])(i?))?b?")

PLACEMENT_TIMEOUT = 45.0
"""Seconds that actors wait for resources before the run gives up and says what is short."""
AUTOSCALING_TIMEOUT = 1200.0
"""The same where the cluster may add machines for waiting actors, which takes minutes."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Config(BaseModel):
    """A section of the job: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """The section from keyword arguments of a function of the public API.

        Raises:
            InvalidInput: An option is not allowed.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidInput(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']} (it is {first['input']!r})."
            ) from error


class ModelConfig(Config):
    """The language model, its revision and its precision."""

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
    def _require_commit(cls, revision: str | None) -> str | None:
        if revision is not None and _COMMIT.fullmatch(revision) is None:
            raise ValueError(f"{revision!r} is not a commit of 40 hexadecimal digits")
        return revision


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


StrList = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


def _parse_size(value: Any) -> Any:
    """Bytes from a text such as ``8 GiB``, ``500 MB`` or ``8Gi``.

    Neither by Dask, which takes half a second to import, nor by pydantic's ByteSize, which ignores
    what follows a size: ``8.5.1 GiB`` would be 8 bytes.
    """
    if not isinstance(value, str):
        return value
    size = _SIZE.fullmatch(value.strip().lower())
    if size is None:
        raise ValueError(f"{value!r} is no size such as 8 GiB")
    number, prefix, binary = size.groups()
    return int(float(number) * (1024 if binary else 1000) ** "_kmgtp".index(prefix or "_"))


class CorpusConfig(Config):
    """The files of the prompts, and the columns to read."""

    train: StrList = Field(
        description="File, folder, glob or URL of the train samples, or a list of these.",
        min_length=1,
    )
    test: StrList = Field((), description="The same for held-out samples; none by default.")
    text: str | None = Field("text", description="Column of the prompts' texts.")
    messages: str | None = Field(
        None, description="Column of chat messages (role and content), in place of `text`."
    )
    category: str | None = Field(None, description="Column of the category; none by default.")
    id: str | None = Field(
        None, description="Column of the sample ids; by default the rows of a split are numbered."
    )

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


class TokenizationConfig(Config):
    """How prompts are tokenized, and which tokens enter the mean."""

    template: Literal["model", "none"] = Field(
        "model", description="`model`: the model's chat template; `none`: the plain text."
    )
    system: str | None = Field(
        "You are a helpful assistant.", description="System message of the chat template."
    )
    tokens: Literal["all", "prompt", "last"] = Field(
        "all", description="Tokens that enter the mean: all, those of the user's text, or the last."
    )
    max_tokens: int | None = Field(
        None, gt=0, description="Length limit; by default the model's own maximum."
    )
    long: Literal["truncate", "refuse"] = Field(
        "truncate", description="Whether a prompt over the limit is truncated or refused."
    )


class ExtractConfig(Config):
    """How the forward passes are distributed over Ray actors."""

    workers: int | None = Field(
        None, gt=0, description="Number of actors; by default as many as fit on the cluster."
    )
    cpus: float = Field(1.0, gt=0, description="CPUs of an actor; also its number of threads.")
    gpus: float = Field(
        0.0,
        ge=0,
        description="GPUs of an actor. With `ranks: 1` several GPUs hold whole layers and work in "
        "turn (`device_map`): for models that fit no single GPU and have no tensor-parallel plan.",
    )
    ranks: int = Field(
        1, gt=0, description="Processes that share a model by tensor parallelism, one GPU each."
    )
    address: str | None = Field(
        None, description="Address of the Ray cluster; by default RAY_ADDRESS, else a local Ray."
    )
    patience: float | None = Field(
        None,
        gt=0,
        description="Timeout for placing the actors, in seconds; by default 45, or 1,200 where a "
        "Ray cluster is named and `workers` is set, so that its machines can still join.",
    )
    shard_samples: int = Field(512, gt=0, description="Number of samples of a shard.")
    batch_tokens: int | None = Field(
        None,
        gt=0,
        description="Tokens of a batch, padding included; by default as the device's memory "
        "allows, from 512 to 4,096 on CPUs and to 65,536 on GPUs.",
    )

    @model_validator(mode="after")
    def _require_gpu_per_rank(self) -> Self:
        if self.ranks > 1 and self.gpus not in (0, self.ranks):
            raise ValueError(f"{self.ranks} ranks need gpus: {self.ranks}, not {self.gpus:g}")
        return self

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
    def placement_timeout(self) -> float:
        """Seconds that actors may wait for resources.

        A named cluster may still be adding machines for a known number of actors; this machine, or
        a cluster taken as it is, is not.
        """
        if self.patience is not None:
            return self.patience
        is_remote = self.address or os.environ.get("RAY_ADDRESS")
        return AUTOSCALING_TIMEOUT if is_remote and self.workers else PLACEMENT_TIMEOUT


class SearchConfig(Config):
    """The search for modules by IterD."""

    modules: Annotated[tuple[int, ...], BeforeValidator(_as_list)] = Field(
        description="Number of modules K, or a list of them.", min_length=1
    )
    restarts: int = Field(10, gt=0, description="Number of restarts; the highest L wins.")
    seed: int = Field(0, ge=0, description="Seed of initial modules and sweep orders.")
    max_iterations: int = Field(100, ge=0, description="Maximum number of iterations.")
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The search stops after an iteration that raises L by no more than this "
        "fraction; with 0 it stops when no label changes.",
    )
    mode: Literal["auto", "exact", "blockwise"] = Field(
        "auto", description="`exact`, `blockwise` (one read an iteration), or as memory allows."
    )
    memory: Annotated[int, BeforeValidator(_parse_size)] | None = Field(
        None,
        gt=0,
        description="Memory limit of the whole search, such as `8 GiB`; by default 70% of what the "
        "executor's machines have.",
    )
    keep: Literal["float32", "float16"] = Field(
        "float32", description="Precision in memory; `float16` holds standardised values."
    )
    executor: str = Field(
        "threads", description="`threads`, `distributed`, the address of a scheduler, or `ray`."
    )

    @field_validator("modules")
    @classmethod
    def _sort_distinct(cls, modules: tuple[int, ...]) -> tuple[int, ...]:
        if min(modules) < 1 or len(set(modules)) < len(modules):
            raise ValueError(f"numbers of modules must be positive and distinct, not {modules}")
        return tuple(sorted(modules))


Baseline = Literal[
    "k-means", "mini-batch k-means", "agglomerative", "spectral", "spectral co-clustering"
]


class EvaluateConfig(Config):
    """How the modules are evaluated."""

    seed: int = Field(0, ge=0, description="Seed of permutations and classifiers.")
    null_permutations: int = Field(
        3, ge=0, description="Number of searches on permuted columns (null model), one start each."
    )
    baselines: tuple[Baseline, ...] = Field(
        typing.get_args(Baseline), description="Clustering methods to compare with."
    )
    seeds: int = Field(
        3, gt=0, description="Number of seeds of each method, counted from `discover.seed`."
    )


class AblateConfig(Config):
    """The causal check: how much the loss increases when a module is ablated."""

    with_run: bool = Field(
        False,
        description="Whether `ulcmod run` ablates the modules too, in 1 + K + K x `random_sets` "
        "passes over the measured samples of each K; otherwise only `ulcmod ablate` does.",
    )
    method: Literal["zero", "mean"] = Field(
        "zero", description="Value of ablated units: zero, or their mean over the samples."
    )
    samples: int = Field(
        40, gt=0, description="Number of samples of each module to measure, drawn with the seed."
    )
    random_sets: int = Field(
        3, gt=0, description="Number of random sets of as many units a layer, for comparison."
    )
    seed: int = Field(0, ge=0, description="Seed of samples, random sets and intervals.")


class ReportConfig(Config):
    """What the report shows."""

    prompts: Literal["all", "none"] = Field(
        "all", description="`none` leaves the prompts' texts out of report, tables and logs."
    )
    typical: int = Field(8, gt=0, description="Number of typical prompts of each module.")
    keywords: int = Field(12, gt=0, description="Number of keywords of each module.")


class RerunConfig(Config):
    """What `ulcmod rerun` keeps, and the limits of drift."""

    start: Literal["warm", "cold"] = Field(
        "warm", description="`warm`: search from the last modules; `cold`: from new ones."
    )
    keep: int = Field(5, ge=0, description="Number of past versions of the results to keep.")
    min_units_rand: float = Field(
        0.7,
        le=1,
        description="Lowest adjusted Rand index of units, before and after, without drift.",
    )
    min_samples_rand: float = Field(
        0.7, le=1, description="The same for the train samples that both versions have."
    )
    min_objective: float = Field(
        0.9,
        ge=0,
        description="Lowest ratio of L per sample and unit to that before, without drift.",
    )


class MatrixConfig(Config):
    """Activations extracted by other means, in place of model and corpus."""

    path: str = Field(description="Activations [samples, units]: a .npy, .npz or .zarr.")
    samples: str | None = Field(
        None, description="Table (Parquet, CSV) of the samples: sample_id, split, category."
    )
    units: str | None = Field(
        None, description="Table (Parquet, CSV) of the units: layer, index, path, expert."
    )


class ClusterConfig(Config):
    """The machines that `ulcmod submit` requests; results do not depend on them."""

    nodes: int = Field(1, gt=0, description="Number of machines.")
    min_nodes: int | None = Field(
        None, ge=1, description="Kubernetes: machines kept when idle; below `nodes` it autoscales."
    )
    cpus: int = Field(8, gt=0, description="CPUs of a machine.")
    memory_gib: int = Field(32, gt=0, description="Memory of a machine in GiB.")
    gpus: int = Field(0, ge=0, description="GPUs of a machine.")
    hours: float | None = Field(None, gt=0, description="Time limit of one submission.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the job's log: text, or JSON lines for log collectors."
    )
    partition: str | None = Field(None, pattern=_NAME, description="Slurm: partition.")
    account: str | None = Field(None, pattern=_NAME, description="Slurm: account to charge.")
    image: str | None = Field(None, description="Kubernetes: container image; required there.")
    volumes: StrList = Field(
        (), description="Kubernetes: volume claims and where they are mounted, as `claim:/path`."
    )
    secrets: StrList = Field(
        (), description="Kubernetes: names of Secrets whose keys become environment variables."
    )
    node_selector: dict[str, str] = Field(
        {}, description="Kubernetes: node selector of the machines."
    )
    tolerations: tuple[dict[str, str | int], ...] = Field(
        (), description="Kubernetes: tolerations of the machines, as in a pod."
    )
    service_account: str | None = Field(
        None,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Kubernetes: service account of the pods, such as one with access to a bucket.",
    )
    schedule: Annotated[str | None, AfterValidator(check_schedule)] = Field(
        None, description="Cron schedule of reruns, five fields such as `0 2 * * *`."
    )
    time_zone: str = Field("Etc/UTC", description="Kubernetes: time zone of the schedule.")
    scheduler: Literal["cronjob", "raycronjob"] = Field(
        "cronjob",
        description="Kubernetes: CronJob that uses a standing RayCluster, or RayCronJob (alpha).",
    )

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        for volume in self.volumes:
            if re.fullmatch(r"[a-z0-9.-]+:/[^:\s]*", volume) is None:
                raise ValueError(f"volumes: {volume!r} is not of the form claim:/path")
        for secret in self.secrets:
            if re.fullmatch(r"[a-z0-9.-]+", secret) is None:
                raise ValueError("secrets: give the names of Secrets, never their contents")
        if not is_time_zone(self.time_zone):
            raise ValueError(f"{self.time_zone!r} is no time zone, such as Europe/Zurich")
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is above nodes {self.nodes}")
        return self

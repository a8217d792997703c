r"""How fast extraction is, and how much memory it takes, side by side in one run.

    python -m tests.benchmarks.extraction compare \
        --model SmolLM2-135M-Instruct.Q4_1.gguf              # a real model, the demo's prompts
    python -m tests.benchmarks.extraction                    # Qwen2.5-0.5B's shape, two cores
    python -m tests.benchmarks.extraction whole --layers 4   # a sixth of its depth, a quick look
    python -m tests.benchmarks.extraction memory --layers 2 --hidden 64 --width 100000 \
        --prompts 6000 --longest 20 --shard 100              # much data from little computing
    python -m tests.benchmarks.extraction compare --shape 135m --device cuda --dtype bfloat16 \
        --loop-dtype bfloat16 --batch-tokens 32768 --prompts 1050

Without ``--model`` weights are random: time and memory do not depend on them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, Qwen2Config

from ulcmod_dist.config.schema import (
    CorpusConfig,
    ExtractConfig,
    ModelConfig,
    TokenizationConfig,
)
from ulcmod_dist.corpus.prompts import SCHEMA, Corpus, read_corpus
from ulcmod_dist.extract.driver import ExtractionResult, extract, prepare
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.extract.planner import PreparedExtraction, merge_provenance
from ulcmod_dist.extract.replica import ModelReplica
from ulcmod_dist.forward.architectures import count_units
from ulcmod_dist.forward.batches import TokenizedPrompt, mark_prefix, plan_batches
from ulcmod_dist.forward.engine import Engine, pad_batch
from ulcmod_dist.forward.loading import get_model_provenance, load_config, load_model
from ulcmod_dist.forward.memory import count_parameter_bytes, estimate_token_bytes
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
# Hidden size, width of the MLP, layers, heads, key-value heads: SmolLM2 and two of Qwen2.5.
SHAPES = {
    "135m": (576, 1536, 30, 9, 3),
    "0.5b": (896, 4864, 24, 14, 2),
    "3b": (2048, 11008, 36, 16, 2),
}
WORDS = ["the", "sum", "of", "two", "numbers", "is", "a", "long", "story", "code", "and", "rain"]
UNIT = "prompts/s"
# What was measured, its value and its unit.
Row: TypeAlias = tuple[str, float, str]


class Notes:
    """When the first shard was started and the last one committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, point: str, digest: str) -> None:
        if point in ("started", "committed"):
            (Path(self.folder) / f"{point}-{time.time_ns()}").touch()

    def seconds(self) -> float:
        times = sorted(int(path.name.split("-")[1]) for path in Path(self.folder).iterdir())
        return (times[-1] - times[0]) / 1e9


class Bench:
    """One model on disk, one set of prompts, and every way to run them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        # A real model reads its prompts in its chat template, as a job's does by default.
        self.rule = TokenizationConfig(template="model" if options.model else "none")
        if not options.model:
            _write_model(options, folder / "model")
        self.spec = ModelConfig(
            id=options.model or str(folder / "model"),
            revision=options.revision,
            dtype=options.dtype,
        )
        self.encoder = PromptTokenizer.load(self.spec, self.rule)
        self.config = load_config(self.spec)
        self.units = list_units(self.config)
        self.prompts = _read(options) if options.model or options.corpus else _write(options)
        texts = self.prompts.table["text"].to_pylist()
        self.encoded = mark_prefix(self.encoder.encode(texts))
        self.tokens = sum(len(entry.ids) for entry in self.encoded)
        self._runs = 0

    def batches(self) -> list[list[TokenizedPrompt]]:
        lengths = [len(entry.ids) for entry in self.encoded]
        plan = plan_batches(lengths, self.options.batch_tokens)
        return [[self.encoded[index] for index in batch] for batch in plan]

    def plain_loop(self, limit: int) -> tuple[float, np.ndarray]:
        """Batch 1, logits computed, the mean taken by hooks: tokens/s and rows."""
        torch.set_num_threads(self.options.threads)
        device, dtype = self.options.device, getattr(torch, self.options.loop_dtype)
        path, source = Path(self.spec.id), {}
        if path.suffix == ".gguf":
            path, source = path.parent, {"gguf_file": path.name}
        model = AutoModelForCausalLM.from_pretrained(
            str(path), revision=self.spec.revision or "main", dtype=dtype, **source
        )
        model = model.to(device).eval()
        parts: list[torch.Tensor] = []
        for part in self.units:
            model.base_model.get_submodule(part.path).register_forward_pre_hook(
                lambda module, args: parts.append(args[0].abs().mean(dim=1).float())
            )
        rows, chosen = [], self.encoded[:limit]
        with torch.inference_mode():
            model(torch.tensor([chosen[0].ids], device=device))
            began = time.perf_counter()
            for entry in chosen:
                parts.clear()
                model(torch.tensor([entry.ids], device=device))
                rows.append(torch.cat(parts, dim=1)[0].cpu().numpy())
        seconds = time.perf_counter() - began
        return sum(len(entry.ids) for entry in chosen) / seconds, np.array(rows)

    def planned(self, prepared: PreparedExtraction) -> list[list[TokenizedPrompt]]:
        """The batches that an extraction runs: each lies within one shard."""
        shards = ([self.encoded[row] for row in shard.rows] for shard in prepared.plan.shards)
        return [
            [shard[index] for index in batch]
            for shard in shards
            for batch in prepared.plan_batches([len(entry.ids) for entry in shard])
        ]

    def headless(self, prepared: PreparedExtraction) -> float:
        """A plan's batches without hooks, reduction, head and writing: tokens/s."""
        torch.set_num_threads(self.options.threads)
        model = load_model(self.spec, self.config, self.options.device)

        def run(batch: list[TokenizedPrompt]) -> None:
            ids, mask = pad_batch(batch, self.config.vocab_size)
            with torch.inference_mode():
                model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))

        return self.tokens / _timed(run, self.planned(prepared), self.options.device)

    def engine(self) -> tuple[float, np.ndarray]:
        """The project's forward pass alone: tokens/s and rows in prompt order."""
        engine = Engine.load(self.spec, device=self.options.device, threads=self.options.threads)
        lengths = [len(entry.ids) for entry in self.encoded]
        plan = plan_batches(lengths, self.options.batch_tokens)
        rows = np.empty((len(self.encoded), sum(part.width for part in self.units)), np.float32)
        found = []
        seconds = _timed(
            lambda batch: found.append(engine.run(batch)), self.batches(), self.options.device
        )
        for batch, result in zip(plan, found[-len(plan) :], strict=True):
            rows[list(batch)] = result.activations
        return self.tokens / seconds, rows

    def whole(
        self, actors: int, threads: int, shard: int
    ) -> tuple[float, ExtractionResult, PreparedExtraction]:
        """Ray, Zarr and commits, from the first shard's start to the last commit: tokens/s."""
        self._runs += 1
        notes = Notes(self.folder / f"notes{self._runs}")
        Path(notes.folder).mkdir()
        run = RunDir.at(self.folder / f"run{self._runs}")
        prepared = prepare(
            run,
            self.prompts,
            self.encoder,
            self.units,
            merge_provenance(get_model_provenance(self.spec), self.encoder.provenance),
            shard_samples=shard,
            batch_tokens=self.options.batch_tokens,
            model_bytes=self._model_bytes,
        )
        gpus = float(self.options.device != "cpu") / actors
        config = ExtractConfig(workers=actors, cpus=float(threads), gpus=gpus)
        with Lease.acquire(run, "benchmark") as lease:
            done = extract(
                run,
                prepared,
                partial(ModelReplica, self.spec, self.rule, config, self.units),
                config,
                fence=lease.fence,
                on_event=notes,
            )
        return self.tokens / notes.seconds(), done, prepared

    def _model_bytes(self, tokens: int, longest: int) -> int:
        """Memory of the machine that the model takes, as a job's plan counts it."""
        weights = count_parameter_bytes(self.config, self.spec.dtype)
        each = estimate_token_bytes(self.config, self.spec.dtype, longest=longest)
        return weights + (tokens * each if self.options.device == "cpu" else 0)


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="ulcmod-benchmark-"))
    try:
        bench = Bench(options, folder)
        title = (
            f"{len(bench.encoded):,} prompts, {bench.tokens:,} tokens, "
            f"{count_units(bench.units):,} units, {options.dtype} on {options.device}"
        )
        for part in options.parts or (PARTS if options.device == "cpu" else PARTS[:3]):
            table = Table("measured", "value", "unit", title=title)
            for name, value, unit in globals()[f"_{part}"](bench):
                table.add_row(name, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", unit)
            table.columns[1].justify = "right"
            Console().print(table)
    finally:
        shutil.rmtree(folder)


PARTS = ("compare", "forward", "whole", "actors", "memory")


def _compare(bench: Bench) -> Iterator[Row]:
    """All prompts in every way, in turn, so that a machine that slows down slows all of them."""
    threads, shard = bench.options.threads, bench.options.shard
    on_cpu = bench.options.device == "cpu"
    actors, each = (threads, 1) if on_cpu else (bench.options.actors, threads)
    limit = len(bench.encoded) if on_cpu else bench.options.loop_prompts
    loop, bare, one, many = [], [], [], []
    for _ in range(bench.options.repeats):
        loop.append(bench.plain_loop(limit)[0])
        rate, _, prepared = bench.whole(1, threads, shard)
        one.append(rate)
        bare.append(bench.headless(prepared))
        if actors > 1:
            many.append(bench.whole(actors, each, shard)[0])
    prompts = len(bench.encoded) / bench.tokens
    yield f"plain loop: batch 1, logits, {bench.options.loop_dtype}", median(loop) * prompts, UNIT
    yield "the plan's batches: no hooks, no logits", median(bare) * prompts, UNIT
    yield "  relative to the plain loop", _median_ratio(bare, loop), "x"
    for name, rates in (("one actor", one), (f"{actors} actors", many)):
        if rates:
            yield f"extraction: {name}", median(rates) * prompts, UNIT
            yield "  relative to the plain loop", _median_ratio(rates, loop), "x"
            yield "  relative to the plan's batches", _median_ratio(rates, bare), "x"


def _median_ratio(rates: list[float], others: list[float]) -> float:
    return median(rate / other for rate, other in zip(rates, others, strict=True))


def _forward(bench: Bench) -> Iterator[Row]:
    limit = min(bench.options.loop_prompts, bench.options.prompts)
    loop, alone = bench.plain_loop(limit)
    rate, rows = bench.engine()
    difference = np.abs(rows[:limit] - alone).max() / np.abs(alone).max()
    prompts = len(bench.encoded) / bench.tokens
    yield f"plain loop, batch 1, logits, {bench.options.loop_dtype}", loop * prompts, UNIT
    yield "batches, no logits", rate * prompts, UNIT
    yield "  ratio", rate / loop, "x"
    yield "  relative difference", difference, "of the largest"


def _whole(bench: Bench) -> Iterator[Row]:
    """The two alternate, so that a machine that slows down slows both."""
    bare, whole = [], []
    for _ in range(bench.options.repeats):
        rate, _, prepared = bench.whole(1, bench.options.threads, bench.options.shard)
        whole.append(rate)
        bare.append(bench.headless(prepared))
    batches = bench.planned(prepared)
    longest = sum(len(batch) * max(len(entry.ids) for entry in batch) for batch in batches)
    yield "tokens a batch, at most", bench.options.batch_tokens, "tokens"
    yield "padding of the plan's batches", longest / bench.tokens - 1, "of the tokens"
    yield "those batches, no hooks, nothing written", median(bare), "tokens/s"
    yield "extraction: Ray, Zarr, commits", median(whole), "tokens/s"
    shares = sorted(one / other for one, other in zip(whole, bare, strict=True))
    yield f"  share, median of {len(shares)} pairs", median(shares), ""
    yield "  lowest", shares[0], ""
    yield "  highest", shares[-1], ""


def _actors(bench: Bench) -> Iterator[Row]:
    one, two = [], []
    for _ in range(bench.options.repeats):
        one.append(bench.whole(1, 1, bench.options.shard)[0])
        two.append(bench.whole(2, 1, bench.options.shard)[0])
    ratios = [more / less for more, less in zip(two, one, strict=True)]
    yield "one actor of one thread", median(one), "tokens/s"
    yield "two actors of one thread", median(two), "tokens/s"
    yield f"  ratio, median of {len(ratios)} pairs", median(ratios), "x"


def _memory(bench: Bench) -> Iterator[Row]:
    """The projection is the cap: Ray sets it aside, and a smaller one would be refused."""
    _, done, prepared = bench.whole(1, bench.options.threads, bench.options.shard)
    last: ExtractionProgress = done.progress
    yield "cap: memory as the plan projects it", prepared.plan.actor_bytes / 2**30, "GiB"
    yield "data written", prepared.plan.bytes / 2**30, "GiB"
    yield "  over the cap", prepared.plan.bytes / prepared.plan.actor_bytes, "x"
    yield "peak memory of an actor", last.peak_bytes / 2**30, "GiB"
    yield "  over the cap", last.peak_bytes / prepared.plan.actor_bytes, "x"


def _timed(
    run: Callable[[list[TokenizedPrompt]], object],
    batches: list[list[TokenizedPrompt]],
    device: str,
) -> float:
    """Seconds for all batches, after one that warms up."""
    run(batches[0])
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in batches:
        run(batch)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _read(options: argparse.Namespace) -> Corpus:
    """Prompts of the corpus drawn at random, so that every category and length takes part."""
    corpus = read_corpus(CorpusConfig(train=(options.corpus or str(DEMO / "train.parquet"),)))
    rows = np.random.default_rng(options.seed).permutation(len(corpus.table))
    return Corpus(corpus.table.take(np.sort(rows[: options.prompts])))


def _write(options: argparse.Namespace) -> Corpus:
    """Texts of lognormal length: a median of about 50 tokens."""
    count, longest = options.prompts, options.longest
    chance = np.random.default_rng(options.seed)
    lengths = np.clip(np.exp(chance.normal(np.log(42), 0.7, count)).astype(int), 4, longest)
    texts = [
        f"{number} " + " ".join(chance.choice(WORDS, size)) for number, size in enumerate(lengths)
    ]
    ids = [f"s{number}" for number in range(count)]
    columns = [ids, ["train"] * count, [None] * count, texts, [None] * count, [None] * count]
    return Corpus(pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA))


def _write_model(options: argparse.Namespace, folder: Path) -> None:
    hidden, width, layers, heads, groups = SHAPES[options.shape]
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden or hidden,
        intermediate_size=options.width or width,
        num_hidden_layers=options.layers or layers,
        num_attention_heads=heads if not options.hidden else 2,
        num_key_value_heads=groups,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    torch.manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "model" / name, folder / name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of an extraction.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--model", default="", help="hub id, folder or GGUF file of a real model")
    parser.add_argument("--revision", help="commit of a hub id")
    parser.add_argument("--corpus", default="", help="prompts; with a model, by default the demo's")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.5b")
    parser.add_argument("--layers", type=int, default=0, help="other than the shape's")
    parser.add_argument("--hidden", type=int, default=0, help="other than the shape's")
    parser.add_argument(
        "--width", type=int, default=0, help="units a layer, other than the shape's"
    )
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--loop-dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--actors", type=int, default=4, help="compare: actors that share a GPU")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--loop-prompts", type=int, default=48)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--longest", type=int, default=600, help="words of a prompt, at most")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs for each share")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

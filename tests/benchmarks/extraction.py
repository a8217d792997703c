"""How fast extraction is, and how much memory it takes, side by side in one run.

    python tests/benchmarks/extraction.py               # the shape of Qwen2.5-0.5B, two cores
    python tests/benchmarks/extraction.py --layers 4    # a sixth of its depth, for a quick look
    python tests/benchmarks/extraction.py --device cuda --dtype bfloat16 --batch-tokens 32768

Weights are random: time and memory do not depend on them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ulcmod_dist.corpus.prompts import SCHEMA, Prompts
from ulcmod_dist.extract.driver import Extraction, extract, prepare
from ulcmod_dist.extract.model import ModelFactory
from ulcmod_dist.extract.planner import Prepared, forward_record
from ulcmod_dist.extract.values import Progress, Resources
from ulcmod_dist.forward.architectures import units_of
from ulcmod_dist.forward.batching import plan_batches
from ulcmod_dist.forward.engine import Engine, padded
from ulcmod_dist.forward.loading import load_config, load_model, model_record
from ulcmod_dist.forward.memory import parameter_bytes, token_bytes
from ulcmod_dist.forward.tokens import Encoder
from ulcmod_dist.forward.values import Encoded, ModelSpec, PromptRule
from ulcmod_dist.lease import Lease
from ulcmod_dist.rundir import RunDir

TOKENIZER = Path(__file__).parents[2] / "jobs" / "demo" / "model"
RULE = PromptRule(template="none")
# Hidden size, width of the MLP, layers, heads, key-value heads.
SHAPES = {"0.5b": (896, 4864, 24, 14, 2), "3b": (2048, 11008, 36, 16, 2)}


class Notes:
    """When the first shard was begun and the last one committed."""

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
        self.spec = ModelSpec(str(folder / "model"), dtype=options.dtype)
        _write_model(options, folder / "model")
        self.encoder = Encoder.load(self.spec, RULE)
        self.config = load_config(self.spec)
        self.units = units_of(self.config)
        self.prompts = _prompts(options.prompts, options.seed)
        texts = self.prompts.table["text"].to_pylist()
        self.encoded = self.encoder.encode(texts)
        self.tokens = sum(len(entry.ids) for entry in self.encoded)
        self._runs = 0

    def batches(self) -> list[list[Encoded]]:
        lengths = [len(entry.ids) for entry in self.encoded]
        plan = plan_batches(lengths, self.options.batch_tokens)
        return [[self.encoded[index] for index in batch] for batch in plan]

    def plain_loop(self, limit: int) -> tuple[float, np.ndarray]:
        """Batch 1 in float32, logits computed, the mean taken by a hook: tokens/s and rows."""
        torch.set_num_threads(self.options.threads)
        device, dtype = self.options.device, getattr(torch, self.options.loop_dtype)
        model = AutoModelForCausalLM.from_pretrained(self.spec.id, dtype=dtype).to(device).eval()
        parts: list[torch.Tensor] = []
        for layer in model.model.layers:
            layer.mlp.down_proj.register_forward_pre_hook(
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

    def headless(self) -> float:
        """The same batches without hooks, reduction, head and writing: tokens/s."""
        torch.set_num_threads(self.options.threads)
        model = load_model(self.spec, self.config, self.options.device)

        def run(batch: list[Encoded]) -> None:
            ids, mask = padded(batch, self.config.vocab_size)
            with torch.inference_mode():
                model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))

        return self.tokens / _timed(run, self.batches(), self.options.device)

    def engine(self) -> tuple[float, np.ndarray]:
        """The project's forward pass alone: tokens/s and rows in prompt order."""
        engine = Engine.load(self.spec, device=self.options.device, threads=self.options.threads)
        lengths = [len(entry.ids) for entry in self.encoded]
        plan = plan_batches(lengths, self.options.batch_tokens)
        rows = np.empty((len(self.encoded), sum(part.width for part in self.units)), np.float32)
        found = []
        seconds = _timed(
            lambda batch: found.append(engine.rows(batch)), self.batches(), self.options.device
        )
        for batch, result in zip(plan, found[-len(plan) :], strict=True):
            rows[list(batch)] = result.activations
        return self.tokens / seconds, rows

    def whole(self, actors: int, threads: int, shard: int) -> tuple[float, Extraction, Prepared]:
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
            forward_record(model_record(self.spec), self.encoder.record),
            shard_samples=shard,
            batch_tokens=self.options.batch_tokens,
            model_bytes=self._model_bytes,
        )
        gpus = float(self.options.device != "cpu")
        factory = ModelFactory(self.spec, RULE, self.units, self.options.device, threads)
        with Lease.acquire(run, "benchmark") as lease:
            done = extract(
                run,
                prepared,
                factory,
                fence=lease.fence,
                resources=Resources(cpus=float(threads), gpus=gpus),
                workers=actors,
                notice=notes,
            )
        return self.tokens / notes.seconds(), done, prepared

    def _model_bytes(self, tokens: int, longest: int) -> int:
        """Memory of the machine that the model takes, as a job's plan counts it."""
        weights = parameter_bytes(self.config, self.spec.dtype)
        each = token_bytes(self.config, self.spec.dtype, longest=longest)
        return weights + (tokens * each if self.options.device == "cpu" else 0)


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="ulcmod-benchmark-"))
    try:
        bench = Bench(options, folder)
        print(
            f"{options.prompts} prompts, {bench.tokens} tokens, "
            f"{sum(part.width for part in bench.units)} units, {options.dtype} on {options.device}"
        )
        _forward(bench)
        _whole(bench)
        if options.device == "cpu":
            _two_actors(bench)
        _memory(bench)
    finally:
        shutil.rmtree(folder)


def _forward(bench: Bench) -> None:
    limit = min(bench.options.loop_prompts, bench.options.prompts)
    loop, alone = bench.plain_loop(limit)
    rate, rows = bench.engine()
    difference = np.abs(rows[:limit] - alone).max() / np.abs(alone).max()
    _say(f"plain loop, batch 1, logits, {bench.options.loop_dtype}", loop, "tokens/s")
    _say("batches, no logits", rate, "tokens/s")
    _say("  ratio", rate / loop, "x")
    _say("  relative difference", difference, "of the largest")


def _whole(bench: Bench) -> None:
    bare = bench.headless()
    rate, _, _ = bench.whole(1, bench.options.threads, bench.options.shard)
    _say("forward passes without hooks and writing", bare, "tokens/s")
    _say("extraction: Ray, Zarr, commits", rate, "tokens/s")
    _say("  share", rate / bare, "")


def _two_actors(bench: Bench) -> None:
    one, _, _ = bench.whole(1, 1, bench.options.shard)
    two, _, _ = bench.whole(2, 1, bench.options.shard)
    _say("one actor of one thread", one, "tokens/s")
    _say("two actors of one thread", two, "tokens/s")
    _say("  ratio", two / one, "x")


def _memory(bench: Bench) -> None:
    _, done, prepared = bench.whole(1, bench.options.threads, bench.options.shard)
    last: Progress = done.progress
    _say("peak memory of an actor", last.peak_bytes / 2**30, "GiB")
    _say("  as projected by the plan", prepared.plan.actor_bytes / 2**30, "GiB")
    _say("  peak over projection", last.peak_bytes / prepared.plan.actor_bytes, "")
    _say("data written, over the projection", prepared.plan.bytes / prepared.plan.actor_bytes, "x")


def _timed(
    run: Callable[[list[Encoded]], object], batches: list[list[Encoded]], device: str
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


def _say(name: str, value: float, unit: str) -> None:
    print(f"{name:<46}{value:>14.5g} {unit}", flush=True)


def _prompts(count: int, seed: int) -> Prompts:
    """Texts of lognormal length: a median of about 50 tokens."""
    chance = np.random.default_rng(seed)
    words = np.array(
        [
            "the",
            "sum",
            "of",
            "two",
            "numbers",
            "is",
            "a",
            "long",
            "story",
            "about",
            "code",
            "and",
            "rain",
        ]
    )
    lengths = np.clip(np.exp(chance.normal(np.log(42), 0.7, count)).astype(int), 4, 600)
    texts = [
        f"{number} " + " ".join(chance.choice(words, size)) for number, size in enumerate(lengths)
    ]
    ids = [f"s{number}" for number in range(count)]
    columns = [ids, ["train"] * count, [None] * count, texts, [None] * count]
    return Prompts(pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA))


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
        shutil.copy(TOKENIZER / name, folder / name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of an extraction.")
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
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--loop-prompts", type=int, default=48)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

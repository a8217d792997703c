r"""Which architectures of the installed transformers work, as a table in Markdown.

    python -m tests.benchmarks.families                          # all, some minutes
    python -m tests.benchmarks.families llama qwen3_next bert    # some
    python -m tests.benchmarks.families --out docs/families.md

Each is built from its configuration, tiny and with random weights.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from transformers.models.auto import modeling_auto

from tests.forward.ranks import RANKS, run_on_ranks
from tests.forward.shrunk import build_shrunk, list_architectures, shrink_config
from tests.forward.tiny import make_prompts
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.architectures import count_units, is_decoder
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.units import find_units
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask

PROMPTS = make_prompts([2, 31, 7, 12, 23])
EXACT = 1e-5
RANK_SECONDS = 90
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
UNBUILDABLE = "cannot be built from its configuration"


@dataclass
class Result:
    """What was seen of one architecture."""

    model_type: str
    kind: str
    units: str = ""
    float32: float | None = None
    bfloat16: float | str = ""
    attention: str = ""
    ablation: str = ""
    ranks: str = ""
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether rows can be extracted, equal alone and in a batch."""
        return not self.reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="*", help="model types; all if left out")
    parser.add_argument("--ranks", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="file to write the page to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    console = Console(stderr=True)
    results = []
    for model_type in options.architectures or list_architectures():
        results.append(check_architecture(model_type))
        console.print(f"{model_type}: {results[-1].reason or 'works'}", highlight=False)
        gc.collect()
    if options.ranks:
        check_ranks([result for result in results if result.works])
    page = describe(results)
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    else:
        Console().print(page, highlight=False, markup=False, soft_wrap=True)


def check_architecture(model_type: str) -> Result:
    """Find the units of an architecture, and compare its rows alone and in batches."""
    result = Result(model_type, name_kind(model_type))
    try:
        config = shrink_config(model_type)
    except Exception as error:  # whatever the class of the configuration raises
        result.reason = f"{UNBUILDABLE}: {one_line(error)}"
        return result
    try:
        layout = find_units(config)
        result.units = ", ".join(
            dict.fromkeys(NUMBER.sub("{}", part.path) for part in layout.units)
        )
        result.notes = [str(layer) for layer in layout.layers_without_mlp]
        compare_rows(result, config, layout.attention)
        if is_decoder(model_type):
            result.ablation = check_ablation(config)
    except InvalidInput as error:
        text = error.args[0]
        result.reason = UNBUILDABLE + text[text.index(": ") :] if "cannot build" in text else text
    except Exception as error:  # whatever the code of the model raises
        result.reason = f"{type(error).__name__}: {one_line(error)}"
    return result


def name_kind(model_type: str) -> str:
    if model_type in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "multimodal"
    if getattr(transformers.CONFIG_MAPPING[model_type], "is_encoder_decoder", False):
        return "encoder-decoder"
    return "decoder" if is_decoder(model_type) else "encoder"


def compare_rows(result: Result, config: Any, attention: str) -> None:
    engine = Engine(build_shrunk(config))
    engine.check_independence()
    alone = run_alone(engine)
    result.float32 = max(compare(engine, alone, order) for order in (1, -1))
    if not result.float32 <= EXACT:  # NaN if a row is zero
        raise ValueError(f"rows differ by {result.float32:.0e} between batches")
    result.attention = attention
    if attention == "sdpa":
        eager = run_alone(Engine(build_shrunk(config, attention="eager")))
        close = np.abs(eager - alone).max() < 1e-4 * np.abs(alone).max()
        result.attention = "sdpa, eager" if close else "sdpa, eager (differs)"
    try:
        half = Engine(build_shrunk(config).bfloat16())
        result.bfloat16 = compare(half, run_alone(half), 1)
    except Exception as error:  # models with operations that bfloat16 lacks
        result.bfloat16 = f"no ({type(error).__name__})"


def run_alone(engine: Engine) -> Any:
    return np.concatenate([engine.run([prompt]).activations for prompt in PROMPTS])


def compare(engine: Engine, alone: Any, order: int) -> float:
    """Relative difference, in the norm of a row, of the worst prompt in one batch."""
    together = engine.run(PROMPTS[::order]).activations[::order]
    norms = np.linalg.norm(alone, axis=1)
    return float((np.linalg.norm(together - alone, axis=1) / norms).max())


def check_ablation(config: Any) -> str:
    engine = LossEngine(build_shrunk(config, head=True))
    intact, mask = engine.losses(PROMPTS).total, Mask.empty(engine.units)
    mask.ablated[: count_units(engine.units) // 2] = True
    changed = np.abs(engine.losses(PROMPTS, mask).total - intact).max() > 1e-4
    same = np.allclose(engine.losses(PROMPTS).total, intact, rtol=1e-5)
    return "yes" if changed and same else "no"


def check_ranks(results: Sequence[Result]) -> None:
    """Share each model by two ranks; a pair that fails or hangs is replaced by another."""
    with tempfile.TemporaryDirectory() as folder:
        waiting = []
        for result in results:
            config = shrink_config(result.model_type)
            if not getattr(config.get_text_config(), "base_model_tp_plan", None):
                result.ranks = "no plan"
                continue
            try:
                build_shrunk(config).save_pretrained(Path(folder, result.model_type))
                waiting.append(result)
            except Exception as error:  # what transformers cannot save
                result.ranks = f"not saved ({type(error).__name__})"
        while waiting:
            Path(folder, "waiting").write_text("\n".join(result.model_type for result in waiting))
            pair = multiprocessing.get_context("spawn").Process(
                target=run_on_ranks, args=(run_engines, Path(folder))
            )
            pair.start()
            done = await_results(pair, Path(folder), waiting)
            waiting = waiting[done:]


def await_results(pair: Any, folder: Path, waiting: Sequence[Result]) -> int:
    """Collect results as they come; returns how many architectures are done with."""
    for count, result in enumerate(waiting):
        files = [folder / f"{result.model_type}-{rank}.npy" for rank in range(RANKS)]
        for _ in range(RANK_SECONDS * 5):
            if all(file.exists() for file in files) or not pair.is_alive():
                break
            pair.join(0.2)
        if not all(file.exists() for file in files):
            result.ranks = "no"
            pair.kill()
            return count + 1
        whole = (
            Engine.load(ModelConfig(id=str(folder / result.model_type))).run(PROMPTS).activations
        )
        rows = [np.load(file) for file in files]
        scale = np.abs(whole).max()
        equal = all(
            row.shape == whole.shape and np.abs(row - whole).max() < 1e-4 * scale for row in rows
        )
        result.ranks = "yes" if equal else "no"
    pair.join()
    return len(waiting)


def run_engines(rank: int, folder: Path) -> None:
    """Write the rows of each waiting model as this rank sees them."""
    for model_type in (folder / "waiting").read_text().split():
        try:
            engine = Engine.load(ModelConfig(id=str(folder / model_type)), ranks=RANKS)
            rows: Any = engine.run(PROMPTS).activations
        except Exception:
            rows = np.zeros(0, np.float32)
        path = folder / f"{model_type}-{rank}"
        np.save(path.with_suffix(".tmp.npy"), rows)
        path.with_suffix(".tmp.npy").rename(path.with_suffix(".npy"))


def describe(results: Sequence[Result]) -> str:
    """The page: counts, a table of what works, and a list of what does not with its reason."""
    works = [result for result in results if result.works]
    lines = [
        "# Architectures",
        "",
        f"What works with transformers {version('transformers')}, as printed by "
        "`python -m tests.benchmarks.families`. Each",
        "architecture is built from its configuration, tiny and with random weights.",
        "",
        "| Kind | Can be built, and have an MLP | Work |",
        "|---|---|---|",
    ]
    for kind in ("decoder", "encoder", "multimodal", "encoder-decoder"):
        having = [r for r in results if r.kind == kind and not is_out_of_scope(r)]
        count = sum(result.works for result in having)
        share = f"{count / len(having):.0%}" if having else "-"
        lines.append(f"| {kind} | {len(having)} | {count} ({share}) |")
    lines += [
        "",
        "- **float32**, **bfloat16**: the largest relative difference between the row of a prompt "
        "alone and in a batch.",
        "- **Attention**: implementations whose rows are equal; the first is the default.",
        "- **Ranks**: whether tensor parallelism (`extract.ranks`) yields the same rows.",
        "",
        "| Type | Kind | Units | Layers without MLP | float32 | bfloat16 | Attention | Ablation "
        "| Ranks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in works:
        half = result.bfloat16 if isinstance(result.bfloat16, str) else f"{result.bfloat16:.0e}"
        cells = (
            f"`{result.model_type}`", result.kind,
            ", ".join(f"`{path}`" for path in result.units.split(", ")),
            ", ".join(result.notes), f"{result.float32:.0e}", half, result.attention,
            result.ablation or "no loss", result.ranks,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## What does not work", "", "| Type | Kind | Reason |", "|---|---|---|"]
    for result in results:
        if not result.works:
            reason = result.reason.replace("|", "\\|")[:200]
            lines.append(f"| `{result.model_type}` | {result.kind} | {reason} |")
    return "\n".join(lines) + "\n"


def is_out_of_scope(result: Result) -> bool:
    """Whether an architecture cannot be built from its configuration, or has no MLP."""
    return UNBUILDABLE in result.reason or "that an activation function feeds" in result.reason


if __name__ == "__main__":
    main()

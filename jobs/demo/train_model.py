"""Train the demo's tokenizer and small language model on generated text.

Run `python -m jobs.demo.train_model` from the repository's root; it takes a few minutes on two
CPU cores and writes the folder `jobs/demo/model`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from .corpus import Pair, generate
from .write_corpus import SEED

HERE = Path(__file__).parent
CONTEXT = 512
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Settings:
    """How the model is built and trained; `batch_tokens` counts padded tokens."""

    vocabulary: int = 3072
    hidden: int = 96
    units: int = 512
    layers: int = 6
    extra: int = 650
    epochs: int = 2
    batch_tokens: int = 1536
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = SEED


@dataclass(frozen=True)
class Text:
    """Documents to train on, and held-out ones by category."""

    train: list[Pair]
    held_out: dict[str, list[Pair]]


def gather(settings: Settings) -> Text:
    """Generate the text: the demo's test prompts are held out, all others are trained on."""
    splits = generate(settings.seed, settings.extra)
    groups = [*splits.train.values(), *splits.extra.values()]
    return Text([pair for group in groups for pair in group], splits.test)


def train_tokenizer(pairs: list[Pair], vocabulary: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer that splits text as Qwen2's does, with the chat's tokens."""
    tokenizer = Tokenizer(BPE())
    splits = Qwen2Tokenizer().backend_tokenizer
    tokenizer.normalizer = splits.normalizer
    tokenizer.pre_tokenizer = splits.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chat_words = ["system\n", "user\n", "assistant\n", SYSTEM["content"]] * 100
    tokenizer.train_from_iterator(
        [*chat_words, *(f"{pair.text}\n{pair.answer}" for pair in pairs)], trainer
    )
    learned = json.loads(tokenizer.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        extra_special_tokens=[SPECIAL[1]],
        model_max_length=CONTEXT,
        chat_template=TEMPLATE,
    )


def build_model(settings: Settings) -> Qwen2ForCausalLM:
    """Return the model with random weights."""
    config = Qwen2Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.units,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(settings.seed)
    return Qwen2ForCausalLM(config)


def encode(
    tokenizer: Qwen2Tokenizer, pairs: list[Pair], rng: np.random.Generator
) -> list[torch.Tensor]:
    """Return the token ids of each pair as a chat, half of them with the system message."""
    documents = []
    for pair in pairs:
        chat = [{"role": "user", "content": pair.text}]
        chat.append({"role": "assistant", "content": pair.answer})
        if rng.random() < 0.5:
            chat.insert(0, SYSTEM)
        text = str(tokenizer.apply_chat_template(chat, tokenize=False))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        documents.append(torch.tensor(ids[:CONTEXT]))
    return documents


def batches(
    documents: list[torch.Tensor], tokens: int, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Yield padded batches in random order, each of documents of similar length."""
    noisy = np.array([len(document) for document in documents]) * rng.uniform(
        0.9, 1.1, len(documents)
    )
    groups: list[list[torch.Tensor]] = [[]]
    longest = 0
    for index in np.argsort(noisy):
        document = documents[int(index)]
        longest = max(longest, len(document))
        if longest * (len(groups[-1]) + 1) > tokens:
            groups.append([])
            longest = len(document)
        groups[-1].append(document)
    for index in rng.permutation(len(groups)):
        yield torch.nn.utils.rnn.pad_sequence(groups[int(index)], batch_first=True)


def token_losses(model: Qwen2ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the loss in nats of every predicted token that is not padding."""
    # Padding is on the right, where causal attention never looks: no attention mask is needed.
    logits = model(input_ids=ids, use_cache=False).logits
    kept = ids[:, 1:] != 0
    return cross_entropy(logits[:, :-1][kept], ids[:, 1:][kept], reduction="none")


@torch.no_grad()
def held_out_loss(model: Qwen2ForCausalLM, documents: list[torch.Tensor]) -> float:
    """Return the mean loss in nats a token over documents."""
    model.train(False)
    parts = [
        token_losses(model, batch) for batch in batches(documents, 8192, np.random.default_rng(0))
    ]
    model.train()
    return float(torch.cat(parts).mean())


def train(
    model: Qwen2ForCausalLM,
    documents: list[torch.Tensor],
    settings: Settings,
    rng: np.random.Generator,
) -> None:
    """Train the model with AdamW, a short warm-up and a cosine schedule, printing progress."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95))
    plan = [
        batch
        for _ in range(settings.epochs)
        for batch in batches(documents, settings.batch_tokens, rng)
    ]
    warm, started = max(1, len(plan) // 20), time.monotonic()
    for step, ids in enumerate(plan, start=1):
        rate = min(step / warm, 0.02 + 0.98 * (1 + cos(pi * step / len(plan))) / 2)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        loss = token_losses(model, ids).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == len(plan):
            seconds = time.monotonic() - started
            print(
                f"step {step}/{len(plan)}  loss {loss.item():.3f}  {seconds:.0f} s, "
                f"{seconds / step * (len(plan) - step):.0f} s left",
                flush=True,
            )


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write model, tokenizer and chat template in the usual layout."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train with the settings in this file and save beside this script, or where --out says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "model", help="folder to write to")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to train with")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings()
    rng = np.random.default_rng(settings.seed)
    text = gather(settings)
    tokenizer = train_tokenizer(text.train, settings.vocabulary)
    documents = encode(tokenizer, text.train, rng)
    print(f"{len(documents)} documents, {sum(map(len, documents))} tokens")
    model = build_model(settings)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, documents, settings, rng)
    held_out = {name: encode(tokenizer, pairs, rng) for name, pairs in text.held_out.items()}
    for name, some in held_out.items():
        print(f"held-out loss {name}: {held_out_loss(model, some):.3f} nats a token")
    everything = [document for some in held_out.values() for document in some]
    print(f"held-out loss: {held_out_loss(model, everything):.3f} nats a token")
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()

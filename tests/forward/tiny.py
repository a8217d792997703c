"""Tiny random models of every family and a byte-level tokenizer, as a user would find them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ulcmod_dist.forward.architectures import get_model_class
from ulcmod_dist.forward.batches import TokenizedPrompt

SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = len(SPECIAL) + len(BYTES)

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 12, "shared_expert_intermediate_size": 14,
}  # fmt: skip
DEEPSEEK = {
    "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 12,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 2},
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "falcon": {"ffn_hidden_size": 24, "alibi": False, "new_decoder_architecture": False},
    "gemma3": {},
    "gpt2": {"n_inner": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_oss": EXPERTS | {"sliding_window": 8},
    "mixtral": EXPERTS,
    "olmoe": EXPERTS,
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "qwen2_moe": EXPERTS | {"mlp_only_layers": [0]},
    "qwen3_moe": EXPERTS | {"decoder_sparse_step": 2},
    "t5": {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2},
}
UNITS = {
    "bloom": 2 * 64,
    "deepseek_v2": 24 + 4 * 12 + 2 * 12,
    "deepseek_v3": 24 + 4 * 12 + 2 * 12,
    "gpt_oss": 2 * 4 * 24,
    "mixtral": 2 * 4 * 24,
    "olmoe": 2 * 4 * 24,
    "qwen2_moe": 24 + 4 * 12 + 14,
    "qwen3_moe": 24 + 4 * 12,
}
FAMILIES = (
    "bert", "bloom", "deepseek_v2", "deepseek_v3", "falcon", "gemma", "gemma2", "gemma3",
    "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "llama", "mistral", "mixtral", "olmoe", "opt",
    "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "t5",
)  # fmt: skip
EAGER = ("bloom", "gemma2", "gpt_oss")
SPARSE = ("deepseek_v2", "deepseek_v3", "gpt_oss", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe")


def tiny_config(family: str, **changes: Any) -> Any:
    settings = COMMON | SETTINGS.get(family, {}) | changes
    if family == "falcon":
        del settings["head_dim"]
    config_class: Any = type(transformers.AutoConfig.for_model(family))
    if family == "gemma3":
        vision = {
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "image_size": 8, "patch_size": 4,
        }  # fmt: skip
        return config_class(text_config=settings, vision_config=vision, mm_tokens_per_image=4)
    return config_class(**settings)


def tiny_model(family: str, *, head: bool = False, **changes: Any) -> Any:
    """A model with random weights, large enough that units differ visibly."""
    config = tiny_config(family, **changes)
    base: Any = getattr(transformers, get_model_class(config, head=head))
    torch.manual_seed(0)
    model = (base.from_config if hasattr(base, "from_config") else base)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tiny_tokenizer(template: str | None = None, **settings: Any) -> PreTrainedTokenizerFast:
    """One token a byte; plain text is put between <s> and </s>."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *BYTES])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = tokenizer_class(
        tokenizer_object=backend, chat_template=template, pad_token="<pad>", bos_token="<s>",
        eos_token="</s>", **settings,
    )  # fmt: skip
    return tokenizer


def save_tiny(
    folder: Path, family: str = "llama", template: str | None = CHATML, **changes: Any
) -> Path:
    tiny_model(family, **changes).save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return folder


def make_prompts(lengths: list[int], seed: int = 0) -> list[TokenizedPrompt]:
    """Random tokens, all counted."""
    generator = torch.Generator().manual_seed(seed)
    return [
        TokenizedPrompt(tuple(ids.tolist()), (True,) * len(ids))
        for ids in (
            torch.randint(len(SPECIAL), VOCABULARY, (length,), generator=generator)
            for length in lengths
        )
    ]

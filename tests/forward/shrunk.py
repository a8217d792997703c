"""Any architecture of transformers, built from its configuration, tiny and with random weights."""

import copy
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto import modeling_auto

from ulcmod_dist.forward.architectures import get_model_class
from ulcmod_dist.forward.units import build_without_weights

HEADS = 4
LAYERS = 4
# Keys of configurations by what they count, and their values in a tiny model.
SIZES: dict[str, Any] = {
    name: value
    for names, value in (
        (
            "hidden_size d_model n_embd dim embed_dim embedding_size emb_dim word_embed_proj_dim "
            "n_embed encoder_hidden_size out_hidden_size text_hidden_size adapter_in_dim",
            64,
        ),
        (
            "intermediate_size ffn_dim d_ff n_inner ffn_hidden_size encoder_ffn_dim "
            "decoder_ffn_dim dff dim_ff d_inner intermediate_size_mlp dense_intermediate_size",
            96,
        ),
        (
            "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
            "expert_ffn_hidden_size moe_shared_expert_intermediate_size expert_intermediate_size",
            24,
        ),
        (
            "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
            "num_decoder_layers num_encoder_layers depth",
            LAYERS,
        ),
        (
            "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
            "decoder_attention_heads num_swa_attention_heads",
            HEADS,
        ),
        ("num_key_value_heads num_kv_heads swa_num_key_value_heads", 2),
        ("linear_num_key_heads linear_num_value_heads", 2),
        (
            "head_dim d_kv global_head_dim swa_head_dim linear_key_head_dim linear_value_head_dim "
            "kv_lora_rank q_lora_rank",
            16,
        ),
        ("num_experts num_local_experts n_routed_experts moe_num_experts", 4),
        ("num_experts_per_tok num_experts_per_token moe_k moe_topk moe_top_k", 2),
        ("n_group topk_group num_expert_group n_groups mamba_n_groups first_k_dense_replace", 1),
        ("qk_nope_head_dim qk_rope_head_dim v_head_dim rotary_dim", 8),
        ("vocab_size vocab_size_per_layer_input entity_vocab_size", 300),
        ("max_position_embeddings n_positions max_sequence_length n_ctx max_seq_len", 128),
        ("mamba_n_heads mamba_num_heads block_size hidden_size_per_layer_input", 8),
        ("mamba_d_head mamba_head_dim", 16),
        ("mamba_d_state ssm_state_size state_size", 8),
        ("mamba_d_ssm", 128),
        ("mamba_chunk_size chunk_size sliding_window local_attention attention_window", 16),
        ("initializer_range", 0.2),
        ("pad_token_id", 0),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
    )
    for name in names.split()
}
# Left as they are where the default is None, which means that the model goes without.
OPTIONAL = {"q_lora_rank", "sliding_window", "rotary_dim", "kv_lora_rank", "block_size"}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dots1": {"n_shared_experts": 1},
    "esmc": {"num_key_value_heads": HEADS},
    "funnel": {"block_sizes": [2, 2], "block_repeats": [1, 1]},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm4v_moe_text": {"rope_parameters": SECTIONS | {"partial_rotary_factor": 1.0}},
    "glm4v_text": {"rope_parameters": SECTIONS},
    "glm_ocr_text": {"rope_parameters": SECTIONS},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "paddleocr_vl_text": {"rope_parameters": SECTIONS},
    "qwen2_5_vl_text": {"rope_parameters": SECTIONS},
    "qwen2_vl_text": {"rope_parameters": SECTIONS},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [8, 16]},
    "step3p5": {"sliding_window": 16},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}


MAX_PARAMETERS = 50_000_000
"""A wrapper's vision tower may be of its usual size, but not one of billions."""


def list_architectures() -> list[str]:
    """Every model type with a causal, masked or image-text head, and the encoders of T5's kind."""
    heads = ("CAUSAL_LM", "MASKED_LM", "IMAGE_TEXT_TO_TEXT")
    names = {
        name for head in heads for name in getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")
    }
    return sorted(names | {"t5", "mt5", "umt5", "longt5"})


def shrink_config(model_type: str) -> PretrainedConfig:
    """A configuration of a few thousand weights, which keeps each kind of layer."""
    config_class: Any = CONFIG_MAPPING[model_type]
    default = config_class()
    changes = _shrink(default)
    for name in config_class.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig):
            changes[name] = _shrink(part) | (
                {"model_type": part.model_type} if part.model_type else {}
            )
    return config_class(**changes)  # type: ignore[no-any-return]


def _shrink(config: PretrainedConfig) -> dict[str, Any]:
    values = config.to_dict()
    changes = {
        name: size
        for name, size in SIZES.items()
        if name in values
        and not isinstance(values[name], dict | list)
        and not (values[name] is None and name in OPTIONAL)
    }
    if "kv_lora_rank" in changes and "num_key_value_heads" in changes:
        changes["num_key_value_heads"] = HEADS
    if "qk_rope_head_dim" in changes and "head_dim" in changes:
        changes["head_dim"] = changes["qk_rope_head_dim"]
    rope = values.get("rope_parameters")
    if isinstance(rope, dict) and "mrope_section" in str(rope):
        changes["rope_parameters"] = _shrink_sections(rope)
    for name, value in values.items():
        # One entry a layer: each kind is kept, in its order.
        if isinstance(value, list) and len(value) == values.get("num_hidden_layers"):
            kinds = [entry for index, entry in enumerate(value) if entry not in value[:index]]
            changes[name] = (kinds + value)[: max(LAYERS, len(kinds))]
            changes["num_hidden_layers"] = len(changes[name])
    return changes | SPECIAL.get(config.model_type, {})


def _shrink_sections(rope: dict[str, Any]) -> dict[str, Any]:
    def shrink(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _shrink_sections(value)
        return [4, 2, 2] if name == "mrope_section" else value

    return {name: shrink(name, value) for name, value in rope.items()}


def build_shrunk(
    config: PretrainedConfig, *, head: bool = False, attention: str | None = None
) -> transformers.PreTrainedModel:
    """The base model or that with its ``head``, in float32 and evaluation mode."""
    count = sum(parameter.numel() for parameter in build_without_weights(config).parameters())
    assert count <= MAX_PARAMETERS, f"{count:,} parameters are too many for a test"
    base: Any = getattr(transformers, get_model_class(config, head=head))
    if attention is not None:
        config = copy.deepcopy(config)
        config._attn_implementation = attention
    torch.manual_seed(0)
    model = (base.from_config if hasattr(base, "from_config") else base)(config).eval()
    model.config.use_cache = model.config.get_text_config().use_cache = False
    return model  # type: ignore[no-any-return]

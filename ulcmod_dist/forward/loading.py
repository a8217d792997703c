"""Load a model: its configuration, its weights, and the provenance of both.

Weights are read from safetensors only, and code that comes with a checkpoint is never run.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME
from transformers.utils.quantization_config import GgufConfig

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.forward.architectures import get_length_classes, get_model_class
from ulcmod_dist.forward.checkpoints import (
    check_files,
    check_loading_info,
    find_file,
    get_local_folder,
    locate,
    reject_adapter,
    silence_transformers,
)
from ulcmod_dist.forward.gguf import read_gguf_config
from ulcmod_dist.forward.provenance import get_forward_version, hash_files, read_raw_config
from ulcmod_dist.forward.quantisation import add_quantisation, get_quantisation
from ulcmod_dist.forward.units import find_units, get_attention
from ulcmod_dist.runtime.files import reject_lfs_pointer

# transformers would load other files than those that are checked and hashed, or change its classes.
_REDIRECTS = ("transformers_weights", "configuration_files", "fusion_config")
_MAX_LAYERS = 10_000
LIBRARY_PREFIX = "library."
"""Keys of a model's provenance that name the version of a library, not a choice of the job."""


def load_config(model: ModelConfig) -> PretrainedConfig:
    """Read a model's configuration and refuse what cannot be run.

    Raises:
        InvalidInput: It cannot be read or needs code of its own; its units are not found; the
            checkpoint has an adapter, cannot be dequantised, names a file of weights itself or is
            not in safetensors; or the model lacks the job's ``attention``.
    """
    try:
        reject_adapter(model)
        if (file := find_file(model, CONFIG_NAME)) is not None:
            reject_lfs_pointer(file)
        _reject_redirects(model)
        source = locate(model)
        file = source.get("gguf_file")
        config: Any = read_gguf_config(file) if file else AutoConfig.from_pretrained(**source)
    except UlcmodError:
        raise
    except Exception as error:
        # Any error: strange values fail deep inside the classes of transformers.
        raise InvalidInput(
            f"The configuration of the model {model.id} cannot be read: {one_line(error)}."
        ) from error
    # The model that is run is not quantised; how its weights are is read again to load them.
    get_quantisation(model)
    for part in (config, config.get_text_config()):
        vars(part).pop("quantization_config", None)
    _check_units(model, config)
    if model.attention == "sdpa" and find_units(config, model.units).attention != "sdpa":
        raise InvalidInput(
            f"model.attention is sdpa, which transformers does not have for models of type "
            f"{config.model_type}.",
            "Set model.attention to eager, or leave it out.",
        )
    if get_local_folder(model) is not None:
        # Of a model on the hub this would download the weights.
        check_files(model)
    return config  # type: ignore[no-any-return]


def _reject_redirects(model: ModelConfig) -> None:
    raw = read_raw_config(model)
    if redirects := [key for key in _REDIRECTS if raw.get(key) is not None]:
        raise InvalidInput(
            f"The configuration of the model {model.id} names files or code to use in place of "
            f"the usual ones ({redirects[0]}).",
            "Save the model with save_pretrained, which writes model.safetensors.",
        )


def _check_units(model: ModelConfig, config: PretrainedConfig) -> None:
    """Refuse a configuration with impossible sizes, before anything is made as large."""
    try:
        layers = config.get_text_config().num_hidden_layers
        if not 1 <= layers <= _MAX_LAYERS:
            raise ValueError(f"num_hidden_layers is {layers}")
        layout = find_units(config, model.units)
        if any(part.width < 1 for part in layout.units):
            raise ValueError("a layer has no units")
        get_length_classes(config)
    except UlcmodError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"The configuration of the model {model.id} describes no model: {one_line(error)}."
        ) from error


def load_model(
    model: ModelConfig, config: PretrainedConfig, device: str, ranks: int = 1, *, head: bool = False
) -> PreTrainedModel:
    """Load the base model, or with its language-model ``head``, in evaluation mode.

    The device ``auto`` places whole layers on all devices that this process sees. These work one
    after another, so it is for models that fit no single device and have no tensor-parallel plan.
    Ranks share the model by tensor parallelism; each calls this function at the same time with the
    variables of torch.distributed (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) in its
    environment, and its device is that of LOCAL_RANK.

    Raises:
        InvalidInput: The weights cannot be read or are not those of the model, or the family has
            no tensor-parallel plan.
    """
    base = getattr(transformers, get_model_class(config, head=head))
    placement: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    source, method = locate(model), get_quantisation(model)
    if method == "gguf":
        # Else transformers may keep the blocks of the file and compute with kernels of its own.
        source["quantization_config"] = GgufConfig(dequantize=True)
    check_ranks(model, config, ranks)
    if ranks > 1:
        placement = {"distributed_config": DistributedConfig(tp_size=ranks, tp_plan="auto")}
    try:
        check_files(model)
        with silence_transformers():
            loaded, info = base.from_pretrained(
                **source,
                config=add_quantisation(model, config),
                dtype=getattr(torch, model.dtype),
                attn_implementation=get_attention(model, config),
                use_safetensors=True,
                # Reported below, with its name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **placement,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(
            f"The weights of the model {model.id} cannot be loaded: {one_line(error)}."
        ) from error
    check_loading_info(model, config, info)
    if method == "bitsandbytes":
        with silence_transformers():
            loaded = loaded.dequantize(getattr(torch, model.dtype))
    loaded.config.use_cache = False
    # A model that is placed over several devices or ranks must not be moved as a whole.
    placed: PreTrainedModel = (loaded if placement else loaded.to(device)).eval()
    return placed


def check_ranks(model: ModelConfig, config: PretrainedConfig, ranks: int) -> None:
    """Refuse to share a model by more ranks than one where transformers cannot do it."""
    reason = None if config.get_text_config().base_model_tp_plan else "has no plan for them"
    if get_quantisation(model):
        reason = "does not dequantise parts of them"
    if ranks > 1 and reason:
        raise InvalidInput(
            f"Models of type {config.model_type} cannot be shared by ranks: transformers {reason}.",
            "Set extract.ranks to 1, and extract.gpus to several if the model fits no single one.",
        )


def get_model_provenance(model: ModelConfig) -> dict[str, str]:
    """What activations depend on from the model's side.

    Keys that begin with ``LIBRARY_PREFIX`` name library versions, which change activations by
    rounding at most. A folder is identified by the digest of its weights and configuration, so that
    it may be moved.
    """
    config = load_config(model)
    folder, method = get_local_folder(model), get_quantisation(model)
    if folder is None:
        source = {"id": model.id, "revision": str(model.revision)}
    elif method == "gguf":
        source = {"id": Path(model.id).name, "weights": str(digest_weights(Path(model.id)))}
    else:
        source = {"id": folder.name, "weights": str(digest_weights(folder))}
    return {
        **source,
        "architecture": config.model_type,
        "dtype": model.dtype,
        "attention": get_attention(model, config),
        **({"units": " ".join(model.units)} if model.units else {}),
        **({"quantisation": f"{method}, dequantised"} if method else {}),
        "forward": get_forward_version(model),
        LIBRARY_PREFIX + "torch": str(torch.__version__),
        LIBRARY_PREFIX + "transformers": str(transformers.__version__),
    }


def digest_weights(path: Path) -> str | None:
    """Digest of a model's weights and configuration in a folder, or of a GGUF file.

    None where there is neither.
    """
    if path.is_file():
        return hash_files([path])
    if not (path / "config.json").is_file():
        return None
    files = [path / "config.json", *sorted(path.glob("*.safetensors"))]
    return hash_files([*files, *path.glob(SAFE_WEIGHTS_INDEX_NAME)])

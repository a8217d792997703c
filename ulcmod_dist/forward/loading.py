"""Load a model: its configuration, its weights, and the provenance of both.

Weights are read from safetensors only, and code that comes with a checkpoint is never run.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.architectures import get_family
from ulcmod_dist.forward.provenance import FORWARD_VERSION, hash_files

LIBRARY_PREFIX = "library."
"""Keys of a model's provenance that name the version of a library, not a choice of the job."""


def load_config(model: ModelConfig) -> PretrainedConfig:
    """Read a model's configuration and refuse what cannot be run.

    Raises:
        InvalidInput: It cannot be read, is of an unknown family or needs code of its own; or the
            checkpoint is quantised, names a file of weights itself or, in a folder, is not in
            safetensors.
    """
    folder = get_local_folder(model)
    try:
        config = AutoConfig.from_pretrained(
            model.id, revision=model.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"The configuration of the model {model.id} cannot be read: {one_line(error)}."
        ) from error
    get_family(config)
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        settings = quantised if isinstance(quantised, dict) else vars(quantised)
        raise InvalidInput(
            f"The checkpoint {model.id} is quantised ({settings.get('quant_method')}).",
            "Name the checkpoint of the same model in full precision.",
        )
    if getattr(config, "transformers_weights", None) is not None:
        # transformers would load this file in place of those that are checked here.
        raise InvalidInput(
            f"The configuration of the model {model.id} names a file of weights itself "
            "(transformers_weights).",
            "Save the model with save_pretrained, which writes model.safetensors.",
        )
    if folder is not None:
        _require_safetensors(folder)
    assert isinstance(config, PretrainedConfig)
    return config


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
        InvalidInput: The weights cannot be read or are incomplete, or the family has no
            tensor-parallel plan.
    """
    base = getattr(transformers, "AutoModelForCausalLM" if head else get_family(config).base)
    placement: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    if ranks > 1:
        _require_tp_plan(config)
        placement = {"distributed_config": DistributedConfig(tp_size=ranks, tp_plan="auto")}
    try:
        if get_local_folder(model) is None:
            _check_hub_index(model)
        loaded, info = base.from_pretrained(
            model.id,
            config=config,
            revision=model.revision,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placement,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(
            f"The weights of the model {model.id} cannot be loaded: {one_line(error)}."
        ) from error
    # transformers only warns of missing weights and initialises them at random. A pooler's
    # output is not used.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InvalidInput(
            f"The checkpoint {model.id} lacks {len(missing)} of the model's weights, "
            f"such as {missing[0]}.",
            "Name a complete checkpoint.",
        )
    loaded.config.use_cache = False
    # A model that is placed over several devices or ranks must not be moved as a whole.
    placed: PreTrainedModel = (loaded if placement else loaded.to(device)).eval()
    return placed


def _require_tp_plan(config: PretrainedConfig) -> None:
    if not config.get_text_config().base_model_tp_plan:
        raise InvalidInput(
            f"Models of type {config.model_type} cannot be shared by ranks: transformers has no "
            "tensor-parallel plan for them.",
            "Set extract.ranks to 1, and extract.gpus to several if the model fits no single one.",
        )


def get_model_provenance(model: ModelConfig) -> dict[str, str]:
    """What activations depend on from the model's side.

    Keys that begin with ``LIBRARY_PREFIX`` name library versions, which change activations by
    rounding at most. A folder is identified by the digest of its weights and configuration, so that
    it may be moved.
    """
    config = load_config(model)
    folder = get_local_folder(model)
    if folder is None:
        source = {"id": model.id, "revision": str(model.revision)}
    else:
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        files += folder.glob(SAFE_WEIGHTS_INDEX_NAME)
        source = {"id": folder.name, "weights": hash_files(files)}
    return {
        **source,
        "architecture": config.model_type,
        "dtype": model.dtype,
        "attention": model.attention,
        "forward": FORWARD_VERSION,
        LIBRARY_PREFIX + "torch": str(torch.__version__),
        LIBRARY_PREFIX + "transformers": str(transformers.__version__),
    }


def get_local_folder(model: ModelConfig) -> Path | None:
    """The folder of a local model, or None for an id on the hub, which needs a fixed revision."""
    folder = Path(model.id)
    if folder.is_dir():
        return folder.resolve()
    if folder.is_absolute():
        raise InvalidInput(
            f"The model folder {model.id} is not here.",
            "Restore it, or give its new path: --set model.id=FOLDER.",
        )
    if model.revision is None:
        raise InvalidInput(
            f"The model {model.id!r} is no folder and, as an id on the hub, lacks a revision.",
            "Correct the path, or name a commit.",
        )
    return None


def _require_safetensors(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        raise InvalidInput(
            f"The model folder {folder} holds no weights in safetensors.",
            "Save the model with save_pretrained, which writes model.safetensors.",
        )
    if (index := folder / SAFE_WEIGHTS_INDEX_NAME).exists():
        _check_index(index)


def _check_hub_index(model: ModelConfig) -> None:
    """Check the index of a checkpoint on the hub where transformers would follow one."""
    find: Any = partial(
        cached_file, model.id, revision=model.revision, _raise_exceptions_for_missing_entries=False
    )
    # from_pretrained downloads model.safetensors where there is one, and else follows the index.
    if find(SAFE_WEIGHTS_NAME) is None and (index := find(SAFE_WEIGHTS_INDEX_NAME)) is not None:
        _check_index(Path(index))


def _check_index(index: Path) -> None:
    """Refuse an index that names anything but safetensors files in its own folder.

    ``use_safetensors=True`` chooses this index, but transformers loads the files that it names by
    their suffixes: any but ``.safetensors`` goes to ``torch.load``, which reads pickles.
    """
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"The index of weights {index} cannot be read: {error!r}.") from error
    for name in sorted(names, key=str):
        plain = isinstance(name, str) and name.endswith(".safetensors")
        if not plain or "/" in name or "\\" in name or ".." in name:
            raise InvalidInput(
                f"The index of weights {index} names {name!r}, which is no safetensors file in "
                "its folder.",
                "Save the model with save_pretrained, which writes safetensors.",
            )

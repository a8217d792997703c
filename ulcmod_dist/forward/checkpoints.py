"""Check a checkpoint before its weights are read: files, adapters, and a place for every weight.

Weights are read from safetensors only: other formats are pickles, which run code. transformers
drops weights that the model has no place for, and initialises at random those that the checkpoint
lacks; both are refused here. Names and shapes are compared on the meta device, from the headers of
the files, by the code of transformers that will load them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import str_to_torch_dtype
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.architectures import get_model_class
from ulcmod_dist.forward.provenance import split_gguf
from ulcmod_dist.forward.quantisation import add_quantisation, get_quantisation
from ulcmod_dist.runtime.files import reject_lfs_pointer
from ulcmod_dist.runtime.text import count

# Files that transformers prefers to model.safetensors (`distributed.checkpoint`).
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SAVE = "Save the model with save_pretrained, which writes model.safetensors."


def get_local_folder(model: ModelConfig) -> Path | None:
    """The folder of a local model, or None for an id on the hub, which needs a fixed revision."""
    path = Path(model.id)
    if path.is_dir():
        return path.resolve()
    if split_gguf(model) and path.is_file():
        return path.parent.resolve()
    if path.is_absolute():
        raise InvalidInput(
            f"The model {model.id} is not here.",
            "Restore it, or give its new path: --set model.id=PATH.",
        )
    if model.revision is None:
        raise InvalidInput(
            f"The model {model.id!r} is no folder or GGUF file and, as a hub id, lacks a revision.",
            "Correct the path, or name a commit.",
        )
    return None


def locate(model: ModelConfig) -> dict[str, Any]:
    """Where a model is, as arguments of ``from_pretrained``; a GGUF file is downloaded."""
    if (parts := split_gguf(model)) is None:
        where = {"pretrained_model_name_or_path": model.id, "revision": model.revision}
        return {**where, "trust_remote_code": False}
    if (file := find_file(model, parts[1])) is None:
        raise InvalidInput(
            f"The repository {parts[0]} holds no file {parts[1]} at this revision.",
            "Correct model.id, which is OWNER/REPOSITORY/FILE.gguf.",
        )
    reject_lfs_pointer(file)
    # By its whole path, since transformers prefers a file of that name in the working directory.
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": str(file)}


def reject_adapter(model: ModelConfig) -> None:
    """Refuse a model with an adapter.

    Where peft is installed, transformers applies it without a word, and for an adapter without a
    model it loads the one that the adapter names, from anywhere.
    """
    if find_file(model, ADAPTER_CONFIG_NAME) is not None:
        raise InvalidInput(
            f"The model {model.id} holds an adapter ({ADAPTER_CONFIG_NAME}), which is not applied.",
            "Merge it with peft: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained"
            "(BASE), ADAPTER).merge_and_unload().save_pretrained(FOLDER). Save the tokenizer in "
            "FOLDER as well, and name it.",
        )


def check_files(model: ModelConfig) -> None:
    """Refuse a checkpoint whose weights are not in safetensors of their usual names.

    A model on the hub that is one file is downloaded, an index of several without these.

    Raises:
        InvalidInput: There are none, or an index names other files.
    """
    if split_gguf(model):
        return
    folder = get_local_folder(model)
    names = sorted(path.name for path in folder.glob("*.safetensors")) if folder else []
    if distributed := [name for name in names if _DISTRIBUTED.match(name)]:
        raise InvalidInput(
            f"The model folder {folder} holds a distributed checkpoint ({distributed[0]}).", _SAVE
        )
    # from_pretrained takes model.safetensors where there is one, and else follows the index.
    if find_file(model, SAFE_WEIGHTS_NAME) is None:
        index = find_file(model, SAFE_WEIGHTS_INDEX_NAME)
        if index is not None:
            _list_indexed_files(index)
        if folder is not None and not (names and index):
            raise InvalidInput(f"The model folder {folder} holds no weights in safetensors.", _SAVE)


def check_weights(model: ModelConfig, config: PretrainedConfig, *, head: bool = False) -> None:
    """Check that weights and model fit each other, from the headers of the files alone.

    The weights of a model on the hub are not downloaded for this: where neither they nor their
    headers can be had, they are checked when they are loaded.

    Raises:
        InvalidInput: A file is missing, cut off or a pointer; or a weight has no place in the
            model, another shape, or is lacking.
    """
    # Other methods need the data to tell the shape of a weight.
    has_shapes = get_quantisation(model) in (None, "fp8", "mxfp4", "mxfp8")
    if not has_shapes or (tensors := _read_headers(model)) is None:
        return
    name = get_model_class(config, head=head)
    try:
        model_class = _get_class(name, config)
        info = _load_on_meta(model_class, add_quantisation(model, config), tensors)
    except Exception as error:
        raise InvalidInput(
            f"The weights of the model {model.id} cannot be loaded: {one_line(error)}.",
            "Check that its config.json belongs to these weights.",
        ) from error
    # transformers takes 8-bit floats without scales as they are.
    scaled = {name.rpartition(".")[0] for name in tensors if "scale" in name}
    small = [name for name, tensor in tensors.items() if tensor.dtype in _FLOAT8]
    info["missing_keys"] |= {f"{x}_scale_inv" for x in small if x.rpartition(".")[0] not in scaled}
    prefix = model_class.base_model_prefix
    if twice := sorted(name for name in tensors if f"{prefix}.{name}" in tensors):
        raise _duplicate(model, twice[0], f"{prefix}.{twice[0]}")
    check_loading_info(model, config, info)


def check_loading_info(
    model: ModelConfig, config: PretrainedConfig, info: Mapping[str, Any]
) -> None:
    """Refuse weights without a place, of another shape, or missing.

    ``info`` is what ``from_pretrained`` returns with ``output_loading_info``; what transformers
    itself declares harmless is not in it. Weights of a head that the model was saved with and that
    is not loaded have no influence on its units.
    """
    # A pooler's output is not used.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InvalidInput(
            f"The checkpoint {model.id} lacks {len(missing)} of the model's weights, "
            f"such as {missing[0]}.",
            "Name a complete checkpoint.",
        )
    if info["mismatched_keys"]:
        key, found, expected = min(info["mismatched_keys"])
        raise InvalidInput(
            f"The weight {key} of the checkpoint {model.id} has the shape {list(found)}; by its "
            f"configuration it is {list(expected)}.",
            "Check that the config.json belongs to these weights.",
        )
    unexpected = sorted(_drop_heads(config, set(info["unexpected_keys"])))
    if unexpected:
        raise InvalidInput(
            f"The checkpoint {model.id} holds {count(len(unexpected), 'weight')} for which its "
            f"configuration has no place, such as {unexpected[0]}.",
            "Check that the config.json belongs to these weights: number of layers, biases.",
        )


def _duplicate(model: ModelConfig, first: str, second: str) -> InvalidInput:
    return InvalidInput(
        f"The checkpoint {model.id} holds two weights for one place: {first} and {second}.",
        "Remove one set of them.",
    )


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and report of loading off the terminal.

    What the report says is checked and raised here.
    """
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _get_class(name: str, config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of transformers that one of its auto classes chooses for a configuration."""
    base: Any = getattr(transformers, name)
    if not name.startswith("Auto"):
        return base  # type: ignore[no-any-return]
    with torch.device("meta"):
        return type(base.from_config(config))


def _load_on_meta(
    model_class: Any, config: PretrainedConfig, tensors: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """The loading info of tensors without data. Names are converted as for a real checkpoint."""
    with silence_transformers():
        _, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=torch.float32,
            device_map={"": "meta"},
            attn_implementation="eager",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return dict(info)


def _drop_heads(config: PretrainedConfig, keys: set[str]) -> set[str]:
    """Drop the keys of heads: those that another class of the same model has a place for."""
    declared = [name for name in config.architectures or () if isinstance(name, str)]
    for name in ("AutoModelForCausalLM", "AutoModelForPreTraining", *declared):
        if not keys:
            break
        # The family may lack such a class, and a name in config.json need not be one.
        with suppress(Exception):
            model_class = _get_class(name, config)
            if model_class.config_class is type(config):
                tensors = {key: torch.empty(0, device="meta") for key in keys}
                # A class may know a key by another name, under which it stays in the set.
                keys = set(_load_on_meta(model_class, config, tensors)["unexpected_keys"])
    return keys


def _read_headers(model: ModelConfig) -> dict[str, torch.Tensor] | None:
    """Every weight without its data; None where they are on the hub and out of reach."""
    config = find_file(model, CONFIG_NAME)
    assert config is not None  # it has been read
    paths = _list_weight_files(config.parent)
    if get_local_folder(model) is None and not all(path.exists() for path in paths):
        try:
            metadata = HfApi().get_safetensors_metadata(model.id, revision=model.revision)
        except Exception:
            return None
        return {
            name: _make_empty(tensor.shape, tensor.dtype)
            for file in metadata.files_metadata.values()
            for name, tensor in file.tensors.items()
        }
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        header = _read_header(path)
        if twice := sorted(tensors.keys() & header.keys()):
            raise _duplicate(model, twice[0], f"{twice[0]} in {path.name}")
        tensors |= header
    return tensors


def _make_empty(shape: Sequence[int], dtype: str) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=str_to_torch_dtype.get(dtype), device="meta")


def _list_weight_files(folder: Path) -> list[Path]:
    single, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if single.exists() or not index.exists():
        return [single]
    return [folder / name for name in _list_indexed_files(index)]


def _read_header(path: Path) -> dict[str, torch.Tensor]:
    """Each weight of a file, without its data."""
    reject_lfs_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: _make_empty(x.get_shape(), x.get_dtype()) for name, x in parts.items()}
    except (OSError, SafetensorError) as error:
        raise InvalidInput(
            f"The file of weights {path} cannot be read: {one_line(error)}.",
            "Fetch it again; it may be incomplete.",
        ) from error


def find_file(model: ModelConfig, name: str) -> Path | None:
    """A file of a model, downloaded from the hub where needed; None if the model has none."""
    folder = get_local_folder(model)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    repository, _ = split_gguf(model) or (model.id, "")
    found = cached_file(
        repository, name, revision=model.revision, _raise_exceptions_for_missing_entries=False
    )
    return None if found is None else Path(found)


def _list_indexed_files(index: Path) -> list[str]:
    """The files that an index names, which must be safetensors files in its own folder.

    ``use_safetensors=True`` chooses this index, but transformers loads the files that it names by
    their suffixes: any but ``.safetensors`` goes to ``torch.load``, which reads pickles.
    """
    reject_lfs_pointer(index)
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"The index of weights {index} cannot be read: {error!r}.") from error
    for name in sorted(names, key=str):
        plain = isinstance(name, str) and name.endswith(".safetensors")
        if not plain or "/" in name or "\\" in name or ".." in name:
            raise InvalidInput(
                f"The index of weights {index} names {name!r}, which is no safetensors file in "
                "its folder.",
                _SAVE,
            )
    return sorted(names)

"""Adapters (LoRA) are recognised and refused: without one, a model has the scores of its base.

Adapters are recognised by the files and the tensor names of peft, which other libraries share.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from vlm_harness.errors import InputError, listing
from vlm_harness.files import read_json

CONFIG = "adapter_config.json"
FILES = (CONFIG, "adapter_model*", "pytorch_adapter.bin")
TENSORS = frozenset(
    {
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "ia3_l", "lokr_w1", "lokr_w2", "lora_A",
        "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector",
        "vera_lambda_b", "vera_lambda_d",
    }
)  # fmt: skip


def refuse_adapter_in(folder: Path, name: str | None = None) -> None:
    """Raise an InputError if a folder holds an adapter, beside or instead of the weights.

    Args:
        name: the repository of the Hub that the folder is a copy of.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    refuse_adapter(name or str(folder), names, base_model(folder / CONFIG))


def refuse_adapter(where: str, names: Iterable[str], base: str | None = None) -> None:
    """Raise an InputError if files of an adapter are among ``names``.

    Args:
        base: the model that the adapter was trained on.
    """
    found = [name for name in names if any(fnmatch(name, pattern) for pattern in FILES)]
    if found:
        raise InputError(
            f"the checkpoint contains an adapter, which cannot be loaded: {listing(found, 5)}"
            + (f" (base model: {base})" if base else ""),
            where=where,
            hint=how_to_merge(where, base),
        )


def adapter_weights(names: Iterable[str]) -> list[str]:
    """The names of weights that belong to an adapter."""
    return sorted(name for name in names if not TENSORS.isdisjoint(name.split(".")))


def how_to_merge(where: str, base: str | None = None) -> str:
    return (
        "Merge it into its base model with peft, save the result with its processor, and evaluate "
        "that folder:\n"
        f'  model = PeftModel.from_pretrained(base, "{where}").merge_and_unload()\n'
        '  model.save_pretrained("merged"); processor.save_pretrained("merged")\n'
        f"where base is the loaded base model{f' {base}' if base else ''}. If the weights already "
        "contain the adapter,\nmove its files elsewhere. A later version will load adapters."
    )


def base_model(config: Path) -> str | None:
    """The base model according to the configuration of an adapter; None if it names none."""
    found = read_json(config) if config.is_file() else None
    name = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    return name[:200] if isinstance(name, str) and name else None

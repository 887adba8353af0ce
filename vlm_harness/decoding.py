"""Decodings: how text is drawn from a model's logits.

A decoding is a function of its arguments that gives the keyword arguments of ``generate``:
``--decoding NAME:k=v,...`` calls it with k=v.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vlm_harness.errors import InputError
from vlm_harness.plugins import Plugins
from vlm_harness.yamlfile import scalar

Decoding = Callable[..., Mapping[str, Any]]

DECODINGS: Plugins[Decoding] = Plugins(
    "decoding", "vlm_harness.decodings", {"greedy": "vlm_harness.decoding:greedy"}
)


def greedy() -> Mapping[str, Any]:
    """The most probable token at every step (paper, appendix A)."""
    return {"do_sample": False, "num_beams": 1}


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """``name:k=v,...`` to name and arguments.

    Raises:
        InputError: unknown name, or arguments that the decoding does not take.
    """
    name, _, rest = text.partition(":")
    function = DECODINGS.get(name, "--decoding")
    arguments = key_values(rest, "--decoding") if rest else {}
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"decoding {name}: {error}", where="--decoding") from None
    return name, arguments


def key_values(text: str, where: str) -> dict[str, Any]:
    """``k=v,k=v`` to a mapping; values are read as YAML scalars."""
    found: dict[str, Any] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InputError(f"expected key=value, found {part!r}", where=where)
        found[key.strip()] = scalar(value) if value.strip() else ""
    return found

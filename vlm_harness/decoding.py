"""Decodings: how text is drawn from a model's logits.

A decoding is a function of its arguments that gives the keyword arguments of ``generate``:
``--decoding NAME:k=v,...`` calls it with k=v. One argument is not ``generate``'s own: under
``without_image``, a function of log-probabilities with and without the image (``Contrast``), for
which the backend carries a second branch of the same text without its image.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from vlm_harness.errors import InputError
from vlm_harness.plugins import Plugins
from vlm_harness.yamlfile import scalar

Decoding = Callable[..., Mapping[str, Any]]
Contrast = Callable[[Any, Any, int], Any]
"""(log-probabilities with the image, those without it, number of the step from 0) to scores.

Tensors of (rows, vocabulary), natural log.
"""

DECODINGS: Plugins[Decoding] = Plugins(
    "decoding",
    "vlm_harness.decodings",
    {"greedy": "vlm_harness.decoding:greedy", "m3id": "vlm_harness.decoding:m3id"},
)


def greedy() -> Mapping[str, Any]:
    """The most probable token at every step (paper, appendix A)."""
    return {"do_sample": False, "num_beams": 1}


def m3id(alpha: float = 0.6, t0: int = 1, **rest: float) -> Mapping[str, Any]:
    """Multi-modal mutual-information decoding: what the image adds, more at every step.

    Greedy over l_c + (e^(lambda t) - 1) (l_c - l_u) wherever no token has a probability of alpha
    with the image, else over l_c (paper, section 5.1; Favero et al. 2024). l_c and l_u are
    log-probabilities with and without the image; t is ``t0`` at the first generated token. At t = 0
    the weight is zero, so that an answer of one letter could never change: hence ``t0=1``.

    Args:
        alpha: confidence above which nothing is corrected, in (0, 1].
        t0: t of the first generated token.
        rest: ``lambda``, 0.15 by default; 0 is greedy decoding.
    """
    rate = rest.pop("lambda", 0.15)
    if rest:
        raise TypeError(f"it takes alpha, lambda and t0, not {', '.join(rest)}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is a probability above 0, not {alpha}")
    if rate < 0 or t0 < 0:
        raise ValueError("lambda and t0 are not negative")

    def contrast(l_c: Any, l_u: Any, step: int) -> Any:
        weight = math.expm1(rate * (t0 + step))
        unsure = l_c.amax(dim=-1, keepdim=True) < math.log(alpha)
        # A token that is impossible with the image stays so (and inf - inf is no number).
        corrected = l_c + weight * (l_c - l_u.clamp_min(-1e4))
        return corrected.where(unsure & l_c.isfinite(), l_c)

    return {**greedy(), "without_image": contrast}


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

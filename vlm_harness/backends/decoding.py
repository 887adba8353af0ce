"""Decodings: how text is drawn from a model's logits.

A decoding is a function of its arguments that gives the keyword arguments of ``generate``:
``--decoding NAME:k=v,...`` calls it with k=v. One argument is not ``generate``'s own: under
``without_image``, a function of log-probabilities with and without the image (``Contrast``), for
which the backend carries a second branch of the same text without its image.
"""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from keyword import iskeyword
from typing import Any

from vlm_harness.errors import InputError, not_found
from vlm_harness.plugins import Plugins
from vlm_harness.specs.yamlfile import scalar

Decoding = Callable[..., Mapping[str, Any]]
Contrast = Callable[[Any, Any, int], Any]
"""(log-probabilities with the image, those without it, number of the step from 0) to scores.

Tensors of (rows, vocabulary), natural log.
"""

DECODINGS: Plugins[Decoding] = Plugins(
    "decoding",
    "vlm_harness.decodings",
    {
        "greedy": "vlm_harness.backends.decoding:greedy",
        "m3id": "vlm_harness.backends.decoding:m3id",
    },
)


def greedy() -> Mapping[str, Any]:
    """The most probable token at every step (paper, appendix A)."""
    return {"do_sample": False, "num_beams": 1}


def m3id(alpha: float = 0.6, lambda_: float = 0.15, t0: int = 1) -> Mapping[str, Any]:
    """Multi-modal mutual-information decoding: what the image adds, more at every step.

    Greedy over l_c + (e^(lambda t) - 1) (l_c - l_u) wherever no token has a probability of alpha
    with the image, else over l_c (paper, section 5.1; Favero et al. 2024). l_c and l_u are
    log-probabilities with and without the image; t is ``t0`` at the first generated token. At t = 0
    the weight is zero, so that an answer of one letter could never change: hence ``t0=1``.

    Args:
        alpha: confidence above which nothing is corrected, in (0, 1].
        lambda_: written ``lambda``; 0 is greedy decoding.
        t0: t of the first generated token.
    """
    if not _is_number(alpha) or not 0 < alpha <= 1:
        raise ValueError(f"alpha is a number above 0 and up to 1, not {alpha!r}")
    if not _is_number(lambda_) or not 0 <= lambda_ < math.inf:
        raise ValueError(f"lambda is a number from 0, not {lambda_!r}")
    if type(t0) is not int or t0 < 0:
        raise ValueError(f"t0 is a whole number from 0, not {t0!r}")

    def contrast(l_c: Any, l_u: Any, step: int) -> Any:
        # Far beyond e^60 float32 ends; by then l_c - l_u alone decides.
        weight = math.expm1(min(60.0, lambda_ * (t0 + step)))
        unsure = l_c.amax(dim=-1, keepdim=True) < math.log(alpha)
        # A token that is impossible with the image stays so (and inf - inf is no number).
        corrected = l_c + weight * (l_c - l_u.clamp_min(-1e4))
        return corrected.where(unsure & l_c.isfinite(), l_c)

    return {**greedy(), "without_image": contrast}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """``name:k=v,...`` to name and arguments.

    Raises:
        InputError: unknown name, or arguments that the decoding does not take.
    """
    name, _, rest = text.partition(":")
    function = DECODINGS.get(name, "--decoding")
    # ``lambda`` is no name for an argument in Python.
    arguments = {
        f"{key}_" if iskeyword(key) else key: value
        for key, value in (key_values(rest, "--decoding") if rest else {}).items()
    }
    known = {key.rstrip("_") for key in signature(function).parameters}
    for key in arguments:
        if key.rstrip("_") not in known:
            raise not_found(
                f"decoding {name}: there is no argument {key.rstrip('_')!r}",
                key.rstrip("_"),
                known,
                where="--decoding",
                hint="It takes: {}.",
            )
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"decoding {name}: {error}", where="--decoding") from None
    return name, arguments


def canonical(text: str) -> str:
    """A decoding as logs and results name it: one spelling, without what is the default.

    Raises:
        InputError: as ``parse``.
    """
    name, arguments = parse(text)
    said = [
        f"{key.rstrip('_')}={arguments[key]}"
        for key, parameter in signature(DECODINGS.get(name)).parameters.items()
        if key in arguments and arguments[key] != parameter.default
    ]
    return f"{name}:{','.join(said)}" if said else name


def key_values(text: str, where: str) -> dict[str, Any]:
    """``k=v,k=v`` to a mapping; values are read as YAML scalars."""
    found: dict[str, Any] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InputError(f"expected key=value, found {part!r}", where=where)
        found[key.strip()] = scalar(value) if value.strip() else ""
    return found

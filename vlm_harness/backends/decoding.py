"""Decodings: how text is generated from a model's logits.

A decoding is a function that returns keyword arguments for ``generate``; ``--decoding
NAME:k=v,...`` calls it with k=v. One key is not an argument of ``generate``: ``without_image``
holds a function of the log-probabilities with and without the image (``Contrast``). For it, the
backend also decodes the same prompt without its image.
"""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from keyword import iskeyword
from typing import Any

from vlm_harness.errors import InputError, not_found
from vlm_harness.plugins import Plugins
from vlm_harness.specs.arguments import key_values

Decoding = Callable[..., Mapping[str, Any]]
Contrast = Callable[[Any, Any, int], Any]
"""(log-probabilities with the image, log-probabilities without it, step from 0) to scores.

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
    """M3ID: favours tokens that depend on the image, increasingly at each step.

    Multi-modal mutual-information decoding. If no token reaches probability alpha with the image,
    greedy decoding over l_c + (e^(lambda t) - 1) (l_c - l_u); otherwise over l_c (paper, section
    5.1; Favero et al. 2024). l_c and l_u are log-probabilities with and without the image; t is
    ``t0`` at the first generated token. At t = 0 the weight is zero, so a one-letter answer could
    never change: hence ``t0=1``.

    Args:
        alpha: confidence from which nothing is corrected, in (0, 1].
        lambda_: written ``lambda`` on the command line; 0 is greedy decoding.
        t0: t of the first generated token.
    """
    if not _is_number(alpha) or not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha!r}")
    if not _is_number(lambda_) or not 0 <= lambda_ < math.inf:
        raise ValueError(f"lambda must be a finite number >= 0, got {lambda_!r}")
    if type(t0) is not int or t0 < 0:
        raise ValueError(f"t0 must be an integer >= 0, got {t0!r}")

    def contrast(l_c: Any, l_u: Any, step: int) -> Any:
        # Capped to stay within float32; beyond e^60, l_c - l_u alone decides.
        weight = math.expm1(min(60.0, lambda_ * (t0 + step)))
        unsure = l_c.amax(dim=-1, keepdim=True) < math.log(alpha)
        # A token that is impossible with the image stays impossible (and inf - inf is NaN).
        corrected = l_c + weight * (l_c - l_u.clamp_min(-1e4))
        return corrected.where(unsure & l_c.isfinite(), l_c)

    return {**greedy(), "without_image": contrast}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name:k=v,...`` into name and arguments.

    Raises:
        InputError: unknown name, or arguments that the decoding does not accept.
    """
    name, _, rest = text.partition(":")
    function = DECODINGS.get(name, "--decoding")
    # ``lambda`` is a keyword of Python, so the parameter is called ``lambda_``.
    arguments = {
        f"{key}_" if iskeyword(key) else key: value
        for key, value in (key_values(rest, "--decoding") if rest else {}).items()
    }
    known = {key.rstrip("_") for key in signature(function).parameters}
    for key in arguments:
        if key.rstrip("_") not in known:
            raise not_found(
                f"decoding {name} has no argument {key.rstrip('_')!r}",
                key.rstrip("_"),
                known,
                where="--decoding",
                hint="Arguments: {}",
            )
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"decoding {name}: {error}", where="--decoding") from None
    return name, arguments


def canonical(text: str) -> str:
    """The spelling used in logs and results: arguments in a fixed order, defaults left out.

    Raises:
        InputError: as ``parse``.
    """
    name, arguments = parse(text)
    arguments_given = [
        f"{key.rstrip('_')}={arguments[key]}"
        for key, parameter in signature(DECODINGS.get(name)).parameters.items()
        if key in arguments and arguments[key] != parameter.default
    ]
    return f"{name}:{','.join(arguments_given)}" if arguments_given else name

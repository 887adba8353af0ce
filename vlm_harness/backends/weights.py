"""Whether the weights of a checkpoint are those of its model: none missing, none left over.

Libraries initialise missing weights at random, and ignore those that the model does not have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_harness.backends.adapters import adapter_weights, how_to_merge
from vlm_harness.errors import InputError, listing
from vlm_harness.specs.schemas import ModelSpec

MOST_NAMES = 20
"""Maximum number of weights that a message or the manifest names."""


@dataclass(frozen=True)
class Weights:
    """How the weights of a checkpoint differ from those of its model."""

    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    """Weights whose shape differs, as ``name (shape in the checkpoint, shape in the model)``."""
    unexpected: tuple[str, ...] = ()
    """Weights that the model does not have."""

    def check(self, spec: ModelSpec) -> None:
        """
        Raises:
            InputError: weights are missing, have a different shape, or belong to an adapter.
        """
        where = spec.at("checkpoint") if spec.path else None
        if adapter := adapter_weights(self.unexpected):
            raise InputError(
                f"model {spec.model}: the checkpoint contains an adapter, which cannot be loaded: "
                f"{listing(adapter, 5)}",
                where=where,
                hint=how_to_merge(spec.checkpoint),
            )
        problems = [
            f"{text} ({len(names)}): {listing(names, MOST_NAMES)}"
            for names, text in (
                (self.missing, "weights missing from the checkpoint"),
                (self.mismatched, "weights of a different shape in the checkpoint"),
            )
            if names
        ]
        if problems:
            raise InputError(
                f"model {spec.model}: {'; '.join(problems)}",
                where=where,
                hint="They would be initialised at random. Save the complete model again, or load "
                "the checkpoint with the\nconfiguration (and the library version) it was saved "
                "with.",
            )

    @property
    def details(self) -> Mapping[str, Any]:
        """The unexpected weights, for the manifest."""
        if not self.unexpected:
            return {}
        names = sorted(self.unexpected)[:MOST_NAMES]
        return {"unexpected_weights": {"n": len(self.unexpected), "names": names}}

    @property
    def notes(self) -> list[str]:
        if not self.unexpected:
            return []
        return [
            f"weights of the checkpoint that the model does not have ({len(self.unexpected)}): "
            f"{listing(self.unexpected, 5)}"
        ]


def shape_text(name: str, checkpoint: Iterable[int], model: Iterable[int]) -> str:
    """A mismatched weight, as ``Weights.mismatched`` holds it."""
    shapes = ("x".join(map(str, shape)) or "scalar" for shape in (checkpoint, model))
    return f"{name} ({', not '.join(shapes)})"


def trained(model: Any, names: Iterable[str]) -> tuple[str, ...]:
    """The names of trained weights. Buffers of integers, such as position ids, are computed."""
    buffers = dict(model.named_buffers())
    return tuple(name for name in names if name not in buffers or buffers[name].is_floating_point())

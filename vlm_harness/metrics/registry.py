"""Metrics by name: built-in, from other packages, and modules of the library ``evaluate``."""

from collections.abc import Sequence
from typing import Any

from vlm_harness.errors import InputError
from vlm_harness.metrics import hf_evaluate
from vlm_harness.metrics.hf_evaluate import EVALUATE
from vlm_harness.metrics.metric import Metric, Record
from vlm_harness.metrics.stats import Units
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import GroupRules


class Metrics(Plugins[Metric]):
    """Built-in and installed metrics, and modules of ``evaluate`` as ``evaluate:NAME``."""

    def check(self, name: str, where: object = None) -> None:
        if not name.startswith(EVALUATE):
            super().check(name, where)

    def declared(self, name: str) -> Metric:
        """The declaration of a metric, to format its values.

        Results can contain metrics of a package that is not installed here. These are treated as
        plain numbers without unit and direction, as are the modules of ``evaluate``.
        """
        if name not in self:
            return _undeclared(name, _not_installed)
        return self.get(name)

    def _load(self, name: str) -> Any:
        if name.startswith(EVALUATE):
            return _undeclared(name, hf_evaluate.metric(name))
        found = super()._load(name)
        return found if isinstance(found, Metric) else _undeclared(name, found)


def _undeclared(name: str, compute: Any) -> Metric:
    """A metric for a function without declaration: plain numbers without direction."""
    return Metric(compute, title=name.replace("_", " "), short=name)


def _not_installed(records: Sequence[Record], rules: GroupRules) -> Units:
    raise InputError("the metric is not installed")


METRICS = Metrics(
    "metric",
    "vlm_harness.metrics",
    {
        "individual_accuracy": "vlm_harness.metrics.accuracy:individual_accuracy",
        "pair_accuracy": "vlm_harness.metrics.accuracy:pair_accuracy",
        "set_accuracy": "vlm_harness.metrics.accuracy:set_accuracy",
        "relaxed_pair_accuracy": "vlm_harness.metrics.matches:relaxed_pair_accuracy",
        "relaxed_pair_accuracy_sum": "vlm_harness.metrics.matches:relaxed_pair_accuracy_sum",
        "text_to_image_accuracy": "vlm_harness.metrics.matches:text_to_image_accuracy",
        "text_to_image_pair_accuracy": "vlm_harness.metrics.matches:text_to_image_pair_accuracy",
        "group_accuracy": "vlm_harness.metrics.matches:group_accuracy",
        "two_way_accuracy": "vlm_harness.metrics.matches:two_way_accuracy",
        "two_way_pair_accuracy": "vlm_harness.metrics.matches:two_way_pair_accuracy",
        "f1": "vlm_harness.metrics.yes_no:f1",
        "precision": "vlm_harness.metrics.yes_no:precision",
        "recall": "vlm_harness.metrics.yes_no:recall",
        "yes_ratio": "vlm_harness.metrics.yes_no:yes_ratio",
        "mean_pair_cosine": "vlm_harness.metrics.cosine:mean_pair_cosine",
        "whatsup_official_pair_accuracy": "vlm_harness.metrics.whatsup:official_pair_accuracy",
        "whatsup_official_set_accuracy": "vlm_harness.metrics.whatsup:official_set_accuracy",
    },
)

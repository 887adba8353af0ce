"""Task, model, prompt and run specifications: schemas, validation, registry, templates."""

from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import DatasetSpec, GroupRules, ModelSpec, RunConfig, TaskSpec
from vlm_harness.specs.spec import Spec

__all__ = ["DatasetSpec", "GroupRules", "ModelSpec", "Registry", "RunConfig", "Spec", "TaskSpec"]

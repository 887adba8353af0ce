"""Protocols: how a model is queried, and which part of its response is scored."""

from vlm_harness.protocols.extractors import EXTRACTORS
from vlm_harness.protocols.protocol import PROTOCOLS, EvaluationProtocol, answer
from vlm_harness.protocols.reading import Extraction

__all__ = ["EXTRACTORS", "PROTOCOLS", "EvaluationProtocol", "Extraction", "answer"]

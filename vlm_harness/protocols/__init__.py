"""Protocols: how a model is queried, and which part of its response is scored."""

from vlm_harness.protocols.protocol import PROTOCOLS, EvaluationProtocol, answer

__all__ = ["PROTOCOLS", "EvaluationProtocol", "answer"]

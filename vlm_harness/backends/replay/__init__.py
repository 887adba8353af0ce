"""Recorded answers, joined to samples on declared keys.

A missing answer is not counted as incorrect: no line is logged for the sample, and the run stays
incomplete.
"""

from vlm_harness.backends.family import Family
from vlm_harness.backends.replay.recording import ReplayArgs

FAMILY = Family(
    summary="recorded answers from JSON, JSONL or CSV, joined on declared keys; needs no images",
    provides=frozenset({"generate", "score", "similarity"}),
    factory="vlm_harness.backends.replay.backend:Replay",
    args=ReplayArgs,
    reads_images=False,
    default_batch=1024,
    checker="vlm_harness.backends.replay.recording:read",
    locator="vlm_harness.backends.replay.recording:path_of",
    recorded="vlm_harness.backends.replay.recording:kinds",
    verifier="vlm_harness.backends.replay.verify:verify",
    answers="recorded",
)

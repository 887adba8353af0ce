"""A second toy task, and a group with scores of both."""

from pathlib import Path

from helpers.bench import TASK

GROUP = """\
group: toys
description: Two toy tasks.
aggregates:
  - {name: mean_accuracy, of: individual_accuracy}
  - {name: total, of: [individual_accuracy, pair_accuracy], how: sum}
"""


def add_group(bench: Path, text: str = GROUP) -> Path:
    """Add the task ``sides2`` and the group ``toys`` to the toy benchmark; the group's file."""
    (bench / "specs" / "sides2.yaml").write_text(TASK.replace("task: sides", "task: sides2"))
    path = bench / "specs" / "toys.group.yaml"
    path.write_text(text)
    return path

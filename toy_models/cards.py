"""Model cards with the scores of the saved checkpoints, evaluated with the harness."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.registry import Registry
from vlm_harness.types import Estimate, ResultRow

TASKS = ["whatsup_rendered"]
EXCHANGED = "names_exchanged"
OWN_TASKS = Path(__file__).parent / "tasks"
ABOUT = {
    "tiny-clip": """\
A small CLIP-like dual encoder (transformers `CLIPModel`) that runs on any laptop. It was trained on
captions like those found on the web: they name the objects but, except for 1 in 50, not how they
are arranged.""",
    "tiny-clip-control": """\
The control for tiny-clip: same images, steps and seed, but every caption states the relation. It
addresses the question of section 4.2 of the paper: does training data explain why a dual encoder
cannot tell the images of a pair apart?""",
    "tiny-llava": """\
A small generative VLM with the architecture of LLaVA-1.5 (transformers
`LlavaForConditionalGeneration`): the vision tower of tiny-clip, unchanged and frozen, a two-layer
MLP, and a three-layer Llama that has only seen rendered rooms. It was trained on the benchmark's
questions (same wording), on captions, and on questions about colours and positions, all with object
pairs that do not occur in the benchmark.""",
}
TAGS = {
    "tiny-clip": "zero-shot-image-classification",
    "tiny-clip-control": "zero-shot-image-classification",
    "tiny-llava": "image-text-to-text",
}


@dataclass(frozen=True)
class Facts:
    seed: int
    scenes: int
    images_sha256: str
    clip_steps: int
    llava_steps: int
    seconds: Mapping[str, float]


def write(folder: Path, facts: Facts) -> None:
    """Evaluate the three checkpoints in a folder and write a README.md for each."""
    registry = Registry.standard()
    specs = [
        registry.model(name).model_copy(update={"checkpoint": str(folder / name)}) for name in ABOUT
    ]
    options: dict[str, Any] = {"tasks": [*TASKS, EXCHANGED], "include_path": [str(OWN_TASKS)]}
    with tempfile.TemporaryDirectory() as runs:
        results = evaluate(specs, **options, output_dir=runs).results
        llava = [spec for spec in specs if spec.model == "tiny-llava"]
        results += evaluate(llava, TASKS, protocol=["choice"], output_dir=runs).results
    for name in ABOUT:
        rows = [row for row in results if row.model == name]
        (folder / name / "README.md").write_text(card(name, rows, facts), encoding="utf-8")
        print(f"\n{name}\n{table(rows)}", flush=True)


def card(name: str, rows: Sequence[ResultRow], facts: Facts) -> str:
    steps = facts.llava_steps if name == "tiny-llava" else facts.clip_steps
    lettered = [row for row in rows if row.protocol == "choice"]
    exchanged = [row for row in rows if row.task.startswith(EXCHANGED)]
    plain = [row for row in rows if row not in lettered and row not in exchanged]
    minutes, rendering = facts.seconds[name] / 60, facts.seconds["data"] / 60
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: {TAGS[name]}
---
# {name}

{ABOUT[name]}

**What it is not**: evidence about real models. It is a toy model that demonstrates an effect and
tests the pipeline: it has seen only this project's rendered images and knows only the words used
for them. In these images, the first object is placed around the second, which does not move, so
their relation can be inferred without knowing which object is which.

| | |
|---|---|
| data | {facts.scenes:,} rendered scenes with four relations each, from the train split only |
| SHA-256 of the images | `{facts.images_sha256}` |
| steps | {steps:,} |
| seed | {facts.seed} |
| time | {minutes:.0f} minutes on 2 CPU cores, plus {rendering:.0f} minutes of rendering |
| weights | float16 on disk; evaluated in float32 |

Object pairs of the train split occur in neither the validation nor the test split. To train the
model again, run `make train-tiny`. Machines and library versions differ in rounding, so the weights
will differ, and the scores slightly.

## Scores

On the test split, in percent, with 95% intervals over pairs (four-way: over sets). Protocol
`{plain[0].protocol}`: `vlm-harness --model {name} --tasks {",".join(TASKS)}`

{table(plain)}
{_section("Options by letter (`--protocol choice`)", lettered)}{_section(NAMES, exchanged)}"""


NAMES = """\
The same images with the two names exchanged in question, captions and answer (toy_models/tasks). A
model that tells the two objects apart answers these as well as those above. A model that only
learned where the first-named object is, given that the second is always in the middle, answers all
of them incorrectly"""


def _section(heading: str, rows: Sequence[ResultRow]) -> str:
    return f"\n{heading}:\n\n{table(rows)}\n" if rows else ""


def table(rows: Sequence[ResultRow]) -> str:
    lines = [
        "| task | individual | pair | set of four | mean pair cosine |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        metrics = row.metrics
        cells = [
            _percent(metrics.get(metric))
            for metric in ("individual_accuracy", "pair_accuracy", "set_accuracy")
        ]
        cosine = metrics["mean_pair_cosine"].value
        cells.append("" if cosine is None else f"{cosine:.3f}")
        lines.append(f"| {row.task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(metric: Estimate | None) -> str:
    if metric is None or metric.value is None or metric.ci_low is None or metric.ci_high is None:
        return ""
    return f"{100 * metric.value:.1f} ({100 * metric.ci_low:.0f}-{100 * metric.ci_high:.0f})"

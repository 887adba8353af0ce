"""A page with samples: the common part of reports and comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_harness.analysis import agreement
from vlm_harness.errors import InputError
from vlm_harness.files import write_bytes
from vlm_harness.logs.run import Run
from vlm_harness.report import templating as html
from vlm_harness.report import thumbnails
from vlm_harness.report.gallery import Answers, collect
from vlm_harness.report.thumbnails import NO_ROOM, Thumbnails

Data = dict[str, Any]
Measure = Callable[[Any], list[agreement.Similarity]]
MB = 1_000_000


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        max_size: maximum size of the page in MB. Images are scaled down to fit, and left out if
            they still do not fit.
        image_size: maximum length of an image's longer side in pixels; 0 for no images.
        measure: source of pair cosine similarities, as for ``agreement.analyse``.
        progress: called for each thumbnail made.
    """

    tasks: Sequence[str] = ()
    data_dir: str | None = None
    max_size: float = 50
    image_size: int = 320
    threshold: float = 0.95
    measure: Measure = agreement.from_log
    progress: thumbnails.Progress = lambda done, total: None


@dataclass(frozen=True)
class Written:
    """A page on disk."""

    path: Path
    n_bytes: int
    n_samples: int
    n_images: int
    image_size: int
    notes: Sequence[str]

    def __str__(self) -> str:
        images = f"{self.n_images:,} images of at most {self.image_size} px"
        return (
            f"{self.path} ({self.n_bytes / MB:.1f} MB: {self.n_samples:,} samples, "
            f"{images if self.n_images else 'no images'})"
        )


def write_page(
    template: str,
    path: Path,
    answers: Sequence[Answers],
    options: Options,
    *,
    charts: Data,
    comparison: bool = False,
    **context: Any,
) -> Written:
    """Write a page with the samples of some cells, of at most ``options.max_size`` MB.

    Raises:
        InputError: the page would be too large even without images, or cannot be written.
    """
    most = int(options.max_size * MB)
    gallery = collect(answers, options.data_dir)

    def page(images: Thumbnails) -> bytes:
        data = {
            "comparison": comparison,
            "chunk": thumbnails.CHUNK,
            "charts": charts,
            "tasks": gallery.tasks,
            "images": images.entries,
        }
        images_note = (
            f"{images.n} images of at most {images.size} px." if images.n else "No images."
        )
        return html.render(
            template,
            (*html.SCRIPTS, "gallery.js", "report.js"),
            data,
            images.chunks,
            styles=["gallery.css"],
            chart_names=charts.keys(),
            gallery_notes=gallery.notes,
            images_note=images_note,
            **context,
        ).encode()

    no_images = Thumbnails(
        0, [], [{"path": image.path, "note": NO_ROOM} for image in gallery.shown]
    )
    content = page(no_images)
    room = most - len(content) - 20_000
    if room < 0:
        raise InputError(
            f"the page is {len(content) / MB:.1f} MB without images; the limit is "
            f"{options.max_size:g} MB",
            where="--max-size",
            hint="Raise the limit, or choose fewer tasks with --task.",
        )
    images = no_images
    if options.image_size:
        images = thumbnails.make(
            gallery.shown, gallery.refs, room, options.image_size, options.progress
        )
        content = page(images)
    write_bytes(path, content)
    notes = [*context["notes"], *gallery.notes]
    return Written(path, len(content), gallery.n_samples, images.n, images.size, notes)


def is_verified(run: Run, model: str) -> bool:
    """Whether the project has run the model's checkpoint name and revision, according to its spec.

    The spec is that of the manifest; manifests without the key count as verified.
    """
    return run.manifest.identity.models.get(model, {}).get("verified", True) is not False


def facts(run: Run) -> Data:
    """What the manifest records about a run, as text."""
    manifest = run.manifest
    environment = manifest.environment
    cores = environment.cpu_count
    hardware = environment.gpus or ([f"{cores} CPU cores"] if cores else [])
    found = {
        "finished": manifest.finished or "not yet",
        "vlm-harness": _joined(" ", manifest.vlm_harness, "commit", environment.git_commit),
        "hardware": _joined(", ", *hardware, environment.platform),
        "seed": manifest.identity.seed,
        "identity": manifest.identity_sha256,
        "libraries": ", ".join(
            f"{name} {version}" for name, version in environment.packages.items()
        ),
    }
    for name, model in manifest.models.items():
        size = model.parameters
        found[name] = _joined(
            ", ",
            model.checkpoint,
            model.revision,
            model.dtype,
            model.device,
            f"{size / 1e6:,.1f} million parameters" if size else None,
        )
    return {
        "name": run.name,
        "command_line": manifest.command_line,
        "facts": {name: value for name, value in found.items() if value not in ("", None)},
        "unverified": [name for name in manifest.models if not is_verified(run, name)],
    }


def _joined(separator: str, *parts: object) -> str:
    return separator.join(str(part) for part in parts if part)

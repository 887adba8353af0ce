"""The leaderboard for others to see: a Space or a data set of the hub, or a folder of files.

What was published is listed in a file beside it, so that only that is ever replaced.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vlm_harness.errors import InputError, listing
from vlm_harness.files import from_json, to_json, write_bytes, write_json, write_text
from vlm_harness.leaderboard.entry import Entry, dump, rows
from vlm_harness.leaderboard.site import build
from vlm_harness.paths import leaves
from vlm_harness.published.rows import PublishedRow
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import HUB_NAME

MARKER = ".leaderboard.json"
"""Lists what was published, itself included."""
KEPT = (".git", "CNAME")
"""What GitHub Pages needs of a folder that is published from."""
TEMPLATE = frozenset({".gitattributes", "README.md", "index.html", "style.css"})
"""What the hub itself puts into a new Space or data set."""

SPACE_CARD = """\
---
title: vlm-harness leaderboard
sdk: static
app_file: index.html
pinned: false
license: apache-2.0
---

Scores of vision-language models on pairs of images that look alike, each with its interval and the
run that it is from. Made by `vlm-harness leaderboard publish`; edits are lost with the next.
"""
DATA_CARD = """\
---
pretty_name: vlm-harness leaderboard
license: apache-2.0
tags:
- vision-language
- evaluation
- leaderboard
configs:
{configs}---

Scores of vision-language models on pairs of images that look alike. Made by `vlm-harness
leaderboard publish`; edits are lost with the next.

One row a metric. Values are fractions (cosines: as they are) with their 95% interval and what a
uniform guess gives; `newest` is false where a later run of the same model says it anew.

| config | holds |
|---|---|
| `results` | runs that were submitted: {n_entries}. The same as JSON in `entries/` |
| `published` | numbers of the paper's tables, as printed |

```python
from datasets import load_dataset

load_dataset("{name}", "published", split="train")
```

What was checked of a submitted run catches mistakes, and is no proof against fraud.
"""


@dataclass(frozen=True)
class Target:
    """Where to."""

    kind: Literal["space", "dataset", "folder"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Content:
    """What is published."""

    entries: Sequence[Entry]
    published: Sequence[PublishedRow]
    registry: Registry
    reports: Path | None = None

    def site(self, output: Path) -> Path:
        """Build the site in a folder."""
        build(output, self.entries, self.published, self.registry, self.reports)
        return output


def parse_target(text: str) -> Target:
    """
    Raises:
        InputError: neither ``space:USER/NAME`` nor ``dataset:USER/NAME`` nor ``folder:PATH``.
    """
    kind, _, name = text.partition(":")
    if kind == "folder" and name:
        return Target("folder", name)
    if kind in ("space", "dataset") and re.match(HUB_NAME, name):
        return Target("space" if kind == "space" else "dataset", name)
    raise InputError(
        f"cannot tell where {text!r} is",
        where="--to",
        hint="It is space:USER/NAME or dataset:USER/NAME of the Hugging Face hub, or folder:PATH.",
    )


# --- what is published ----------------------------------------------------------------------------


def prepare(target: Target, content: Content, place: Path) -> dict[str, Path]:
    """Make the files of a target in an empty folder.

    Returns:
        Each file by its path at the target, in the order of their names.
    """
    if target.kind == "dataset":
        _data_set(target, content, place)
    else:
        content.site(place)
        if target.kind == "space":
            write_text(place / "README.md", SPACE_CARD)
        else:
            write_text(place / ".nojekyll", "")
    files = sorted(_files(place))
    _mark(place, [*files, MARKER])
    return {name: place / name for name in sorted([*files, MARKER])}


def _data_set(target: Target, content: Content, place: Path) -> None:
    (place / "entries").mkdir()
    for entry in content.entries:
        write_text(place / "entries" / entry.file_name, dump(entry))
    tables = {"results": list(_results(content)), "published": list(_published(content))}
    tables = {name: lines for name, lines in tables.items() if lines}  # none can be read of none
    for name, lines in tables.items():
        write_text(place / f"{name}.jsonl", "".join(to_json(line) + "\n" for line in lines))
    configs = [f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in tables]
    card = DATA_CARD.format(
        configs="".join(configs), n_entries=len(content.entries), name=target.name
    )
    write_text(place / "README.md", card)


def _results(content: Content) -> Iterator[dict[str, Any]]:
    for row in rows(content.entries):
        plain = row.result.model_dump(mode="json", exclude={"metrics"})
        model, run = row.entry.plain()["model"], row.entry.plain()["run"]
        for name, metric in row.result.metrics.items():
            if metric.value is not None:
                yield {
                    **{"model" if key == "name" else key: value for key, value in model.items()},
                    **plain,
                    "metric": name,
                    "primary": name == row.result.primary_metric,
                    **metric.model_dump(mode="json"),
                    "newest": row.newest,
                    **{"run" if key == "id" else key: value for key, value in run.items()},
                }


def _published(content: Content) -> Iterator[dict[str, Any]]:
    for row in content.published:
        plain = asdict(row)
        values = plain.pop("values")
        for metric, value in values.items():
            yield {**plain, "metric": metric, "value": value}


def _files(folder: Path) -> Iterator[str]:
    """Paths below a folder; of a link, the link."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


# --- what may be replaced -------------------------------------------------------------------------


def _mark(folder: Path, files: Iterable[str]) -> None:
    write_json(folder / MARKER, {"schema": 1, "files": sorted(set(files))})


def _marked(path: Path) -> set[str]:
    """The files that an earlier publishing wrote."""
    try:
        found = from_json(path.read_bytes())["files"]
        names = {str(name) for name in found}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            "it does not list what was published",
            where=path,
            hint="It was changed or damaged. Empty the target, and publish again.",
        ) from None
    return {name for name in names if not leaves(name)}


def _stale(
    target: Target, there: set[str], earlier: set[str] | None, new: Iterable[str]
) -> list[str]:
    """What of an earlier publishing goes.

    Raises:
        InputError: files of somebody else are there, or would be replaced.
    """
    strangers = there - (earlier or set())
    if earlier is None and strangers:
        raise InputError(
            f"it holds files that no `leaderboard publish` wrote: {listing(strangers, 5)}",
            where=target,
            hint="Choose another target, or empty it.",
        )
    new = set(new)
    above = {str(parent) for name in new for parent in PurePosixPath(name).parents}
    if clash := strangers & (new | above):
        raise InputError(
            f"files would be replaced that no `leaderboard publish` wrote: {listing(clash, 5)}",
            where=target,
            hint="Move them elsewhere, and publish again.",
        )
    return sorted((earlier or set()) & there - new)


# --- publishing -----------------------------------------------------------------------------------


def publish(target: Target, files: dict[str, Path], private: bool = False) -> str:
    """Bring files to a target; returns its address.

    Raises:
        InputError: it holds what somebody else wrote, nobody is logged in, no network.
    """
    if target.kind == "folder":
        return _to_folder(target, files)
    return _to_hub(target, files, private)


def _to_folder(target: Target, files: dict[str, Path]) -> str:
    folder = Path(target.name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError("it is no folder", where=folder)
    marker = folder / MARKER
    earlier = _marked(marker) | {MARKER} if marker.is_file() else None
    there = {name for name in _files(folder) if name.split("/")[0] not in KEPT}
    stale = _stale(target, there, earlier, files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Listed before they are there, so that one that was interrupted can be done again.
        _mark(folder, {*files, *(earlier or ())})
        for name, path in files.items():
            if name != MARKER:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(folder / name, path.read_bytes())
        for name in stale:
            (folder / name).unlink()
            _remove_empty((folder / name).parent, folder)
        _mark(folder, files)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=folder) from None
    return str(folder)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _to_hub(target: Target, files: dict[str, Path], private: bool) -> str:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise InputError("nobody is logged in to the Hugging Face hub", where=target, hint=LOGIN)
    try:
        return _upload(HfApi(library_name="vlm-harness"), target, files, private)
    except InputError:
        raise
    # What a hub that cannot be reached raises depends on the HTTP library underneath.
    except Exception as error:
        raise _refused(target, error) from None


LOGIN = (
    "Log in with `hf auth login`, or set HF_TOKEN: a token that may write, of "
    "https://huggingface.co/settings/tokens."
)


def _upload(api: Any, target: Target, files: dict[str, Path], private: bool) -> str:
    about = {"repo_id": target.name, "repo_type": target.kind}
    # Only what is made now is made private: what is there stays as its owner has it.
    sdk = {"space_sdk": "static"} if target.kind == "space" else {}
    url = api.create_repo(**about, private=private or None, exist_ok=True, **sdk)
    there = set(api.list_repo_files(**about))
    earlier = None
    if MARKER in there:
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(**about, filename=MARKER, local_dir=folder)
            earlier = _marked(Path(path)) | {MARKER}
    stale = _stale(target, there - TEMPLATE, earlier, files)
    api.upload_folder(
        **about,
        folder_path=_root(files),
        delete_patterns=[re.sub(r"([*?[])", r"[\1]", name) for name in stale] or None,
        commit_message="vlm-harness leaderboard publish",
    )
    return str(url)


def _root(files: dict[str, Path]) -> Path:
    """The folder that ``prepare`` made them in."""
    return files[MARKER].parent


def _refused(target: Target, error: Exception) -> InputError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if status == 401:
        return InputError("the hub does not take the token", where=target, hint=LOGIN)
    if status == 403:
        return InputError(
            "the hub does not let you write there",
            where=target,
            hint="The token must be one that may write, and the owner you or an organisation of "
            "yours.",
        )
    if status is not None:
        return InputError(f"the hub refused it ({status}): {reason}", where=target)
    return InputError(
        f"the hub cannot be reached ({type(error).__name__}: {reason})",
        where=target,
        hint="--to folder:PATH writes the files of a site, which can be uploaded from elsewhere.",
    )

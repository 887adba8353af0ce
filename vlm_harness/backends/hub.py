"""Repositories of the Hugging Face Hub: whether they can be read, and at which commit.

Needs neither torch nor transformers.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlm_harness.backends.adapters import CONFIG, refuse_adapter, refuse_adapter_in
from vlm_harness.errors import InputError

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository from which a model, or its processor or tokenizer, is loaded."""

    name: str
    revision: str | None = None
    """Commit, branch or tag; None for the default branch."""
    filename: str = "config.json"
    """A file that it must have."""
    cache_dir: str | None = None
    """The cache of downloads, if it is not the default one."""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which always has the same content."""
        return _COMMIT.fullmatch(self.revision or "") is not None


def check(model: str, repository: Repository) -> None:
    """Check that a repository is cached or reachable, and is not an adapter.

    Raises:
        InputError: it is neither cached nor reachable, or it contains an adapter.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, revision = repository.name, repository.revision
    try:
        for filename in (repository.filename, CONFIG):
            cached = try_to_load_from_cache(
                repo, filename, cache_dir=repository.cache_dir, revision=revision
            )
            if isinstance(cached, str):
                refuse_adapter_in(Path(cached).parent, name=repo)
                return
        # A single short request: without network, a download would retry for half a minute.
        found = HfApi().model_info(repo, revision=revision, timeout=10)
    except GatedRepoError:
        raise InputError(
            f"model {model}: the checkpoint {repo!r} requires accepting its licence",
            hint=f"Accept it on https://huggingface.co/{repo}, then run `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model {model}: the hub has no checkpoint {repo!r}"
            + (f" at revision {revision}" if revision else ""),
            hint=str(error).strip().splitlines()[0],
        ) from None
    except InputError:
        raise
    # The exception for an unreachable hub depends on the HTTP library underneath.
    except Exception as error:
        raise InputError(
            f"model {model}: the weights {repo!r} are not on this machine and the hub cannot be "
            f"reached ({type(error).__name__})",
            hint=(
                f"On a machine with network access, run `hf download {repo}"
                + (f" --revision {revision}" if revision else "")
                + f" --local-dir {repo.split('/')[-1]}`,\n"
                f"copy that folder here, and pass --model {model} --model-args "
                "checkpoint=FOLDER\n(or set HF_HOME to a cache that contains it). "
                "For a model that needs no download, use tiny-clip\nor tiny-llava."
            ),
        ) from None
    refuse_adapter(repo, [each.rfilename for each in found.siblings or ()])


def commits(repositories: Iterable[Repository]) -> dict[str, str]:
    """The commits of repositories for which no commit is given, by name.

    If the hub cannot be reached, these are the cached commits, as for the libraries that load the
    models. A repository whose commit is unknown is left out.
    """
    found = {each.name: _commit(each) for each in repositories if not each.pinned}
    return {name: commit for name, commit in found.items() if commit is not None}


def _commit(repository: Repository) -> str | None:
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository.name, revision=repository.revision, timeout=10)
    # The exception for an unreachable hub depends on the HTTP library underneath.
    except Exception:
        return _cached_commit(repository)
    return info.sha


def cached_commits(repositories: Iterable[Repository]) -> dict[str, str]:
    """As ``commits``, but always the cached ones: after loading, those that were loaded."""
    found = {each.name: _cached_commit(each) for each in repositories if not each.pinned}
    return {name: commit for name, commit in found.items() if commit is not None}


def _cached_commit(repository: Repository) -> str | None:
    """The commit to which the cache maps the revision; None if it is not cached."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository.name, repo_type="model")
    cache = Path(repository.cache_dir or constants.HF_HUB_CACHE).expanduser()
    ref = cache / folder / "refs" / (repository.revision or constants.DEFAULT_REVISION)
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
    return commit if _COMMIT.fullmatch(commit) else None

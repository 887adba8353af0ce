"""``vlm-harness cache``: answers of earlier runs, for reuse in other runs."""

from collections.abc import Mapping
from typing import Any

import click
from click import Context

from vlm_harness.cli.common import echo_json, say


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def cache(ctx: Context, as_json: bool) -> None:
    """Show the path, size and contents of the cache that `run --cache` fills."""
    if ctx.invoked_subcommand is not None:
        return
    from vlm_harness.runs.cache import Cache, cache_file

    path = cache_file()
    if not path.exists():
        entries, size = {}, 0
    else:
        opened = Cache(path)
        entries, size = opened.by_model(), opened.size()
        opened.close()
    if as_json:
        echo_json({"path": str(path), "bytes": size, "entries": entries})
        return
    say(f"{path}: {_megabytes(size)}")
    for model, n in entries.items():
        say(f"  {model}: {n} cached answers and embeddings")
    if not entries:
        say("The cache is empty. `vlm-harness run --cache` fills it.")


@cache.command()
@click.option("--model", help="Delete only the answers of this model.")
def clear(model: str | None) -> None:
    """Delete cached answers and embeddings."""
    from vlm_harness.errors import not_found
    from vlm_harness.runs.cache import Cache, cache_file

    path = cache_file()
    if not path.exists():
        say(f"{path}: the cache is empty")
        return
    opened = Cache(path)
    known = opened.by_model()
    if model is not None and model not in known:
        raise not_found(
            f"the cache has no answers of model {model!r}", model, known, where="--model"
        )
    dropped = opened.clear(model)
    opened.close()
    say(f"{path}: {dropped} cached answers and embeddings deleted")


def describe_use(use: Mapping[str, Any]) -> str:
    """One line on how a run used the cache."""
    share = f" ({use['known'] / use['asked']:.0%})" if use["asked"] else ""
    return (
        f"{use['known']} of {use['asked']} answers{share} came from the cache; "
        f"{_megabytes(use['bytes'])} in {use['path']}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

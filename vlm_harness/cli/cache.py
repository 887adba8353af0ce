"""``vlm-harness cache``: what models answered before, kept for other runs."""

from collections.abc import Mapping
from typing import Any

import click
from click import Context

from vlm_harness.cli.common import echo_json, say


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def cache(ctx: Context, as_json: bool) -> None:
    """Show where the cache of `run --cache` lies, how large it is, and what is in it."""
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
        say(f"  {model}: {n} answers and embeddings")
    if not entries:
        say("  empty; `vlm-harness run --cache` fills it")


@cache.command()
@click.option("--model", help="Only what this model answered.")
def clear(model: str | None) -> None:
    """Throw away what is kept."""
    from vlm_harness.errors import not_found
    from vlm_harness.runs.cache import Cache, cache_file

    path = cache_file()
    if not path.exists():
        say(f"{path}: empty")
        return
    opened = Cache(path)
    known = opened.by_model()
    if model is not None and model not in known:
        raise not_found(f"nothing is kept of a model {model!r}", model, known, where="--model")
    dropped = opened.clear(model)
    opened.close()
    say(f"{path}: {dropped} answers and embeddings thrown away")


def describe_use(use: Mapping[str, Any]) -> str:
    """What the cache was for a run, in a line."""
    share = f" ({use['known'] / use['asked']:.0%})" if use["asked"] else ""
    return (
        f"cache: {use['known']} of {use['asked']} answers{share} were known; "
        f"{_megabytes(use['bytes'])} in {use['path']}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

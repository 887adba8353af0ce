"""``vlm-harness leaderboard``: submit runs, check entries, build, serve or publish the site."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vlm_harness.cli.common import include_path_option, registry, say
from vlm_harness.errors import InputError

if TYPE_CHECKING:
    from vlm_harness.leaderboard.publish import Content

F = TypeVar("F", bound=Callable[..., Any])
MISTAKES_ONLY = "These checks catch mistakes; they do not prevent fraud."


def _sources(function: F) -> F:
    """Options for the sources of a site."""
    for option in (
        include_path_option,
        click.option(
            "--reports",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            metavar="DIR",
            help="Folder with reports of runs to include in the site.",
        ),
        click.option(
            "--results-dir",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="DIR",
            help="Folder with entries; repeatable. [default: leaderboard/results]",
        ),
    ):
        function = option(function)
    return function


@click.group("leaderboard")
def leaderboard() -> None:
    """Submit runs, and build a site that shows their results next to published ones."""


@leaderboard.command("add")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--results-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write the entries to. [default: leaderboard/results]",
)
@click.option("--report-url", metavar="URL", help="URL of the run's report.")
@include_path_option
def add(
    run: Path, results_dir: Path | None, report_url: str | None, include_path: tuple[str, ...]
) -> None:
    """Check RUN, and write one leaderboard entry per model.

    The run must be complete, its logs unmodified, its results reproducible from the logs, and its
    tasks known to this installation. These checks catch mistakes; they do not prevent fraud.
    """
    from vlm_harness.leaderboard.entry import results_folder
    from vlm_harness.leaderboard.submit import submit

    written = submit(run, registry(include_path), results_dir or results_folder(), report_url)
    for path, entry in written:
        say(f"{path}: {entry.model.name}, {_count(len(entry.results), 'result')}")
    say(f"Checked: samples, logs, scores and tasks. {MISTAKES_ONLY}")


@leaderboard.command("check")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@include_path_option
def check(files: tuple[Path, ...], include_path: tuple[str, ...]) -> None:
    """Check the entries in FILEs or folders (default: leaderboard/results)."""
    from vlm_harness.leaderboard.entry import check_folder, read_entries, results_folder

    paths: list[Path] = []
    for path in files or (results_folder(),):
        if path.is_dir():
            check_folder(path)
            paths += sorted(path.glob("*.json"))
        elif files:
            paths.append(path)
        else:
            raise InputError("there is no such folder", where=path)
    entries = read_entries(paths, registry(include_path))
    n_results = sum(len(entry.results) for entry in entries)
    say(f"{_count(len(entries), 'entry', 'entries')} with {_count(n_results, 'result')} are valid")
    say(MISTAKES_ONLY)


@leaderboard.command("build")
@click.option(
    "--output", type=click.Path(path_type=Path), default="site", metavar="DIR", show_default=True,
    help="Folder to write the site to.",
)  # fmt: skip
@_sources
def build(output: Path, **sources: Any) -> None:
    """Build the site as static files, which open from disk and from any web server."""
    content = _content(**sources)
    content.site(output)
    say(f"{output / 'index.html'}: {_summary(content)}")


@leaderboard.command("serve")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any free port.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@_sources
def serve(port: int, host: str, **sources: Any) -> None:
    """Build the site in a temporary folder, and serve it until Ctrl-C."""
    content = _content(**sources)
    with tempfile.TemporaryDirectory(prefix="vlm-harness-") as folder:
        content.site(Path(folder))
        _serve(Path(folder), host, port, _summary(content))


@leaderboard.command("publish")
@click.option(
    "--to",
    "to",
    required=True,
    metavar="TARGET",
    help="space:USER/NAME or dataset:USER/NAME on the Hugging Face Hub, or folder:PATH.",
)
@click.option(
    "--dry-run", is_flag=True, help="List the files without writing anything or using the network."
)
@click.option(
    "--private", is_flag=True, help="Make the Space or dataset private if it is created now."
)
@_sources
def publish(to: str, dry_run: bool, private: bool, **sources: Any) -> None:
    """Build the site and publish it.

    Use folder:PATH for GitHub Pages. Only files that an earlier `publish` wrote are replaced.
    """
    from vlm_harness.leaderboard.publish import parse_target, prepare
    from vlm_harness.leaderboard.publish import publish as upload

    target = parse_target(to)
    if private and target.kind == "folder":
        raise InputError("the option has no effect with folder:PATH", where="--private")
    content = _content(**sources)
    with tempfile.TemporaryDirectory(prefix="vlm-harness-") as folder:
        files = prepare(target, content, Path(folder))
        if dry_run:
            sizes = {name: path.stat().st_size for name, path in files.items()}
            for name, size in sizes.items():
                say(f"{size:>10,}  {name}")
            say(f"{sum(sizes.values()):>10,}  in {_count(len(sizes), 'file')}, to {target}")
            return
        say(f"{upload(target, files, private)}: {_summary(content)}")


def _content(
    results_dir: tuple[Path, ...], reports: Path | None, include_path: tuple[str, ...]
) -> "Content":
    from vlm_harness.leaderboard.entry import load_entries, results_folders
    from vlm_harness.leaderboard.publish import Content
    from vlm_harness.published.rows import published_rows

    found = registry(include_path)
    entries = load_entries(results_dir or results_folders(), found)
    return Content(entries, published_rows(found), found, reports)


def _serve(folder: Path, host: str, port: int, summary: str) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Handler(SimpleHTTPRequestHandler):
        def list_directory(self, path: Any) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror}",
            where="--port",
            hint="Choose another port, or 0 for any free port.",
        ) from None
    with server:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{server.server_address[1]}/ {summary}; press Ctrl-C to stop")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("", err=True)


def _summary(content: "Content") -> str:
    entries = _count(len(content.entries), "entry", "entries")
    return f"{entries}, {_count(len(content.published), 'published row')}"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"

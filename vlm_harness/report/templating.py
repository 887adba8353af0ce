"""Self-contained HTML pages: styles, scripts, data and images are part of the file.

Templates escape all values. In addition, the content security policy of a page allows only its own
scripts (each by its checksum) and no network requests. Text written by a model can do nothing on
the page, even if escaping fails.
"""

import base64
import gzip
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vlm_harness import __version__, paths
from vlm_harness.errors import printable
from vlm_harness.files import to_json
from vlm_harness.logs.labels import score_title
from vlm_harness.metrics import display
from vlm_harness.specs.schemas import UNVERIFIED
from vlm_harness.types import Estimate

FOLDER = Path(__file__).parent / "html"
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "vendor/dataTables.min.js")
SCRIPTS = (*LIBRARIES, "charts.js", "tables.js")
NONE = "–"
STYLES = ("vendor/dataTables.min.css", "page.css")


def render(
    template: str,
    scripts: Iterable[str],
    data: Any,
    images: Iterable[str] = (),
    styles: Iterable[str] = (),
    **context: Any,
) -> str:
    """Render a page.

    Args:
        template: a file in ``html/`` or ``leaderboard/site/``.
        scripts: files in the same folders, in the order in which they run.
        data: what ``page.load`` returns to scripts; all texts pass through ``printable``.
        images: chunks of base64 texts (``thumbnails.py``); they come last, so that the page is
            shown before they are read.
        styles: files to add to those of every page.
    """
    sources = {name: _source(name) for name in ("page.js", *scripts)}
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()) for s in sources.values()]
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{each.decode()}'" for each in hashes),
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    text = to_json(_escaped(data), separators=(",", ":"), allow_nan=False)
    packed = gzip.compress(text.encode(), 6, mtime=0)
    return _templates().get_template(template).render(
        policy=policy,
        styles=[Markup(_source(name)) for name in (*STYLES, *styles)],
        scripts=[Markup(source) for source in sources.values()],
        data=base64.b64encode(packed).decode(),
        images=images,
        version=__version__,
        **context,
    )  # fmt: skip


def _escaped(data: Any) -> Any:
    """Plain data, with characters that control a page or terminal escaped in all texts."""
    if type(data) is str:
        return printable(data)
    if isinstance(data, Mapping):
        return {key: _escaped(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_escaped(value) for value in data]
    return data


@cache
def _source(name: str) -> str:
    for folder in _folders():
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(name)


def _folders() -> list[Path]:
    return [FOLDER, paths.bundled() / "leaderboard" / "site"]


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_folders()),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Show control characters and text direction marks as escapes.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.globals["unverified_title"] = UNVERIFIED
    environment.filters.update(
        number=_number,
        interval=_interval,
        percent=lambda value: NONE if value is None else display.percent(value),
        points=lambda value: display.points(value),
        signed=lambda value, metric: display.signed(metric, value),
        p_value=lambda value: display.p_value(value, NONE),
        short=display.short,
        score_title=score_title,
        sentence=lambda text: text[:1].upper() + text[1:],
    )
    return environment


def _number(value: float | None, metric: str) -> str:
    return NONE if value is None else display.number(metric, value)


def _interval(found: Estimate, metric: str) -> str:
    return display.interval(metric, found.ci_low, found.ci_high, "–")

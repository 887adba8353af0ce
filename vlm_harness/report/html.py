"""HTML pages that carry all they need in themselves: styles, scripts, data and images.

Templates escape what is put into them. Beyond that, a page forbids itself by its content security
policy any script but its own (each named by its checksum) and any request, to whatever host: what a
model wrote cannot do a thing there, even where escaping should fail.
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
from vlm_harness.atomic import to_json
from vlm_harness.errors import printable

FOLDER = Path(__file__).parent / "html"
CHARTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "charts.js")
TABLES = ("vendor/dataTables.min.js", "tables.js")
STYLES = ("vendor/dataTables.min.css", "page.css")


def render(
    template: str,
    scripts: Iterable[str],
    data: Any,
    images: Iterable[str] = (),
    **context: Any,
) -> str:
    """A page.

    Args:
        template: a file of ``html/``, or of ``leaderboard/site/``.
        scripts: files likewise, in the order in which they are run.
        data: what scripts find under ``page.data``, as JSON.
        images: chunks of base64 texts (``thumbnails.py``), put last: what is seen first need not
            wait for them.
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
    packed = gzip.compress(to_json(data, separators=(",", ":")).encode(), 6, mtime=0)
    return _templates().get_template(template).render(
        policy=policy,
        styles=[Markup(_source(name)) for name in STYLES],
        scripts=[Markup(source) for source in sources.values()],
        data=base64.b64encode(packed).decode(),
        images=images,
        version=__version__,
        **context,
    )  # fmt: skip


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
        # Control characters and turns of the direction of writing are shown, not obeyed.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters.update(
        percent=percent, number=number, interval=interval, signed=signed, p_value=p_value
    )
    return environment


def number(value: float | None, name: str = "") -> str:
    """A metric's value: percent, but for a cosine."""
    if value is None:
        return "–"
    return f"{value:.3f}" if "cosine" in name else percent(value)


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def interval(metric: Mapping[str, Any], name: str = "") -> str:
    if metric["ci_low"] is None:
        return ""
    if "cosine" in name:
        return f"{metric['ci_low']:.3f}–{metric['ci_high']:.3f}"
    return f"{100 * metric['ci_low']:.0f}–{100 * metric['ci_high']:.0f}"


def signed(value: float, name: str = "") -> str:
    """A difference of two values of a metric."""
    value, digits = (value, 3) if "cosine" in name else (100 * value, 1)
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no "-0.0"


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"

"""MkDocs hooks: what the documentation site shows beyond the Markdown files in this folder.

Generated at build time and never committed: the tables of tasks and models, the reference of the
YAML schemas, the entries of the Python API, the page of the notebook, the pages of the files at the
root of the repository, and ``llms.txt``. A page asks for a part with ``<!-- generate: NAME -->``.
"""

import inspect
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

import vlm_harness
from vlm_harness.backends import interface
from vlm_harness.cli import cli
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import KINDS

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
ROOT_PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Files at the root of the repository that are pages of the site, and the names of those pages."""
NOTEBOOK, NOTEBOOK_PAGE = "quickstart.ipynb", "notebook.md"
FENCE = re.compile(r"^( *)(```|~~~)(\w*)([^\n`]*)$")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")

_summaries: dict[str, str] = {}
_nav: list[Navigation] = []


# --- events ---------------------------------------------------------------------------------------


def on_pre_build(config: MkDocsConfig) -> None:
    _prepare(cli)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no Markdown file in this folder."""
    for source, name in ROOT_PAGES.items():
        if (ROOT / source).is_file():
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=notebook(DOCS / NOTEBOOK)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    _nav[:] = [nav]
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert generated parts, and adapt what GitHub and MkDocs read differently."""
    markdown = re.sub(
        r"^<!-- generate: (\w+) -->$",
        lambda found: PARTS[found[1]](),
        markdown,
        flags=re.MULTILINE,
    )
    source = {name: root for root, name in ROOT_PAGES.items()}.get(page.file.src_uri)
    folder = ROOT if source else (DOCS / page.file.src_uri).parent
    lines = []
    in_list = False
    for line, in_code in _lines(markdown):
        # GitHub takes 3 spaces for the text of a numbered item, Python-Markdown takes 4.
        in_list = bool(re.match(r"\d+\. ", line)) or (in_list and line[:1] in ("", " "))
        line = f" {line}" if in_list and line.startswith("   ") else line
        fence = FENCE.match(line)
        if fence:
            lines.append(_fence(*fence.groups()))
        elif in_code:
            lines.append(line)
        else:
            lines.append(LINK.sub(lambda m: _link(m, folder, page, config.repo_url), line))
    markdown = "\n".join(lines)
    _summaries[page.file.src_uri] = _summary(markdown)
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the defaults empty that mkdocs-click shows for options without one."""
    if page.file.src_uri != "reference/cli.md":
        return html
    html = re.sub(r"<td>(<code>Sentinel\.UNSET</code>|None)</td>", "<td></td>", html)
    return f'<div class="options">{html}</div>'


def on_post_build(config: MkDocsConfig) -> None:
    text = "\n".join(llms(_nav[0], config))
    (Path(config.site_dir) / "llms.txt").write_text(text + "\n", encoding="utf-8")


# --- Markdown -------------------------------------------------------------------------------------


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is in a fenced block (its fences included)."""
    closing = None
    for line in markdown.split("\n"):
        fence = FENCE.match(line)
        if closing is None and fence:
            closing = fence[1] + fence[2]
            yield line, True
        else:
            yield line, closing is not None
            if closing is not None and line.rstrip() == closing:
                closing = None


def _fence(indent: str, mark: str, language: str, info: str) -> str:
    """A fence without the words that only the tests read; ``file=NAME`` becomes a title."""
    named = re.search(r"\bfile=(\S+)", info)
    title = f' title="{named[1]}"' if named else ""
    return f"{indent}{mark}{language}{title}"


def _prepare(command: click.Command) -> None:
    """Adapt help texts to mkdocs-click, which shows only the first line of a summary.

    Paragraphs that click prints unchanged (after a backspace character) become code blocks.
    """
    command.short_help = command.get_short_help_str(limit=300)
    command.help = re.sub(
        r"^[ ]*\x08\n(.+?)(?=\n[ ]*\n|\Z)",
        lambda found: "```text\n" + inspect.cleandoc(found[1]) + "\n```",
        inspect.cleandoc(command.help or ""),
        flags=re.DOTALL | re.MULTILINE,
    )
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            _prepare(found)


def _link(found: re.Match[str], folder: Path, page: Page, repo_url: str | None) -> str:
    """A link as the site needs it: files outside this folder have another place, or none."""
    image, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"\w+:", target):
        return found[0]
    place = Path(os.path.normpath(folder / path))
    if place.is_relative_to(DOCS):
        name = place.relative_to(DOCS).as_posix()
        name = NOTEBOOK_PAGE if name == NOTEBOOK else name
    elif place.is_relative_to(ROOT) and place.relative_to(ROOT).as_posix() in ROOT_PAGES:
        name = ROOT_PAGES[place.relative_to(ROOT).as_posix()]
    elif place == ROOT / "README.md":
        name = "index.md"
    elif repo_url:
        return f"{image}[{text}]({repo_url.rstrip('/')}/blob/main/{place.relative_to(ROOT)})"
    else:  # a file of the repository, which the site does not hold
        return str(text)
    here = posixpath.dirname(page.file.src_uri)
    return f"{image}[{text}]({posixpath.relpath(name, here)}{'#' if anchor else ''}{anchor})"


def _summary(markdown: str) -> str:
    """The first sentence of a page as plain text."""
    for paragraph in re.split(r"\n\s*\n", markdown):
        if re.match(r"\s*(#|<|!|\||```|:::|>|- |\* |\d)|    ", paragraph) or not paragraph.strip():
            continue
        plain = LINK.sub(lambda m: m[2], " ".join(paragraph.split()))
        plain = re.sub(r"`([^`]*)`|\*+(\w[^*]*)\*+", lambda m: m[1] or m[2], plain)
        return re.split(r"(?<=[.!?:]) (?=[A-Z])", plain)[0].rstrip(":")
    return ""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    body = [heads, ["---"] * len(heads), *rows]
    rows_ = "\n".join("| " + " | ".join(cells) + " |" for cells in body)
    return f'<div class="generated" markdown>\n\n{rows_}\n\n</div>'


def _cell(value: object) -> str:
    """Text in a cell of a table."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


# --- generated parts ------------------------------------------------------------------------------


def tasks() -> str:
    """The bundled tasks, by family: the folder that holds their files."""
    registry = Registry([ROOT / "tasks", ROOT / "prompts"])
    families: dict[str, list[list[str]]] = {}
    for name in registry.names("task"):
        task = registry.task(name)
        assert task.path is not None
        families.setdefault(task.path.parent.name, []).append(
            [
                f"`{name}`",
                _cell(task.description),
                ", ".join(task.protocols.declared),
                f"`{task.primary_metric}`",
                "yes" if task.dataset.verified else "**unverified**",
            ]
        )
    heads = ["task", "asks", "protocols", "primary metric", "verified"]
    parts = [f"## {family}\n\n{_table(heads, rows)}" for family, rows in families.items()]
    groups = [
        [f"`{group}`", ", ".join(f"`{name}`" for name in names), _scores(registry, group)]
        for group, names in sorted(registry.groups.items())
    ]
    return "\n\n".join([*parts, f"## Groups\n\n{_table(['group', 'tasks', 'scores'], groups)}"])


def _scores(registry: Registry, group: str) -> str:
    """The scores of a group, the headline first."""
    if group not in registry.names("group"):
        return ""
    return "; ".join(
        f"`{each.name}`: {each.how.replace('_', ' ')} of {' + '.join(each.metrics)}"
        for each in registry.group(group).aggregates
    )


def models() -> str:
    """The bundled models, by backend."""
    registry = Registry([ROOT / "models"])
    backends: dict[str, list[list[str]]] = {}
    for name in registry.names("model"):
        model = registry.model(name)
        local = Path(model.checkpoint).is_absolute()
        checkpoint = "bundled" if local else f"`{model.checkpoint}`"
        if model.revision:
            checkpoint += f" at `{model.revision[:10]}`"
        backends.setdefault(model.backend, []).append(
            [
                f"`{name}`",
                _cell(model.description),
                checkpoint,
                "yes" if model.verified else "**unverified**",
            ]
        )
    heads = ["model", "description", "checkpoint", "verified"]
    return "\n\n".join(
        f"## {backend}\n\n{_table(heads, rows)}" for backend, rows in backends.items()
    )


def schemas() -> str:
    """Every kind of YAML file, key by key. A kind with two names is shown under the first."""
    first = {spec: kind for kind, spec in reversed(KINDS.items())}
    return "\n\n".join(_schema(kind) for kind, spec in KINDS.items() if first[spec] == kind)


def _schema(kind: str) -> str:
    """One kind of file: its own keys, then those of the mappings in it."""
    schema = KINDS[kind].model_json_schema()
    parts = [f"## {kind}", _text(schema), _keys(schema)]
    for name, part in schema.get("$defs", {}).items():
        if "properties" in part:
            parts += [f"### {kind}: {name}", _text(part), _keys(part)]
    return "\n\n".join(part for part in parts if part)


def _text(schema: dict[str, Any]) -> str:
    """The description of a schema: the docstring of its class, as Markdown."""
    return str(schema.get("description", "")).replace("``", "`")


def _keys(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = []
    for key, value in schema["properties"].items():
        usual = value.get("default")
        default = "required" if key in required else f"`{json.dumps(usual)}`"
        if isinstance(usual, dict) and usual:
            default = "defaults of its keys"
        rows.append([f"`{key}`", _cell(_type(value)), _cell(default), _cell(_text(value))])
    return _table(["key", "type", "default", "meaning"], rows)


def _type(value: dict[str, Any]) -> str:
    """The type of a value in words."""
    if "$ref" in value:
        return str(value["$ref"]).rsplit("/", 1)[-1]
    if "enum" in value:
        return " or ".join(f"`{each}`" for each in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in value:
            return " or ".join(dict.fromkeys(map(_type, value[union])))
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value['items'])}" if value.get("items") else "list"
    if kind == "object":
        values = value.get("additionalProperties")
        return f"mapping of {_type(values)}" if isinstance(values, dict) and values else "mapping"
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    return {"null": "null", "string": "text"}.get(kind, str(kind))


def api() -> str:
    """``mkdocstrings`` entries of the public names, functions first."""
    names = [name for name in vlm_harness.__all__ if not name.startswith("_")]
    functions = [name for name in names if inspect.isfunction(getattr(vlm_harness, name))]
    classes = [name for name in names if name not in functions]
    places = [getattr(vlm_harness, name) for name in (*functions, *classes)]
    return "\n\n".join(f"::: {each.__module__}.{each.__qualname__}" for each in places)


def backend_api() -> str:
    """``mkdocstrings`` entries of what a backend may provide."""
    return "\n\n".join(
        f"::: {interface.__name__}.{name}"
        for name, each in vars(interface).items()
        if inspect.isclass(each) and each.__module__ == interface.__name__
    )


PARTS: dict[str, Callable[[], str]] = {
    "tasks": tasks,
    "models": models,
    "schemas": schemas,
    "api": api,
    "backend_api": backend_api,
}


def notebook(path: Path) -> str:
    """A notebook as Markdown, with the outputs that it was saved with."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "text/html" in data:
                parts.append(_plain_table("".join(data["text/html"])))
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts)


def _plain_table(html: str) -> str:
    """HTML of an output without styles of its own, so that the theme's apply."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    html = re.sub(r"<table[^>]*>", "<table>", html)
    return re.sub(r"\n\s*", "\n", html).strip()


def llms(nav: Navigation, config: MkDocsConfig) -> Iterator[str]:
    """The lines of ``llms.txt``: every page with its link and first sentence, by section."""
    yield f"# {config.site_name}"
    yield f"\n> {config.site_description}"
    for item in nav.items:
        section = isinstance(item, Section)
        yield f"\n## {item.title if section else 'Overview'}\n"
        for page in item.children if section else [item]:
            if isinstance(page, Page):
                url = posixpath.join(config.site_url or "", page.url)
                summary = _summaries.get(page.file.src_uri, "")
                yield f"- [{page.title}]({url})" + (f": {summary}" if summary else "")

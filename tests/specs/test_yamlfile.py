"""YAML: values of plain words, and line numbers in messages."""

import re
from pathlib import Path

import pytest

from helpers.bench import ROOT
from vlm_harness.errors import InputError
from vlm_harness.specs import yamlfile


def write(folder: Path, **files: str) -> dict[str, Path]:
    paths = {}
    for name, text in files.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(text, encoding="utf-8")
    return paths


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        yamlfile.loads(text, Path("x.yaml"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("10:30", "10:30"),  # the number 630 in YAML 1.1
        ("010", "010"),
        ("1_000", "1_000"),
        ("2024-02-30", "2024-02-30"),
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("1e-5", 1e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("(a) Open", "(a) Open"),
        ("é", "é"),
    ],
)
def test_plain_words(text: str, value: object) -> None:
    found = yamlfile.loads(f"a: {text}", Path("x.yaml")).data["a"]
    assert (found, type(found)) == (value, type(value))
    assert yamlfile.scalar(text) == value


def test_an_invalid_yaml_scalar_stays_text() -> None:
    assert yamlfile.scalar("[a") == "[a"
    assert yamlfile.scalar("{{ x }}") == "{{ x }}"


def test_lines_of_keys_and_items() -> None:
    file = yamlfile.loads("a:\n  b:\n    - x\n    - c: 1\nd: |\n  one\n  two\n", Path("x.yaml"))
    assert file.where(("a",)) == "x.yaml:1"
    assert file.where(("a", "b")) == "x.yaml:2"
    assert file.where(("a", "b", 1, "c")) == "x.yaml:4"
    assert file.where(("a", "b", 1, "nothing", 3)) == "x.yaml:4"  # the nearest above it
    assert file.where(("d",)) == "x.yaml:5"
    assert file.where(("d",), line=2) == "x.yaml:7"
    assert file.where() == "x.yaml:1"


def test_include_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        _base="a: 1\nmap:\n  x: 1\n  y: {deep: 1, too: 2}\nitems: [1, 2, 3]\n",
        _middle="include: _base.yaml\nmap:\n  y: {deep: 5}\n",
        top="include: _middle.yaml\nitems: [9]\nmap: {z: 3}\nb: 2\n",
    )
    file = yamlfile.load(paths["top"])
    assert file.data == {
        "a": 1,
        "b": 2,
        "map": {"x": 1, "y": {"deep": 5, "too": 2}, "z": 3},
        "items": [9],
    }
    assert "include" not in file.data
    assert file.where(("b",)) == f"{paths['top']}:4"
    assert file.where(("a",)) == f"{paths['_base']}:1"
    assert file.where(("map", "x")) == f"{paths['_base']}:3"
    assert file.where(("map", "y", "deep")) == f"{paths['_middle']}:3"
    assert file.where(("map", "y", "too")) == f"{paths['_base']}:4"
    assert file.where(("map", "z")) == f"{paths['top']}:3"
    assert file.where(("items", 0)) == f"{paths['top']}:2"


def test_the_last_of_several_includes_wins(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        _one="a: 1\nmap: {x: 1, y: 1, z: 1}\n",
        _two="map:\n  y: 2\n  z: 2\n",
        top="include: [_one.yaml, _two.yaml]\nmap: {z: 3}\n",
    )
    file = yamlfile.load(paths["top"])
    assert file.data == {"a": 1, "map": {"x": 1, "y": 2, "z": 3}}
    assert file.where(("map", "x")) == f"{paths['_one']}:2"
    assert file.where(("map", "y")) == f"{paths['_two']}:2"
    assert file.where(("map", "z")) == f"{paths['top']}:2"


def test_a_bundled_file_is_included_from_anywhere(tmp_path: Path) -> None:
    name = "tasks/mmvp/mmvp.yaml"
    paths = write(tmp_path, top=f"include: {name}\ntask: mine\n")
    file = yamlfile.load(paths["top"])
    assert (file.data["task"], file.data["dataset"]["reader"]) == ("mine", "csv")
    assert file.where(("dataset",)).startswith(str(ROOT / name))
    # A file in the same folder takes precedence.
    (tmp_path / "tasks" / "mmvp").mkdir(parents=True)
    (tmp_path / name).write_text("task: other\nversion: 7\n")
    assert yamlfile.load(paths["top"]).data == {"task": "mine", "version": 7}


def test_circular_include(tmp_path: Path) -> None:
    paths = write(tmp_path, a="x: 1\ninclude: b.yaml\n", b="include: a.yaml\n")
    chain = r"b\.yaml:1: circular include: a\.yaml -> b\.yaml -> a\.yaml"
    with pytest.raises(InputError, match=chain):
        yamlfile.load(paths["a"])
    paths = write(tmp_path, c="include: c.yaml\n")
    with pytest.raises(InputError, match=r"circular include: c\.yaml -> c\.yaml"):
        yamlfile.load(paths["c"])


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("nowhere.yaml", "include: file not found"),
        (".", "include: file not found"),
        ("[a.yaml]", "include: file not found"),
        ("[]", "must be the path of a file or a list of paths"),
        ("[top.yaml, 5]", "must be the path of a file or a list of paths"),
        ("5", "must be the path of a file or a list of paths"),
    ],
)
def test_bad_include(tmp_path: Path, include: str, message: str) -> None:
    paths = write(tmp_path, top=f"a: 1\ninclude: {include}\n")
    with pytest.raises(InputError, match=message) as caught:
        yamlfile.load(paths["top"])
    assert caught.value.where == f"{paths['top']}:2"


def test_an_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    paths = write(tmp_path, _base="a: 1\nb: [\n", top="include: _base.yaml\n")
    with pytest.raises(InputError, match=r"_base\.yaml:2: not valid YAML"):
        yamlfile.load(paths["top"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: the file is empty"),
        ("# only a comment\n", "x.yaml: the file is empty"),
        ("- a\n- b", "x.yaml:1: expected a mapping, found list"),
        ("words", "x.yaml:1: expected a mapping, found str"),
        ("a: 1\n\tb: 2", "x.yaml:2: not valid YAML"),
        ("a: 1\nb: 2\na: 3", "x.yaml:3: duplicate key 'a'"),
        ("m:\n  a: 1\n  a: 1", "x.yaml:3: duplicate key 'a'"),
        ("a: 1\n---\nb: 2", "x.yaml:2: not valid YAML"),
        ("a: &x {b: *x}", "x.yaml:1: self-referencing alias"),
        ("a: *nothing", "x.yaml:1: not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1: not valid YAML"),
        ("a: !!timestamp 2024-01-01", "x.yaml:1: YAML tag tag:yaml.org,2002:timestamp is not"),
        ("a: !!int xyz", "x.yaml: not valid YAML"),
        ("a: \x00", "x.yaml: not valid YAML"),
        (f"a: {'9' * 5000}", "x.yaml: not valid YAML"),
        ("? [a]\n: b", "x.yaml:1: not valid YAML"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_nested_aliases_do_not_exhaust_the_memory() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 9):
        row = ", ".join([f"*a{number - 1}"] * 10)
        text += f"a{number}: &a{number} [{row}]\n"
    assert "the file has more than" in refusal(text)


def test_deep_nesting_is_rejected() -> None:
    """PyYAML has its own limit and message since 6.0.4."""
    message = refusal("a: " + "[" * 3000 + "]" * 3000)
    assert re.match(r"x\.yaml(:1)?: not valid YAML: (nested too deeply|.*nesting depth)", message)


@pytest.mark.parametrize("line", ["q: {{ x }}", "q: {{ x }} and more"])
def test_braces_without_quotes_are_explained(line: str) -> None:
    message = refusal(f"a: 1\n{line}\n")
    assert message.startswith("x.yaml:2: not valid YAML")
    assert 'Quote a value that begins with {{: key: "{{ ... }}"' in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read: No such file"):
        yamlfile.load(tmp_path / "no.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        yamlfile.load(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(InputError, match="cannot be read: 'utf-8' codec"):
        yamlfile.load(tmp_path / "b.yaml")


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes("\ufeffa: 1\r\nb: ü\r\n".encode())
    file = yamlfile.load(tmp_path / "w.yaml")
    assert file.data == {"a": 1, "b": "ü"}
    assert file.where(("b",)).endswith("w.yaml:2")

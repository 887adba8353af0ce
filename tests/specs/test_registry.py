"""Names: where they are looked up, and errors for names that are defined twice."""

from pathlib import Path

import pytest

from vlm_harness.errors import InputError
from vlm_harness.paths import bundled, data_dir, inside, spec_roots
from vlm_harness.plugins import Plugins
from vlm_harness.specs.registry import Registry, kind_of, spec_files
from vlm_harness.specs.yamlfile import loads


def task(name: str, groups: str = "[]") -> str:
    return (
        f"task: {name}\nversion: 1\ngroups: {groups}\ndataset: {{reader: jsonl, path: x}}\n"
        "sample: {id: a, options: [a, b], target: 0}\nprotocols: {generate: {}}\n"
    )


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.yaml").write_text(task("a_one", "[ones, all_of_it]"))
    (folder / "deep" / "two.yml").write_text(task("a_two", "[all_of_it]"))
    (folder / "deep" / "er" / "three.yaml").write_text(task("b_three", "[all_of_it]"))
    return folder


def test_a_checkpoint_beside_the_file_of_its_model(tmp_path: Path) -> None:
    model = "model: {}\nbackend: hf_vlm\ncheckpoint: {}\n"
    (tmp_path / "deep").mkdir()
    for name, checkpoint in (("a", "./w"), ("b", "../w"), ("c", "me/w"), ("d", "/abs/w")):
        (tmp_path / "deep" / f"{name}.yaml").write_text(model.format(name, checkpoint))
    found = Registry([tmp_path])
    checkpoints = [found.model(name).checkpoint for name in "abcd"]
    assert checkpoints == [str(tmp_path / "deep" / "w"), str(tmp_path / "w"), "me/w", "/abs/w"]
    assert found.model("a").at("checkpoint") == f"{tmp_path / 'deep' / 'a.yaml'}:3"


def test_names_groups_and_globs(specs: Path) -> None:
    found = Registry([specs])
    assert found.names("task") == ["a_one", "a_two", "b_three"]
    assert found.groups == {"ones": ["a_one"], "all_of_it": ["a_one", "a_two", "b_three"]}
    assert found.select_tasks(["b_three", "a_one", "b_three"]) == ["b_three", "a_one"]
    assert found.select_tasks(["all_of_it"]) == ["a_one", "a_two", "b_three"]
    assert found.select_tasks(["a_*"]) == ["a_one", "a_two"]
    assert found.select_tasks(["*three", "one?"]) == [
        "b_three",
        "a_one",
    ]  # a glob matches groups, too
    assert found.select_tasks([]) == []


def test_unknown_names(specs: Path) -> None:
    found = Registry([specs])
    with pytest.raises(InputError, match="unknown task 'a_oen'; did you mean 'a_one'") as caught:
        found.select_tasks(["a_oen"])
    assert "Groups: all_of_it, ones" in str(caught.value)
    assert f"Looked in: {specs}" in str(caught.value)
    with pytest.raises(InputError, match="did you mean 'all_of_it'"):
        found.select_tasks(["all_ofit"])
    with pytest.raises(InputError, match=r"no task or group matches 'x\*'"):
        found.select_tasks(["x*"])
    with pytest.raises(InputError, match="unknown prompt 'plian'"):
        found.prompt("plian", "t.yaml:3")
    with pytest.raises(InputError, match="did you mean 'short'"):
        Registry.standard().command("shrot")


CORRECTIONS = "reference: y\ncorrections: [{id: 1, was: a, answer: b}]"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("task: x", "task"),
        ("model: x", "model"),
        ("prompt: x\ntemplate: y", "prompt"),
        (f"label_corrections: x\n{CORRECTIONS}", "label corrections"),
        (f"overlay: x\n{CORRECTIONS}", "label corrections"),
        ("commands: {x: y}", "command"),
    ],
)
def test_a_name_defined_twice_names_both_files(tmp_path: Path, text: str, kind: str) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"# {name}\n{text}\n")
    with pytest.raises(InputError, match=f"{kind} 'x' is defined twice") as caught:
        Registry([tmp_path])
    assert caught.value.where == f"{tmp_path / 'b.yaml'}:2"
    assert f"{tmp_path / 'a.yaml'}:2" in str(caught.value)


def test_a_bundled_name_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(task("mmvp"))
    with pytest.raises(InputError, match="'mmvp' is defined twice") as caught:
        Registry.standard((str(tmp_path),))
    assert str(tmp_path) in str(caught.value)
    assert "mmvp.yaml" in str(caught.value)


def test_a_task_and_a_group_of_one_name(specs: Path) -> None:
    (specs / "four.yaml").write_text(task("ones"))
    with pytest.raises(InputError, match="'ones' is the name of both a task and a group"):
        Registry([specs]).select_tasks(["ones"])


def test_the_same_folder_twice_is_read_once(specs: Path) -> None:
    (specs.parent / "link").symlink_to(specs)
    assert Registry([specs, specs.parent / "link"]).names("task") == ["a_one", "a_two", "b_three"]


def test_where_names_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("option", "one", "two")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("VLM_HARNESS_PATH", f"{folders['one']}:{folders['two']}")
    roots = spec_roots((str(folders["option"]),))
    assert roots[:3] == [folders["option"], folders["one"], folders["two"]]
    assert roots[3:] == [bundled() / name for name in ("tasks", "prompts", "models")]
    with pytest.raises(InputError, match=r"^--include-path: folder not found"):
        spec_roots((str(tmp_path / "no"),))
    monkeypatch.setenv("VLM_HARNESS_PATH", str(tmp_path / "no"))
    with pytest.raises(InputError, match=r"^\$VLM_HARNESS_PATH: folder not found"):
        spec_roots()


def test_a_file_can_be_included_alone(specs: Path) -> None:
    assert Registry([specs / "one.yaml"]).names("task") == ["a_one"]


def test_which_files_are_specs(specs: Path) -> None:
    (specs / "_base.yaml").write_text("not: [a spec\n")
    (specs / "notes.txt").write_text("no\n")
    (specs / ".ipynb_checkpoints").mkdir()
    (specs / ".ipynb_checkpoints" / "one.yaml").write_text(task("a_one"))
    (specs / "folder.yaml").mkdir()
    names = [path.name for path in spec_files(specs)]
    assert names == ["three.yaml", "two.yml", "one.yaml"]


def test_hidden_folders_above_the_root_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "specs"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text(task("one"))
    assert Registry([folder]).names("task") == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: [", "bad.yaml:1: not valid YAML"),
        (b"", "bad.yaml: the file is empty"),
        (b"- task: x", "bad.yaml:1: expected a mapping"),
        (b"\x89PNG\xff", "bad.yaml: cannot be read"),
        (b"tsk: x", "did you mean 'task'?"),
        (b"label_correction: x", "did you mean 'label_corrections'?"),
        (b"a: 1\nb: 2", "cannot tell what this file defines: its keys are a, b"),
        (b"task: 5", "bad.yaml:1: task: the name must be text, found 5"),
        (b"version: 1\ntask:", "bad.yaml:2: task: the name must be text, found None"),
        (b"commands: [a]", "cannot tell what this file defines"),
        (b"{}", "cannot tell what this file defines"),
        (b"1: x", "cannot tell what this file defines"),
    ],
)
def test_a_broken_file_is_never_ignored(specs: Path, content: bytes, message: str) -> None:
    (specs / "deep" / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Registry([specs])
    assert message in str(caught.value)
    assert str(specs / "deep" / "bad.yaml") in str(caught.value)


def test_command_names_that_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("commands: {1: x, b: y}")
    found = Registry([tmp_path])
    assert found.names("command") == ["1", "b"]
    with pytest.raises(InputError, match=r"c\.yaml:1: commands\.1"):
        found.command("b")


def test_the_kind_of_a_file() -> None:
    for key in ("overlay", "label_corrections"):
        text = f"task: t\nprompt: {{question: x}}\n{key}: o\n"
        assert kind_of(loads(text, Path("x.yaml"))) == "task"
        assert kind_of(loads(f"{key}: o\n{CORRECTIONS}", Path("x.yaml"))) == "overlay"
    prompt = "prompt: p\ntemplate: x\ncommands: {a: b}\n"
    assert kind_of(loads(prompt, Path("x.yaml"))) == "prompt"


def test_old_and_new_key_define_the_same_kind_of_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("reference: y\noverlay: x\ncorrections: []\n")
    (tmp_path / "b.yaml").write_text(f"label_corrections: x\n{CORRECTIONS}\n")
    with pytest.raises(InputError, match="label corrections 'x' is defined twice") as caught:
        Registry([tmp_path])
    assert caught.value.where == f"{tmp_path / 'b.yaml'}:1"
    assert f"{tmp_path / 'a.yaml'}:2" in str(caught.value)


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "..", "a/..", "a\0b"])
def test_paths_that_leave_the_data_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="is outside the data directory"):
        inside(tmp_path, path)


def test_paths_inside(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b c/é..png") == tmp_path / "a" / "b c" / "é..png"


def test_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_HARNESS_DATA", str(tmp_path / "env"))
    assert data_dir(None) == tmp_path / "env"
    assert data_dir(str(tmp_path / "option")) == tmp_path / "option"
    monkeypatch.delenv("VLM_HARNESS_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_dir(None).parts[-2:] == ("vlm-harness", "data")


# --- plugins --------------------------------------------------------------------------------------


def test_plugins() -> None:
    parts: Plugins[object] = Plugins(
        "thing", "vlm_harness.no_such_group", {"join": "posixpath:join", "gone": "no_such_pkg:x"}
    )
    assert parts.names() == ["gone", "join"]
    assert parts.get("join") is __import__("posixpath").join
    with pytest.raises(InputError, match="unknown thing 'jion'; did you mean 'join'") as caught:
        parts.get("jion", "t.yaml:4")
    assert caught.value.where == "t.yaml:4"
    with pytest.raises(InputError, match="needs the package 'no_such_pkg'"):
        parts.get("gone")

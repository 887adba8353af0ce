"""The exact prompts of every bundled task under every protocol."""

from pathlib import Path
from typing import Any

import pytest

from vlm_harness.errors import InputError
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.orders import Order
from vlm_harness.tasks.prompts import PromptBuilder, prompt_builder
from vlm_harness.types import Sample

REGISTRY = Registry.standard()
LETTER = "Answer with the option's letter from the given choices directly."
BUTTERFLY = "Are the butterfly's wings closer to being open or closed?"
SIDES = "Is the beer bottle to the left of or to the right of the armchair?"
FOUR = "Where is the mug in relation to the plate?"


def sample_of(task: str) -> Sample:
    """A sample with the fields of the task."""
    if task == "mmvp":
        return Sample(
            "1", (), ("(a) Open", "(b) Closed"), 0, 0, fields={"Question": BUTTERFLY, "index": 1}
        )
    options: tuple[str, ...] = {
        "left_right": ("left", "right"),
        "on_under": ("on", "under"),
        "front_behind": ("front", "behind"),
        "four_way": ("left", "right", *(("on", "under") if "_a_" in task else ("front", "behind"))),
    }[task.removeprefix("whatsup_a_").removeprefix("whatsup_b_")]
    subject, thing = ("beer bottle", "armchair") if "left_right" in task else ("mug", "plate")
    return Sample("x", (), options, 0, 0, fields={"subject": subject, "object": thing})


def asked(
    task: str, protocol: str, command: str | None = None, order: Order | None = None
) -> tuple[str, tuple[str, ...]]:
    """The prompt and the candidates (in canonical order)."""
    spec = REGISTRY.task(task)
    use = getattr(spec.protocols, protocol)
    asks = prompt_builder(spec, protocol, use, REGISTRY)
    sample = sample_of(task)
    order = order or tuple(range(len(sample.options)))
    prompt = asks.prompt(sample, order, command or asks.default_command)
    return prompt.text, PROTOCOLS.get(protocol).request(sample, prompt, use).candidates


# Paper, Table 8 (What'sUp) and Figure 4 (MMVP); its results were obtained with `generate`.
PAPER = {
    "whatsup_a_left_right": f"{SIDES} Answer left or right.",
    "whatsup_b_left_right": f"{SIDES} Answer left or right.",
    "whatsup_a_on_under": "Is the mug on or under the plate? Choose from the two options.",
    "whatsup_b_front_behind": "Is the mug in front of or behind the plate? Answer front or behind.",
    "mmvp": f"{BUTTERFLY} (a) Open (b) Closed\n{LETTER}",
}
OURS = {
    "whatsup_a_four_way": f"{FOUR} Answer with left, right, on or under.",
    "whatsup_b_four_way": f"{FOUR} Answer with left, right, front or behind.",
}
LETTERED = {
    "whatsup_a_left_right": f"{SIDES}\nA. left\nB. right\n{LETTER}",
    "whatsup_b_left_right": f"{SIDES}\nA. left\nB. right\n{LETTER}",
    "whatsup_a_on_under": f"Is the mug on or under the plate?\nA. on\nB. under\n{LETTER}",
    "whatsup_b_front_behind": (
        f"Is the mug in front of or behind the plate?\nA. front\nB. behind\n{LETTER}"
    ),
    "mmvp": f"{BUTTERFLY} (a) Open (b) Closed\n{LETTER}",
    "whatsup_a_four_way": f"{FOUR}\nA. left\nB. right\nC. on\nD. under\n{LETTER}",
    "whatsup_b_four_way": f"{FOUR}\nA. left\nB. right\nC. front\nD. behind\n{LETTER}",
}


ELSEWHERE = (
    "whatsup_rendered_", "coco_spatial_", "gqa_spatial_", "mmvp_vlm",
    "pope_", "sugarcrepe_", "vsr_", "colorswap",
)  # fmt: skip
"""Tested in test_rendered.py, test_benchmarks.py, test_coco_benchmarks.py and
test_colorswap.py."""


def test_every_bundled_task_is_tested_here() -> None:
    names = [name for name in REGISTRY.names("task") if not name.startswith(ELSEWHERE)]
    assert sorted({**PAPER, **OURS}) == sorted(LETTERED) == names


@pytest.mark.parametrize(("task", "text"), {**PAPER, **OURS}.items())
def test_generate(task: str, text: str) -> None:
    assert asked(task, "generate") == (text, ())


@pytest.mark.parametrize(("task", "text"), {**PAPER, **OURS}.items())
def test_likelihood_scores_options_verbatim(task: str, text: str) -> None:
    assert asked(task, "likelihood") == (text, sample_of(task).options)


@pytest.mark.parametrize(("task", "text"), LETTERED.items())
def test_choice_scores_letters(task: str, text: str) -> None:
    letters = ("A", "B", "C", "D")[: len(sample_of(task).options)]
    assert asked(task, "choice") == (text, letters)


@pytest.mark.parametrize(
    ("task", "command", "end"),
    [
        ("whatsup_a_left_right", "two_options", " Choose from the two options."),
        ("whatsup_a_left_right", "short", " Give a short answer."),
        ("whatsup_a_on_under", "answer", " Answer on or under."),  # performed badly (A.1)
        ("whatsup_b_front_behind", "short", " Give a short answer."),
        ("mmvp", "short", "\nGive a short answer."),
    ],
)
def test_other_commands(task: str, command: str, end: str) -> None:
    assert asked(task, "generate", command)[0].endswith(end)


# --- swapped --------------------------------------------------------------------------------------


def test_a_swapped_order_swaps_the_question() -> None:
    assert asked("whatsup_a_left_right", "generate", order=(1, 0))[0] == (
        "Is the beer bottle to the right of or to the left of the armchair? Answer right or left."
    )
    assert asked("whatsup_b_front_behind", "generate", order=(1, 0))[0] == (
        "Is the mug behind or in front of the plate? Answer behind or front."
    )
    assert asked("whatsup_a_four_way", "generate", order=(3, 2, 1, 0))[0] == (
        f"{FOUR} Answer with under, on, right or left."
    )


def test_a_swapped_order_reassigns_the_letters() -> None:
    """The letter depends on the position; candidates stay in canonical order."""
    text, candidates = asked("mmvp", "choice", order=(1, 0))
    assert text == f"{BUTTERFLY} (a) Closed (b) Open\n{LETTER}"
    assert candidates == ("B", "A")
    text, candidates = asked("mmvp", "likelihood", order=(1, 0))
    assert candidates == ("(b) Open", "(a) Closed")
    text, candidates = asked("whatsup_a_four_way", "choice", order=(1, 2, 3, 0))
    assert text == f"{FOUR}\nA. right\nB. on\nC. under\nD. left\n{LETTER}"
    assert candidates == ("D", "A", "B", "C")


# --- which commands -------------------------------------------------------------------------------


def resolve(tmp_path: Path, prompt: str, protocols: str, protocol: str) -> PromptBuilder:
    (tmp_path / "p.yaml").write_text(
        'prompt: mine\ntemplate: "T {{ question }} {{ command }}"\n'
        "commands: {theirs: From the template.}\n"
    )
    (tmp_path / "bare.yaml").write_text(
        'prompt: bare\ntemplate: "B {{ question }} {{ command }}"\n'
    )
    found = Registry([tmp_path, *REGISTRY.roots])
    text = (
        "task: t\nversion: 1\ndataset: {reader: jsonl, path: x}\n"
        "sample: {id: a, options: [a, b], target: 0, captions: [a, b]}\n"
        f"prompt: {prompt}\nprotocols: {protocols}\n"
    )
    spec = spec_check.parse(specs.TaskSpec, yamlfile.loads(text, Path("t.yaml")))
    return prompt_builder(spec, protocol, getattr(spec.protocols, protocol), found)


OWN = "{question: Q?, commands: {own: Of the task., other: Another.}}"


@pytest.mark.parametrize(
    ("prompt", "use", "commands"),
    [
        (OWN, "{}", {"own": "Of the task.", "other": "Another."}),
        (OWN, "{commands: {mine: Of the protocol.}}", {"mine": "Of the protocol."}),
        (OWN, "{template: mine}", {"theirs": "From the template."}),
        (OWN, "{template: bare}", {"own": "Of the task.", "other": "Another."}),
        (OWN, "{template: mine, commands: [yes_no]}", {"yes_no": "Answer yes or no."}),
        (OWN, "{commands: []}", {"none": ""}),
        (OWN, "{commands: {}}", {"none": ""}),
        ("{question: Q?}", "{}", {"none": ""}),
        ("{question: Q?, commands: [letter, short]}", "{}", {
            "letter": LETTER, "short": "Give a short answer."
        }),
        # The commands of the task's own template are not used: the task has its own.
        ("{template: mine, question: Q?}", "{template: mine}", {"none": ""}),
    ],
)  # fmt: skip
def test_which_commands(tmp_path: Path, prompt: str, use: str, commands: dict[str, str]) -> None:
    asks = resolve(tmp_path, prompt, f"{{generate: {use}}}", "generate")
    assert dict(asks.commands) == commands
    assert list(asks.commands) == list(commands)  # the first is the default
    assert asks.default_command == next(iter(commands))


def test_choice_brings_its_own_template(tmp_path: Path) -> None:
    asks = resolve(tmp_path, OWN, "{choice: {}}", "choice")
    assert (asks.template.prompt, asks.commands) == ("lettered", {"letter": LETTER})


def test_a_protocol_can_ask_another_question(tmp_path: Path) -> None:
    asks = resolve(tmp_path, OWN, "{generate: {question: 'Other {{ options[0] }}?'}}", "generate")
    sample = Sample("x", (), ("a", "b"), 0, 0)
    assert asks.prompt(sample, (1, 0), "own").text == "Other b? Of the task."


@pytest.mark.parametrize(
    ("prompt", "use", "message"),
    [
        ("{template: plian}", "{}", "t.yaml:5: unknown prompt 'plian'; did you mean 'plain'?"),
        (
            OWN,
            "{template: letterd}",
            "t.yaml:6: unknown prompt 'letterd'; did you mean 'lettered'?",
        ),
        ("{commands: [leter]}", "{}", "t.yaml:5: unknown command 'leter'; did you mean 'letter'?"),
        (OWN, "{commands: [shrt]}", "t.yaml:6: unknown command 'shrt'; did you mean 'short'?"),
    ],
)
def test_unknown_names(tmp_path: Path, prompt: str, use: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(tmp_path, prompt, f"{{generate: {use}}}", "generate")
    assert str(caught.value).startswith(message)


def test_an_unknown_command(tmp_path: Path) -> None:
    asks = resolve(tmp_path, OWN, "{generate: {}}", "generate")
    with pytest.raises(InputError, match="unknown command 'onw'; did you mean 'own'") as caught:
        asks.check_command("onw", "t", "generate")
    assert "Available: other, own, or 'all'" in str(caught.value)


@pytest.mark.parametrize("question", ["{{ nope }}", "{{ options[2] }}", "{{ options.x() }}"])
def test_a_question_that_cannot_be_rendered(tmp_path: Path, question: str) -> None:
    asks = resolve(tmp_path, f"{{question: '{question}'}}", "{generate: {}}", "generate")
    with pytest.raises(InputError, match=r"t\.yaml:5: prompt of sample x: "):
        asks.prompt(Sample("x", (), ("a", "b"), 0, 0), (0, 1), "none")


def test_more_options_than_letters(tmp_path: Path) -> None:
    """An error only if the options are shown with letters."""
    sample = Sample("x", (), tuple(map(str, range(27))), 0, 0)
    asks = resolve(tmp_path, OWN, "{generate: {}}", "generate")
    assert asks.prompt(sample, tuple(range(27)), "own").shown[26] == "26"
    asks = PromptBuilder(REGISTRY.prompt("lettered"), "Q?", {"none": ""})
    with pytest.raises(InputError, match="'letter' is undefined"):
        asks.prompt(sample, tuple(range(27)), "none")


@pytest.mark.parametrize(
    ("template", "text"),
    [("plain", "Q?"), ("lettered", "Q?\nA. a\nB. b"), ("mmvp", "Q? (a) a (b) b")],
)
def test_no_trailing_whitespace_without_a_command(template: str, text: str) -> None:
    asks = PromptBuilder(REGISTRY.prompt(template), "Q?", {"none": ""})
    prompt = asks.prompt(Sample("x", (), ("a", "b"), 0, 0), (0, 1), "none")
    assert prompt.text == text


def test_a_field_is_not_rendered_twice() -> None:
    """Braces in the data are text, not code."""
    fields: dict[str, Any] = {"q": "{{ options }} {% if %}"}
    asks = PromptBuilder(REGISTRY.prompt("plain"), "{{ q }}", {"none": ""})
    prompt = asks.prompt(Sample("x", (), ("a", "b"), 0, 0, fields=fields), (0, 1), "none")
    assert prompt.text == "{{ options }} {% if %}"

"""Build prompts from a sample, an option order and a command."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vlm_harness.errors import InputError, not_found
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import PromptSpec, ProtocolUse, TaskSpec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Prompt, Sample

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_COMMAND = "none"


@dataclass(frozen=True)
class PromptBuilder:
    """Template, question and commands of one task under one protocol, resolved."""

    template: PromptSpec
    question: str
    commands: Mapping[str, str]
    """At least one; ``{"none": ""}`` if the task has none. The first is the default."""
    where: str = field(default="", compare=False)

    @cached_property
    def default_command(self) -> str:
        return next(iter(self.commands))

    def check_command(self, name: str, task: str, protocol: str) -> None:
        if name not in self.commands:
            raise not_found(
                f"task {task}, protocol {protocol}: unknown command {name!r}",
                name,
                self.commands,
                hint="Available: {}, or 'all'.",
            )

    def _shown(self, options: list[str], position: int) -> str:
        context: dict[str, Any] = {
            "option": options[position],
            "options": options,
            "number": position + 1,
        }
        if position < len(LETTERS):  # otherwise a template that uses `letter` is an error
            context["letter"] = LETTERS[position]
        return str(compile_template(self.template.option)(context))

    def prompt(self, sample: Sample, order: Order, command: str) -> Prompt:
        """Render the user turn.

        Raises:
            InputError: a template cannot be rendered for this sample.
        """
        context: dict[str, Any] = {
            **sample.fields,
            "options": [sample.options[i] for i in order],
            "letters": list(LETTERS[: len(order)]),
        }
        try:
            question = str(compile_template(self.question)(context))
            sentence = str(compile_template(self.commands[command])(context))
            shown = tuple(
                self._shown(context["options"], position) for position in range(len(order))
            )
            text = compile_template(self.template.template)(
                {
                    "question": question,
                    "command": sentence,
                    "options": list(shown),
                    "letters": context["letters"],
                }
            )
        except TemplateError as error:
            raise InputError(f"prompt of sample {sample.id}: {error}", where=self.where) from None
        return Prompt(
            text=str(text).strip(), order=order, shown=shown, command=command, question=question
        )


def prompt_builder(
    task: TaskSpec, protocol: str, use: ProtocolUse, registry: Registry
) -> PromptBuilder:
    """Resolve the template and the commands of a task under a protocol.

    The commands are those of the protocol if it has any. Otherwise, if the protocol has a template
    other than the task's, they are the commands of that template. Otherwise they are the task's.
    """
    at = ("protocols", protocol, "template") if use.template else ("prompt", "template")
    template = registry.prompt(use.template or task.prompt.template, task.at(*at))
    own_template = use.template is not None and use.template != task.prompt.template
    commands: dict[str, str] | list[str]
    if use.commands is not None:
        commands, where = use.commands, task.at("protocols", protocol, "commands")
    elif own_template and template.commands:
        commands, where = template.commands, template.at("commands")
    else:
        commands, where = task.prompt.commands, task.at("prompt", "commands")
    if isinstance(commands, list):
        commands = {name: registry.command(name, where) for name in commands}
    question = use.question if use.question is not None else task.prompt.question
    return PromptBuilder(template, question, commands or {NO_COMMAND: ""}, task.at("prompt"))

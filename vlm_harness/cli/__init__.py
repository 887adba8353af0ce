"""The command line. This module imports only click, so that ``--help`` is there at once."""

import sys
from typing import Any

import click

from vlm_harness import __version__
from vlm_harness.errors import HarnessError, printable

COMMANDS = {
    "run": "vlm_harness.cli.run:run",
    "list": "vlm_harness.cli.inspect:list_command",
    "show": "vlm_harness.cli.inspect:show",
    "schema": "vlm_harness.cli.inspect:schema",
    "validate": "vlm_harness.cli.validate:validate",
    "preview": "vlm_harness.cli.preview:preview",
    "data": "vlm_harness.cli.data:data",
    "rescore": "vlm_harness.cli.rescore:rescore_command",
    "export": "vlm_harness.cli.export:export",
    "compare": "vlm_harness.cli.compare:compare_command",
    "report": "vlm_harness.cli.report:report_command",
    "contact-sheet": "vlm_harness.cli.contact_sheet:contact_sheet",
    "agreement": "vlm_harness.cli.agreement:agreement",
    "mine-pairs": "vlm_harness.cli.mine_pairs:mine_pairs",
    "reproduce": "vlm_harness.cli.reproduce:reproduce",
    "leaderboard": "vlm_harness.cli.leaderboard:leaderboard",
    "cache": "vlm_harness.cli.cache:cache",
}
SUMMARIES = {
    "run": "Evaluate models on tasks (the default command).",
    "list": "List tasks, groups, models, prompts, metrics, ...",
    "show": "Show a task, model or prompt, resolved.",
    "schema": "Print the JSON Schema of a kind of YAML file.",
    "validate": "Check task, model and prompt files.",
    "preview": "Show what a model would be asked, without running it.",
    "data": "List, check or prepare the data of tasks.",
    "rescore": "Score a run again from its log alone.",
    "export": "Write results for other tools: lm-eval, model card, CSV, Markdown, LaTeX.",
    "compare": "Compare two runs, or two models of one run, sample by sample.",
    "report": "Write runs as one HTML page: scores, and every sample with its images.",
    "contact-sheet": "Draw a few pairs of a run and what was answered.",
    "agreement": "Set outcomes against how alike an encoder finds the images.",
    "mine-pairs": "Find image pairs that two encoders disagree on.",
    "reproduce": "Measure a published table's cells again, and compare.",
    "leaderboard": "Submit runs, and build the site of all results.",
    "cache": "Show or clear what models answered before (run --cache).",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used; options alone mean ``run``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("--help", "-h", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from vlm_harness.errors import suggest

        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"no command {args[0]!r}{suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="vlm-harness --model M --tasks T is short for vlm-harness run --model M --tasks T.",
)
@click.version_option(__version__, prog_name="vlm-harness")
def cli() -> None:
    """Evaluate vision-language models on pairs of images that look alike.

    \b
    vlm-harness --model llava --tasks whatsup_a
    vlm-harness --model ./my-checkpoint --tasks mmvp --protocol choice,likelihood
    vlm-harness list tasks
    """


def main() -> None:
    """Entry point: errors become one message and an exit code."""
    try:
        cli(standalone_mode=False)
    except HarnessError as error:
        click.echo(f"error: {printable(error)}", err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was finished is kept", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # `vlm-harness list tasks | head` is no bug.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        # A path that the system refuses, wherever it is first looked at, is bad input.
        click.echo(f"error: {printable(error.filename)}: {error.strerror}", err=True)
        sys.exit(2)

"""The command line. This module imports only click, so that ``--help`` is fast."""

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
    "extraction-report": "vlm_harness.cli.extraction_report:extraction_report_command",
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
    "show": "Show a task, model or prompt with includes resolved.",
    "schema": "Print the JSON Schema of a kind of YAML file.",
    "validate": "Check task, model and prompt files.",
    "preview": "Show the prompts of one sample, without running a model.",
    "data": "List, verify or download the data of tasks.",
    "rescore": "Recompute the scores of a run from its log.",
    "extraction-report": "Show unparsed answers, and scores under other extractors.",
    "export": "Export results as lm-eval, model card, CSV, Markdown or LaTeX.",
    "compare": "Compare two runs, or two models of one run, sample by sample.",
    "report": "Write an HTML report: scores, and every sample with its images.",
    "contact-sheet": "Render a few pairs, with each model's answer, as a PNG.",
    "agreement": "Relate accuracy to image-pair similarity.",
    "mine-pairs": "Find image pairs that one encoder finds similar and another different.",
    "reproduce": "Rerun the models of a published table and compare the numbers.",
    "leaderboard": "Submit runs, and build the leaderboard site.",
    "cache": "Show or clear the cache of answers (run --cache).",
}
RESUMABLE = ("run", "reproduce")
"""Commands that save finished samples and resume when they are run again."""
RESUME = " Finished samples are saved; run the same command to resume."


class LazyGroup(click.Group):
    """Imports a command's module only when it is used; the default command is ``run``."""

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
            raise click.UsageError(f"unknown command {args[0]!r}{suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="vlm-harness --model M --tasks T is short for vlm-harness run --model M --tasks T.",
)
@click.version_option(__version__, prog_name="vlm-harness")
def cli() -> None:
    """Evaluate vision-language models on pairs of similar images.

    \b
    vlm-harness --model llava --tasks whatsup_a
    vlm-harness --model ./my-checkpoint --tasks mmvp --protocol choice,likelihood
    vlm-harness list tasks
    """


def _resumable(args: list[str]) -> bool:
    """Whether the command line resumes when it is run again."""
    return not args or args[0].startswith("-") or args[0] in RESUMABLE


def main() -> None:
    """Entry point: turn errors into one message and an exit code."""
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
        click.echo(f"Interrupted.{RESUME if _resumable(sys.argv[1:]) else ''}", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # `vlm-harness list tasks | head` closes the pipe early: not an error.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        # A path that the operating system rejects is bad input, wherever it is first used.
        click.echo(f"error: {printable(error.filename)}: {error.strerror}", err=True)
        sys.exit(2)

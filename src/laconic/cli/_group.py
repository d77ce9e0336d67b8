"""The ``laconic`` command group: lazy subcommands, and errors in one line."""

import re
import warnings
from importlib import import_module
from typing import Any

import click

from laconic import __version__
from laconic._nearest import look_up

COMMANDS = {
    "bench": "Measure bits and speed on this machine.",
    "compare": "Compare methods on a data set: gradient norm against bits sent.",
    "reproduce": "Run the papers' experiments and compare them with the papers.",
    "compressors": "Print the constants that each compressor declares.",
    "inspect": "Show what a packed message or a checkpoint holds.",
    "plan": "Predict the step of each method on these machines, and pick one or none.",
    "warmup": "Compile the hot loops ahead.",
    "demo": "Train a small transformer on four nodes with 1 % of the bytes.",
}


_ARGUMENTS = "nodes|rounds|multiples|regularizer|scale|seed"
"""Of functions of the library that are options of a command too."""


class CommandGroup(click.Group):
    """A group whose commands are the modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, for the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The module's ``command``."""
        look_up("command", cmd_name, COMMANDS)
        command: click.Command = import_module(f"laconic.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The commands with one line each, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of the library in one line, without a traceback."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show
                return super().invoke(ctx)
        except click.UsageError as error:
            path = (error.ctx or ctx).command_path
            raise _Refused(f"{error.format_message()} See '{path} --help'.") from error
        except (ValueError, OSError) as error:
            raise _Refused(_in_options(" ".join(str(error).split()))) from error
        except ModuleNotFoundError as error:
            if error.name not in ("sklearn", "scipy", "matplotlib", "threadpoolctl"):
                raise
            raise _Refused(f"this command needs {error.name}: pip install 'laconic[lab,cli]'") from error


def _show(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line on standard error."""
    click.echo(f"laconic: warning: {_in_options(str(message))}", err=True)


def _in_options(message: str) -> str:
    """The message with the command's options in the place of Python's arguments."""
    message = re.sub(rf"\b({_ARGUMENTS})='?([\w.]+)'?", r"--\1 \2", message)
    message = re.sub(rf"\b({_ARGUMENTS}) must\b", r"--\1 must", message)
    return message.replace("the tolerance must", "--stop must").replace(
        "use LeastSquares,", "use --problem least-squares,"
    )


class _Refused(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        """One line on standard error."""
        click.echo(f"laconic: {self.message}", err=True)


@click.command(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="laconic")
def laconic() -> None:
    """Say less, learn the same: compressed gradients with error feedback."""

"""The `backchannel` command.

Each command is imported when it is used: `--help` and tab completion read a table.
"""

import importlib
import os
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from backchannel.ops.groups import Group
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.extras import remedy

# Must be set before numpy is imported. Our matrices are small: several threads gain nothing on an idle machine,
# and wait for each other on a busy one, where a policy then takes seconds instead of tenths of a second.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_OF_DISKS: Final = frozenset({ENOSPC, EDQUOT, EFBIG, EIO, EROFS})


class _Entry(NamedTuple):
    """A command: its import path, and its line in the list of commands, which must not cost an import."""

    target: str
    help: str


_COMMANDS: Final = {
    "run": _Entry(
        "backchannel.ops.commands.run:run", "Learn from SOURCE, publish the policy, and print what was learned."
    ),
    "worker": _Entry(
        "backchannel.ops.commands.worker:worker",
        "Learn from the Kafka topics together with the group's other workers, and publish the policy.",
    ),
    "serve": _Entry(
        "backchannel.ops.serve.command:serve",
        "Serve decisions from the newest policy over HTTP, and accept the events that it learns from.",
    ),
    "dashboard": _Entry(
        "backchannel.ops.dashboard.command:dashboard",
        "Serve a page that shows what was learned, how well it works, and what the policy does with a query.",
    ),
    "diagnose": _Entry(
        "backchannel.ops.commands.diagnose:diagnose",
        "Rank components by what their repair would save, from the newest policy.",
    ),
    "label": _Entry(
        "backchannel.ops.labels.command:label", "Choose turns for people to label, and export labels to train others."
    ),
    "health": _Entry(
        "backchannel.ops.health.command:health", "Check how the system is doing, and what to do about it."
    ),
    "prime": _Entry(
        "backchannel.ops.commands.prime:prime",
        "Load predicted scores from FILE into the memory index, and publish them.",
    ),
    "forget-user": _Entry("backchannel.ops.commands.forget_user:forget_user", "Erase what is stored about a user."),
    "memory": _Entry("backchannel.ops.inspect.memory:memory", "Inspect the memory index."),
    "produce": _Entry("backchannel.ops.commands.produce:produce", "Send the events of FILE to the topics."),
    "topics": _Entry(
        "backchannel.ops.commands.topics:topics",
        "Create, check and delete the Kafka topics, and copy events to topics keyed by session.",
    ),
    "dead-letters": _Entry(
        "backchannel.ops.commands.dead_letters:dead_letters",
        "Read the records that were not valid events, and replay them once the cause is gone.",
    ),
    "broker": _Entry(
        "backchannel.ops.local.broker:broker", "Run Apache Kafka on this machine, for development and tests."
    ),
    "snapshots": _Entry(
        "backchannel.ops.commands.snapshots:snapshots", "List, compare, roll back, pin and copy policy versions."
    ),
    "store": _Entry("backchannel.ops.commands.store:store", "Create, check and migrate the SQL store."),
    "config": _Entry(
        "backchannel.ops.commands.config:config", "Print the effective configuration as TOML, every key explained."
    ),
    "convert": _Entry(
        "backchannel.ops.lab.convert.command:convert", "Convert a log to events: JSON lines in time order."
    ),
    "demo": _Entry(
        "backchannel.ops.lab.demo.command:demo",
        "Learn in a closed loop with a simulated world, and report the results.",
    ),
    "evaluate": _Entry(
        "backchannel.ops.evaluate.command:evaluate",
        "Estimate from LOG what other policies would have earned.",
    ),
    "rephrases": _Entry(
        "backchannel.ops.lab.rephrases.command:rephrases",
        "Train and evaluate the rephrase detector, and evaluate rewrites.",
    ),
    "rewrites": _Entry(
        "backchannel.ops.inspect.rewrites:rewrites", "Inspect the learned rewrites, and block or pin some."
    ),
    "allocate": _Entry(
        "backchannel.ops.inspect.allocation:allocate",
        "Show which strategies the newest policy asks for QUERY, and what each feature adds to their expected rewards.",
    ),
    "taught": _Entry("backchannel.ops.inspect.taught:taught", "List, show and undo what people taught."),
    "bandits": _Entry("backchannel.ops.lab.bandits.command:bandits", "Compare bandits."),
    "bench": _Entry("backchannel.ops.lab.bench.command:bench", "Measure costs side by side with peers."),
    "capacity": _Entry(
        "backchannel.ops.lab.capacity:capacity",
        "Estimate the workers, partitions and stores that a load needs, and how often one publisher can publish.",
    ),
    "playground": _Entry(
        "backchannel.ops.lab.playground.command:playground",
        "Serve a page on which to search CORPUS, click, and watch the next results change with what is learned.",
    ),
    "lab": _Entry(
        "backchannel.ops.lab.command:lab",
        "Run experiments on corpora of your own, on public ones, and in simulated worlds.",
    ),
    "schemas": _Entry(
        "backchannel.ops.commands.schemas:schemas",
        "Write the JSON Schemas of the events and the AsyncAPI document of the topics.",
    ),
}


class _Group(Group):
    """Imports a command when it is used: most need packages that others do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _COMMANDS[cmd_name].target.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            install = remedy(error)
            if install is None:
                raise
            name = cmd_name
            return click.Command(
                name,
                help=f"Needs {install}.",
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
                callback=lambda: _need(name, install),
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """See `click.Group.format_commands`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """See `click.Group.shell_complete`."""
        names = [name for name in _COMMANDS if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=_COMMANDS[name].help) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            explanation = _explanation(error)
            if explanation is None:
                raise
            raise click.ClickException(explanation) from None


def _explanation(error: Exception) -> str | None:
    """Return the message for an error that the user can fix; None if it is a bug, or for click to handle."""
    if isinstance(error, BackchannelError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (install := remedy(error)):
        return f"{error.name} is needed: {install}"
    if isinstance(error, OSError) and error.filename is not None:  # otherwise it may be a broken pipe, or a bug
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _OF_DISKS:  # writing to an open file names none
        return f"the output cannot be written: {error.strerror}"
    return None


def _need(command: str, install: str) -> None:
    raise click.ClickException(f"`backchannel {command}` needs more packages: {install}")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="backchannel")
def main() -> None:
    """Learn from clicks, barge-ins and rephrases as they happen, and publish what was learned.

    \b
    Try it:                 backchannel demo
    Learn from your events: backchannel run events.jsonl --store sqlite:///policy.db
    Read the policy:        from backchannel import PolicyReader
    """

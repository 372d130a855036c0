"""The `backchannel` command."""

import importlib
import os
from typing import Any, Final

import click

# To be set before numpy is imported. Our matrices are small: more threads than one gain nothing on an idle machine, and
# on a busy one they wait for each other, which takes a policy seconds instead of tenths.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_COMMANDS: Final = {
    "run": "backchannel.ops.commands.run:run",
    "worker": "backchannel.ops.commands.worker:worker",
    "dashboard": "backchannel.ops.dashboard.command:dashboard",
    "health": "backchannel.ops.health.command:health",
    "prime": "backchannel.ops.commands.prime:prime",
    "forget-user": "backchannel.ops.commands.forget_user:forget_user",
    "memory": "backchannel.ops.inspect.memory:memory",
    "produce": "backchannel.ops.commands.produce:produce",
    "topics": "backchannel.ops.commands.topics:topics",
    "broker": "backchannel.ops.local.broker:broker",
    "snapshots": "backchannel.ops.commands.snapshots:snapshots",
    "store": "backchannel.ops.commands.store:store",
    "config": "backchannel.ops.commands.config:config",
    "convert": "backchannel.ops.lab.convert.command:convert",
    "demo": "backchannel.ops.lab.demo.command:demo",
    "evaluate": "backchannel.ops.evaluate.command:evaluate",
    "rephrases": "backchannel.ops.lab.rephrases.command:rephrases",
    "rewrites": "backchannel.ops.inspect.rewrites:rewrites",
    "bandits": "backchannel.ops.lab.bandits.command:bandits",
    "bench": "backchannel.ops.lab.bench.command:bench",
    "capacity": "backchannel.ops.lab.capacity:capacity",
    "schemas": "backchannel.ops.commands.schemas:schemas",
}
_EXTRAS: Final = {
    "aiohttp": "kafka",
    "alembic": "learn",
    "aiokafka": "kafka",
    "faust": "kafka",
    "jellyfish": "learn",
    "jinja2": "demo",
    "kafka": "kafka",
    "matplotlib": "demo",
    "prometheus_client": "kafka",
    "rapidfuzz": "learn",
    "river": "learn",
    "scipy": "learn",
}


class _Group(click.Group):
    """Imports a command when it is asked for: the parts have unlike needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # A path that cannot be read or written is the user's to mend. Without one it is none of that: a broken
            # pipe, which click knows, or a fault of ours.
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from None


def remedy(error: ModuleNotFoundError) -> str | None:
    """Return what installs the package that is not there; None if that is none of an extra's."""
    extra = _EXTRAS.get(error.name or "")
    return f"pip install 'backchannel[{extra}]'" if extra else None


def _need(command: str, install: str) -> None:
    raise click.ClickException(f"`backchannel {command}` needs more packages: {install}")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="backchannel")
def main() -> None:
    """Learn from clicks, barge-ins and rephrases as they happen, and publish what was learned.

    \b
    Try it:                 backchannel demo
    Learn from your events: backchannel run events.jsonl --store sqlite:///policy.db
    Read the policy:        from backchannel.streams.serving.reader import PolicyReader
    """

"""`backchannel config`: the effective configuration, with what each key means."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import orjson
from msgspec import Struct, inspect

from backchannel.agents.bandit.features import DERIVED, DERIVED_MEANINGS, HISTORY, MAX_DIMENSION, Feature
from backchannel.agents.bandit.users import USER_FEATURES
from backchannel.streams.config import Config, ConfigError, load

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda _context, _option, path: _load(path),
    help="A TOML file; `backchannel config` prints one. Without it the defaults hold.",
    metavar="FILE",
)
"""Hands a command its checked `Config`."""


def _load(path: Path | None) -> Config:
    if path is None:
        return Config()
    try:
        return load(path)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


@click.command("config")
@config_option
@click.option("--markdown", is_flag=True, help="As tables for people, instead of TOML.")
def config(config: Config, markdown: bool) -> None:
    """Print the effective configuration as TOML, every key explained.

    \b
    backchannel config > backchannel.toml     to begin your own
    """
    click.echo(reference(config) if markdown else render(config), nl=False)


def render(config: Config) -> str:
    """Return `config` as a commented TOML document."""
    lines = []
    for section in _fields(config):
        lines += [f"# {section.description}", f"[{section.name}]"]
        for key in _fields(section.value):
            lines += [f"# {key.description}{key.bounds}", f"{key.name} = {_toml(msgspec.to_builtins(key.value))}"]
        lines.append("")
    return "\n".join(lines)


def reference(config: Config) -> str:
    """Return `config` as a Markdown document."""
    lines = [
        "# Configuration",
        "",
        "Written by `backchannel config --markdown`. `backchannel config > backchannel.toml` writes a file to begin",
        "with; a key that a file does not name has its default.",
    ]
    for section in _fields(config):
        lines += [
            "",
            f"## [{section.name}]",
            "",
            section.description,
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key in _fields(section.value):
            default = " ".join(_toml(msgspec.to_builtins(key.value)).split())
            lines.append(f"| `{key.name}` | `{default}` | {key.description}{key.bounds} |")
    return "\n".join([*lines, *_features()]) + "\n"


def _features() -> Iterator[str]:
    """What `bandit.features` may hold, as lines of Markdown."""
    yield from (
        "",
        "## Features",
        "",
        f"What `bandit.features` may hold: at most {MAX_DIMENSION} columns in all, one of which is the constant 1.",
        "A key without a default must be given.",
        "",
        "| kind | keys | meaning |",
        "|---|---|---|",
    )
    for kind in get_args(Feature):
        described = inspect.type_info(kind)
        assert isinstance(described, inspect.StructType)
        keys = ", ".join(
            f"`{field.name}`" if field.required else f"`{field.name}` (default `{_toml(field.default)}`)"
            for field in described.fields
        )
        yield f"| `{described.tag}` | {keys} | {(kind.__doc__ or '').strip()} |"
    yield from (
        "",
        "A `name` is that of a value in the query's `context`, or of one that is derived from every query:",
        "",
        "| name | meaning |",
        "|---|---|",
        *(f"| `{name}` | {DERIVED_MEANINGS[name]} |" for name in DERIVED),
        "",
        f"`{HISTORY}`, {', '.join(f'`{name}`' for name in sorted(USER_FEATURES))} are learned:",
        "[the tutorial](tutorial.md#2-what-to-learn) says what they are.",
    )


class _Field(Struct):
    name: str
    value: Any
    description: str
    bounds: str


def _fields(struct: Struct) -> Iterator[_Field]:
    described = inspect.type_info(type(struct))
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        kind, description = field.type, ""
        while isinstance(kind, inspect.Metadata):
            description = (kind.extra_json_schema or {}).get("description", description)
            kind = kind.type
        yield _Field(field.name, getattr(struct, field.name), description, _bounds(kind))


def _bounds(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return f" (one of {', '.join(map(str, kind.values))})"
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return ""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    bounds = [f"{word} {getattr(kind, name):g}" for name, word in words.items() if getattr(kind, name) is not None]
    return f" ({', '.join(bounds)})" if bounds else ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], dict):
            return "".join(["[\n", *(f"  {_toml(item)},\n" for item in value), "]"])
        return f"[{', '.join(map(_toml, value))}]"
    return orjson.dumps(value).decode()  # a TOML string, number or boolean is written like a JSON one

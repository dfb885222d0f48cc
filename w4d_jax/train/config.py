"""A run's configuration: a Python file, and what the command line changes of it."""

import ast
import dataclasses
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict

from w4d_jax.train.cluster import ClusterConfig
from w4d_jax.types import InputError

# Of the machine more than of the run: what a config need not say.
# accumulate: parts that a batch is taken in; patience: seconds that it may take to come.
DEFAULTS = {
    "cluster": dataclasses.asdict(ClusterConfig()),
    "accumulate": 1,
    "patience": 600.0,
}


def load_config(spec: str, changes: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """FILE.py[:preset] -> what the file's get_config(preset) returns, with DEFAULTS and
    with each change ("a.b", "value") made."""
    file, _, preset = spec.partition(":")
    if not Path(file).is_file():
        raise InputError(f"config {file}: no such file")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise InputError(f"config {file}: need a function get_config(preset)")
    config = get_config(preset) if preset else get_config()
    config = ConfigDict({**DEFAULTS, **config}).lock()
    for key, text in changes:
        override(config, key, text)
    return config


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets config.a.b, called "a.b", to the value that `text` spells; its type stays."""
    *groups, last = key.split(".")
    group = config
    for part in (*groups, last):
        if not isinstance(group, ConfigDict) or part not in group:
            there = ", ".join(group) if isinstance(group, ConfigDict) else "nothing below"
            raise InputError(f"--config.{key}: no such key {part!r}; there is {there}")
        group, parent = group[part], group
    if isinstance(group, ConfigDict):
        raise InputError(f"--config.{key}: is a group; set one of {', '.join(group)}")
    parent[last] = _parse(text, group, f"--config.{key}")


def _parse(text: str, old, name: str):
    """A string as it stands; anything else as Python spells it, of the type of `old`."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(old):
        raise InputError(f"{name}={text}: need {type(old).__name__}, as in {old!r}")
    return value


def filled(kind, group, name: str):
    """The dataclass `kind` from a group of a config, whose keys and choices must be its."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(group) - set(fields))
    if unknown:
        raise InputError(
            f"config.{name}: no such key {', '.join(unknown)}, it has {', '.join(fields)}"
        )
    for key, field in fields.items():
        if key not in group and field.default is dataclasses.MISSING:
            raise InputError(f"config.{name}: has no {key}")
    for key, hint in get_type_hints(kind).items():
        choices = get_args(hint) if get_origin(hint) is Literal else None
        if choices and key in group and group[key] not in choices:
            raise InputError(
                f"config.{name}.{key}={group[key]!r}: need one of {', '.join(choices)}"
            )
    return kind(**group)

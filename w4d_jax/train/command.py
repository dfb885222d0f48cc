"""What command lines that take a config have in common."""

import argparse
from collections.abc import Iterator


def config_parser(doc: str | None, prog: str | None = None, required: bool = True):
    """A parser that asks for --config; `parse` also takes --config.key=value."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=required, metavar="FILE.py[:preset]")
    return parser


def parse(parser, arguments):
    """-> (the parser's own arguments, what train/config.py is to change of the config)."""
    args, rest = parser.parse_known_args(arguments)
    return args, list(_assignments(rest, parser))


def _assignments(words: list[str], parser) -> Iterator[tuple[str, str]]:
    """--config.a.b=value and --config.a.b value -> ("a.b", "value")."""
    rest = iter(words)
    for word in rest:
        key, equals, text = word.partition("=")
        if not key.startswith("--config."):
            parser.error(f"unrecognised argument: {word}")
        if not equals and not (text := next(rest, "")):
            parser.error(f"{word}: need a value")
        yield key.removeprefix("--config."), text

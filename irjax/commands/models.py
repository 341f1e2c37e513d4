"""irjax models: the weights that ship with irjax."""

from __future__ import annotations

import argparse

SUMMARY = "list the weights that ship with irjax, and what they were made of"
DESCRIPTION = "Lists the weights that ship with irjax, and what they were made of."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("name", nargs="*", help="show only these, with their whole card")


def run(command: argparse.Namespace) -> None:
    """Runs it."""
    import jax

    from irjax import weights

    shipped = weights.names()
    unknown = [name for name in command.name if name not in shipped]
    if unknown:
        raise ValueError(f"there are no weights {', '.join(unknown)}; there are {', '.join(shipped) or 'none'}")
    if not shipped:
        print("no weights ship with this installation")
    for name in command.name or shipped:
        variables, config, card = weights.load_weights(shipped[name])
        number = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        print(
            f"{name}: {config.method}, {number:,} parameters, {shipped[name].stat().st_size / 1e6:.1f} MB; "
            f"images fitted into {config.size}x{config.size}, threshold {config.threshold:g}"
        )
        for field, value in card.items():
            if command.name or field in ("data", "licence", "validation"):
                print(f"  {field}: {value}")

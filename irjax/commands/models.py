"""irjax models: lists the weights that ship with irjax."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from irjax.errors import UsageError

SUMMARY = "list the weights that ship with irjax and how they were made"
DESCRIPTION = (
    "Lists the weights that ship with irjax and their figures on validation images (masks by regions, under the "
    "protocol irjax; SPIRE's points by distance); with names, their complete cards."
)

# Without Fa, which is a rate of pixels for masks but of points for SPIRE.
_METRICS = ("IoU", "nIoU", "Pd", "F1", "TP", "FP", "FN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("name", nargs="*", help="show only these, with their complete cards")


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.detector import weights

    shipped = weights.names()
    unknown = [name for name in command.name if name not in shipped]
    if unknown:
        raise UsageError(f"there are no weights {', '.join(unknown)}; there are {', '.join(shipped) or 'none'}")
    if not shipped:
        print("no weights ship with this installation")
        return

    rows = []
    for place, name in enumerate(command.name or shipped):
        variables, config, card = weights.load_weights(shipped[name])
        megabytes = shipped[name].stat().st_size / 1e6
        if command.name:
            print("\n" * bool(place) + _about(name, variables, config, megabytes))
            for field, value in card.items():
                print(f"  {field}: {value if isinstance(value, str) else json.dumps(value, indent=2)}")
        else:
            print(_about(name, variables, config, megabytes))
            rows += _rows(name, card)
    if rows:
        from irjax.reports.tables import plain_table

        print("\n" + plain_table(["weights", "validation split", "images", *_METRICS], rows))


def _about(name: str, variables: Mapping[str, Any], config: Any, megabytes: float) -> str:
    import jax

    number = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    shown = "windows of" if config.slide else "images fitted into"
    return (
        f"{name}: {config.method}, {number:,} parameters, {megabytes:.1f} MB; "
        f"{shown} {config.size}x{config.size}, threshold {config.threshold:g}"
    )


def _rows(name: str, card: Mapping[str, Any]) -> list[list[Any]]:
    """Returns a row for each split of the card's figures."""
    from irjax.metrics.protocols import protocol
    from irjax.reports.tables import format_value

    figures = card.get("validation")
    return [
        [name, split, one["images"]]
        + [format_value(key, one["metrics"].get(key, float("nan")), protocol("irjax")) for key in _METRICS]
        for split, one in (figures.items() if isinstance(figures, Mapping) else ())
    ]

"""irjax models: lists the weights that ship with irjax."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

from tyro.conf import Positional

from irjax.commands.shared import arg
from irjax.errors import UsageError

# Without Fa, which is a rate of pixels for masks but of points for SPIRE.
_METRICS = ("IoU", "nIoU", "Pd", "F1", "TP", "FP", "FN")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """Lists the weights that ship with irjax and their figures on validation images.

    Masks are scored by regions, under the protocol irjax; SPIRE's points by distance. With names, the complete cards of
    these weights are shown.

    Attributes:
      names: show only these, with their complete cards.
    """

    names: Annotated[Positional[tuple[str, ...]], arg("[NAME ...]")] = ()

    def run(self) -> None:
        """Prints the list or the cards."""
        from irjax.detector import weights

        shipped = weights.names()
        unknown = [name for name in self.names if name not in shipped]
        if unknown:
            raise UsageError(f"there are no weights {', '.join(unknown)}; there are {', '.join(shipped) or 'none'}")
        if not shipped:
            print("no weights ship with this installation")
            return

        rows = []
        for place, name in enumerate(self.names or shipped):
            variables, config, card = weights.load_weights(shipped[name])
            megabytes = shipped[name].stat().st_size / 1e6
            if self.names:
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

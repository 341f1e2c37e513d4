"""irjax models: lists weights with their figures, and shares them on the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

from tyro.conf import Positional

from irjax.commands.shared import File, Switch, Text, arg
from irjax.errors import UsageError, note

# Without Fa, which is a rate of pixels for masks but of points for SPIRE.
_METRICS = ("IoU", "nIoU", "Pd", "F1", "TP", "FP", "FN")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """Lists the weights that ship with irjax and their figures on validation images, or uploads weights.

    Multiply-adds are those of one square of the model's size. Masks are scored by regions, under the protocol irjax;
    SPIRE's points by distance. With names, the complete cards of these weights are shown.

    Attributes:
      names: show only these, with their complete cards; also hf:OWNER/NAME, of the Hugging Face Hub.
      json: also write everything that is known of them to this file.
      push: upload the weights of --model to this repository of the Hugging Face Hub (docs/checkpoints.md).
      model: with --push: shipped weights, a .safetensors file, or a run directory, whose chosen checkpoint is taken.
      private: with --push: make a new repository private.
    """

    names: Annotated[Positional[tuple[str, ...]], arg("[NAME ...]")] = ()
    json: File = None
    push: Annotated[Text, arg("OWNER/NAME")] = None
    model: Text = None
    private: Switch = False

    def run(self) -> None:
        """Prints the list or the cards, or uploads."""
        from irjax.detector.programs import keep_programs

        keep_programs()
        if self.push is not None:
            self._push()
            return
        if self.model is not None or self.private:
            raise UsageError(f"--{'private' if self.private else 'model'} goes with --push")
        models = {name: facts_of(path) for name, path in self._files().items()}
        if self.json:
            self._write(models)
        if not models:
            print("no weights ship with this installation")
        elif self.names:
            print("\n\n".join(f"{_about(name, facts)}\n{_card(facts['card'])}" for name, facts in models.items()))
        else:
            _print_list(models)

    def _files(self) -> dict[str, pathlib.Path]:
        from irjax.detector import hub, weights

        shipped = weights.names()
        unknown = [name for name in self.names if name not in shipped and not hub.is_on_hub(name)]
        if unknown:
            raise UsageError(f"there are no weights {', '.join(unknown)}; there are {', '.join(shipped) or 'none'}")
        return {name: shipped.get(name) or hub.download(name) for name in self.names or shipped}

    def _write(self, models: Mapping[str, Any]) -> None:
        import irjax
        from irjax.io.files import write_json

        write_json(str(self.json), {"irjax": irjax.__version__, "weights": models})

    def _push(self) -> None:
        import tempfile

        from irjax.detector import hub

        if self.names or self.json:
            raise UsageError(f"--push goes without {'--json' if self.json else 'NAME'}")
        if self.model is None:
            raise UsageError("--push needs --model: the weights or the run directory")
        name = f"hf:{self.push}"
        if hub.repository_of(name)[1]:
            raise UsageError(f"--push is OWNER/NAME, without a revision, got {self.push!r}")
        with tempfile.TemporaryDirectory() as folder:
            files = hub.write_repository(name, self._weights(pathlib.Path(folder) / "run"), folder)
            who = "private" if self.private else "public"
            print(f"uploading to {hub.endpoint()}/{self.push}, {who} if it is new; a new commit replaces these files:")
            for file in files:
                print(f"  {file.name}: {file.stat().st_size:,} bytes, SHA-256 {_sha256(file)}", flush=True)
            print(f"uploaded: {hub.upload(name, files, private=self.private)}; irjax.load({name!r}) loads it")

    def _weights(self, folder: pathlib.Path) -> pathlib.Path:
        """Returns the weight file of --model; that of a run is written into this folder."""
        from irjax.detector.loading import resolve
        from irjax.errors import UserError
        from irjax.experiments.ship import ship

        path = resolve(str(self.model))
        if path.is_dir():
            note(
                "its card lacks validation figures: irjax train METHOD --eval-only RUN --ship FILE measures them", path
            )
            line = f"irjax models --push {self.push} --model {self.model}"
            return ship(path, {}, folder / "model.safetensors", protocols=(), command=line)
        if path.suffix != ".safetensors":
            raise UserError(f"{path} has no card: only irjax's weight files and run directories can be pushed")
        return path


def facts_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns what is known of a weight file, as JSON values.

    Returns:
      "file", "bytes", "sha256", "config" (`irjax.methods.DetectorConfig`), "parameters", "multiply_adds" of one square
      of the configured size, and "card" with all of its fields.
    """
    from irjax.benchmarks.costs import count_parameters, network_macs
    from irjax.detector.weights import load_weights

    variables, config, card = load_weights(path)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
        "config": json.loads(config.to_json()),
        "parameters": count_parameters(variables),
        "multiply_adds": network_macs(config, variables),
        "card": card,
    }


def _sha256(path: pathlib.Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _about(name: str, facts: Mapping[str, Any]) -> str:
    config = facts["config"]
    shown = "windows of" if config["slide"] else "images fitted into"
    return (
        f"{name}: {config['method']}, {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB; "
        f"{shown} {config['size']}x{config['size']}, {facts['multiply_adds'] / 1e9:.2f} GMAC each, "
        f"threshold {config['threshold']:g}\n  SHA-256 {facts['sha256']}"
    )


def _card(card: Mapping[str, Any]) -> str:
    text = lambda value: value if isinstance(value, str) else json.dumps(value, indent=2)  # noqa: E731
    return "\n".join(f"  {field}: {text(value)}" for field, value in card.items())


def _print_list(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a paragraph for each of the weights, and the table of their figures."""
    from irjax.data.licences import OWN_LICENCE
    from irjax.reports.tables import plain_table

    for name, facts in models.items():
        print(_about(name, facts))
        data = facts["card"]["data"]
        if isinstance(data, Mapping):
            print(f"  trained on {', '.join(data['sets'])}: {data['train']['examples']:,} images")
        print(f"  licence: {facts['card']['licence']}")
    print(f"irjax's licence is {OWN_LICENCE}.")
    rows = [row for name, facts in models.items() for row in _rows(name, facts["card"]["validation"])]
    if rows:
        print("\n" + plain_table(["weights", "validation split", "images", *_METRICS], rows))


def _rows(name: str, figures: Any) -> list[list[Any]]:
    """Returns a row for each split of a card's figures."""
    from irjax.metrics.protocols import protocol
    from irjax.reports.tables import format_value

    return [
        [name, split, one["images"]]
        + [format_value(key, one["metrics"].get(key, float("nan")), protocol("irjax")) for key in _METRICS]
        for split, one in (figures.items() if isinstance(figures, Mapping) else ())
    ]

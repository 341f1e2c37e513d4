"""Trains what ships on a machine that is lent for minutes, from a pack of images; leaves small files to carry back.

    PYTHONPATH=. python experiments/accelerator/train.py PACK.tar OUT --only mshnet-sirst spire-sirst --minutes 9

Other flags are those of `python -m irjax.experiments.weights`. The minutes are those of the whole command. OUT gets
training.json and, after each network, weights.tar.0, weights.tar.1, ... of 15 MB at most: weights with their cards,
learning curves, configs and logs of all networks so far (``cat weights.tar.* | tar x``). Nothing is validated here.
"""

from __future__ import annotations

import argparse  # tyro is missing on such machines
import json
import pathlib
import statistics
import tarfile
import tempfile
import time
from typing import Any

import jax

from irjax.errors import UserError, reading, stopping, writing
from irjax.experiments import weights
from irjax.io.files import atomic_path, read_json, write_json
from irjax.training.allocator import keep_freed_memory
from irjax.training.loop import versions
from irjax.training.parallel import use_all_cores

_PART = 15_000_000  # bytes
_AROUND = 20.0  # seconds around a network's training: reading the images again, and writing its weights


def unpack(pack: pathlib.Path, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Unpacks what pack.py wrote: {folder of a data set: {"split": where it comes from, "images": number}}."""
    try:
        with reading(pack), tarfile.open(pack) as file:
            file.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"{pack}: not a whole tar file ({error})") from error
    found = {str(path.parent): read_json(path) for path in sorted(folder.glob("*/split.json"))}
    if not found:
        raise UserError(f"{pack}: not a pack of images, it has no NAME/split.json")
    return found


def figures(run: pathlib.Path) -> dict[str, Any]:
    """Steps, minutes, speed and losses of a run, from its log."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    batch = read_json(run / "config.json")["config"]["loop"]["batch_size"]
    speed = statistics.median(line["steps_per_second"] for line in lines[1:] or lines)
    return {
        "steps": lines[-1]["step"],
        "minutes": lines[-1]["minutes"],
        "batch_size": batch,
        "steps_per_second": speed,
        "images_per_second": speed * batch,
        "losses": [[line["step"], line["loss"]] for line in lines[:: max(1, len(lines) // 100)]],
        "skipped": lines[-1]["skipped"],
    }


def memory() -> int | None:
    """The most bytes that were in use on the device, where it says so."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def write_parts(folder: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Writes the weights, curves, configs and logs of a folder as parts of one tar file; gives their names."""
    whole = folder / "weights.tar"
    kept = [*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.png")]
    kept += [path for path in folder.rglob("*") if path.name in ("config.json", "metrics.jsonl", "detector.json")]
    with tarfile.open(whole, "w") as file:
        for path in sorted({*kept}):
            file.add(path, path.relative_to(folder))
    names = []
    with whole.open("rb") as file:
        while part := file.read(_PART):
            names.append(f"weights.tar.{len(names)}")
            with atomic_path(out / names[-1]) as path:
                path.write_bytes(part)
    whole.unlink()
    return names


def main() -> None:
    """Runs the command."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("pack", metavar="PACK.tar", type=pathlib.Path)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=9, help="of the whole command (default: %(default)g)")
    with stopping(), tempfile.TemporaryDirectory() as scratch:
        own, others = parser.parse_known_args()
        folder = pathlib.Path(scratch) / "weights"
        images = unpack(own.pack, pathlib.Path(scratch) / "images")
        data = ["--data.root", *images, "--data.train", "train", "--no-validation"]
        command = weights.parse([*data, "--out", str(folder), *others])
        with writing(own.out):
            own.out.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        use_all_cores()
        weights.compile_side_by_side(command)
        report: dict[str, Any] = {"versions": versions(), "device": jax.devices()[0].device_kind, "networks": {}}
        report["data"] = {pathlib.Path(root).name: about for root, about in images.items()}
        report["seconds_to_compile"] = time.monotonic() - begin
        for number, name in enumerate(command.only):
            left = 60 * own.minutes - (time.monotonic() - begin)
            minutes = (left / (len(command.only) - number) - _AROUND) / 60
            weights.train_one(name, command, max(minutes, weights.MOMENT))
            runs = sorted(path.parent for path in (folder / name).rglob("metrics.jsonl"))
            report["networks"][name] = {str(run.relative_to(folder)): figures(run) for run in runs}
            report |= {"peak_bytes": memory(), "seconds": time.monotonic() - begin}
            report["parts"] = write_parts(folder, own.out)
            write_json(own.out / "training.json", report)
        print(f"{own.out}: {', '.join(report['parts'])} and training.json, after {report['seconds']:.0f} s")


if __name__ == "__main__":
    main()

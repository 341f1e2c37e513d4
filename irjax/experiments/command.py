"""The command that the experiments of all methods share: recipes, training, testing, ablations, shipping weights."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from irjax.data.hard import HardSource
from irjax.errors import UsageError, UserError, stopping
from irjax.experiments.ablation import ablate
from irjax.experiments.common import ROUNDING_IMAGES, card, largest_difference, settled, tophat_reference
from irjax.inference import CONFIG_FILE, Detector, load
from irjax.reports.files import write_json
from irjax.training.allocator import keep_freed_memory
from irjax.training.configs import changed
from irjax.training.data import DataConfig, in_memory
from irjax.training.loop import Result
from irjax.training.parallel import use_all_cores
from irjax.types import Source
from irjax.weights import on_disk, save_weights

_LENGTHS = ("minutes", "steps", "epochs")  # of a run; the first goes with none of the others


@dataclasses.dataclass(frozen=True)
class Flags:
    """What a command takes beside the method's config: ``class Command(Flags, Config)`` with its `config_class`.

    Attributes:
      recipe: sets the other flags' defaults.
      run: directory of the run; an interrupted run of the same flags goes on. Default: runs/METHOD-RECIPE-seedSEED.
      eval_only: test a run directory, a .pth, a .safetensors or the name of shipped weights, instead of training.
      test: splits to test on, one for all folders or one for each; of one folder, with `ship` or `ablation`, any number
        one by one. Default: 400 synthetic scenes, or the validation split of the folders given.
      protocol: `irstd-hard` tests on the images whose targets all have at most 20 pixels at 256x256, resized to that.
      ship: with a run as `eval_only`: write its weights to this .safetensors file, with a card that says how they were
        made and their figures on each of the test splits.
      ablation: train the variants of one of the paper's ablations instead.
      seeds: seeds of the ablation.
    """

    config_class: ClassVar[type]

    recipe: str = "quick"
    run: str = ""
    eval_only: str = ""
    test: tuple[str, ...] = ()
    protocol: Literal["", "irstd-hard"] = ""
    ship: str = ""
    ablation: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def config(self) -> Any:
        """The part that a run depends on."""
        names = [field.name for field in dataclasses.fields(self.config_class)]
        return self.config_class(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A method as its command sees it.

    Attributes:
      name: of the method and of the module in `irjax.experiments`.
      command: the dataclass of its flags.
      recipes: {name: function that gives a config}; one is called ``quick``.
      train: trains or resumes a config in a run directory.
      test: ``(detector, source, folder, title=...) -> report``; prints and writes it. The report has ``images``,
        ``metrics`` and ``intervals``.
      summary: ``(report, detector, top-hat's figures) -> lines``: what the command prints at its end.
      ablation: ``(name, base config) -> {variant: config}``.
      columns: validation metrics, and metrics of a test's report, in the ablations' tables.
      settle: ``run directory -> detector, facts for the card``: the weights as they are shipped.
      dtype: type of shipped weights on disk.
      untested: what to print instead of testing a run of a config that finds no targets; "" of others.
    """

    name: str
    command: type[Flags]
    recipes: Mapping[str, Callable[[], Any]]
    train: Callable[[Any, pathlib.Path], Result]
    test: Callable[..., dict[str, Any]]
    summary: Callable[[dict[str, Any], Detector, dict[str, float]], Sequence[str]]
    ablation: Callable[[str, Any], Mapping[str, Any]]
    columns: Sequence[str]
    settle: Callable[[pathlib.Path], tuple[Detector, dict[str, Any]]] = settled
    dtype: str = "float32"
    untested: Callable[[Any], str] = lambda config: ""

    @property
    def program(self) -> str:
        """How the command is called."""
        return f"python -m irjax.experiments.{self.name}"

    def parse(self, arguments: Sequence[str]) -> Flags:
        """The command line; the recipe sets the defaults of the other flags."""
        import tyro

        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--recipe", default="quick")
        for length in _LENGTHS:
            first.add_argument(f"--loop.{length}", dest=length, nargs="?", const="")
        given = first.parse_known_args(arguments)[0]
        name = given.recipe
        name = name if name in self.recipes else "quick"  # refused below; a default would not be checked
        recipe = self.recipes[name]()
        lengths = [length for length in _LENGTHS if getattr(given, length) is not None]
        if "minutes" in lengths:
            if lengths != ["minutes"]:
                raise UsageError(f"--loop.minutes and --loop.{lengths[1]} exclude each other")
            recipe = changed(recipe, loop={"steps": 0})
        default = self.command(**vars(recipe), recipe=name)
        return tyro.cli(self.command, args=list(arguments), default=default, prog=self.program)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Runs the command; errors that a user can mend become one line, as those of `irjax.cli`."""
        with stopping():
            _run(self, self.parse(sys.argv[1:] if arguments is None else arguments))


def _run(experiment: Experiment, command: Flags) -> None:
    keep_freed_memory()
    begin = time.perf_counter()
    config = command.config
    name = f"{experiment.name}-{command.recipe}"
    if not command.eval_only:
        use_all_cores()
    if command.ablation:
        if config.loop.minutes:
            raise UsageError("variants of an ablation are as long as each other in steps: give --loop.steps")
        folder = pathlib.Path(command.run or f"runs/{name}-ablation-{command.ablation}")
        variants = experiment.ablation(command.ablation, config)
        _check_roots(command)
        tests = tests_of(command.data, command.test, command.protocol) if command.test else {}
        run_one = functools.partial(_figures, experiment, tests)
        print(ablate(variants, command.seeds, run_one, folder, experiment.columns, ("validation", *tests)))
        print(f"runs and tables: {folder}")
        return

    if command.ship:
        _ship(experiment, command)
        return
    source, what = _test_source(command)
    if command.eval_only:
        path = pathlib.Path(command.eval_only)
        detector = load(command.eval_only)
        folder = pathlib.Path(command.run or (path if path.is_dir() else f"runs/{name}-eval-{path.stem}")) / "test"
    else:
        run = pathlib.Path(command.run or f"runs/{name}-seed{config.loop.seed}")
        result = experiment.train(config, run)
        chosen = "chosen on validation" if config.loop.validate else "the last, not validated"
        print(f"{chosen}: step {result.best_step}; waited for data {result.data_wait:.1%} of the time")
        if experiment.untested(config):
            print(experiment.untested(config))
            return
        detector, folder = load(run), run / "test"

    report = experiment.test(detector, source, folder, title=command.eval_only or name)
    reference = tophat_reference(source)
    write_json(folder / "tophat.json", reference)
    print(f"tested on {what}")
    print("\n".join(f"  {line}" for line in experiment.summary(report, detector, reference)))
    if not command.eval_only:
        print(f"weights and log: {run}  (irjax.load({str(run)!r}))")
    print(f"predictions, curves, worst images: {folder}")
    print(f"took {(time.perf_counter() - begin) / 60:.1f} minutes")


def _ship(experiment: Experiment, command: Flags) -> None:
    run = pathlib.Path(command.eval_only)
    if not command.data.root or not (run / CONFIG_FILE).is_file():
        raise UsageError("--ship needs a run directory as --eval-only, and --data.root for the figures of its card")
    tests = tests_of(command.data, command.test or command.data.val, command.protocol)
    print(ship(experiment, run, tests, command.ship, f"{experiment.program} {' '.join(sys.argv[1:])}"))


def ship(
    experiment: Experiment, run: pathlib.Path, tests: Mapping[str, Source], path: str | pathlib.Path, command: str
) -> pathlib.Path:
    """Writes a run's weights with a card that says how they were made and their figures.

    Args:
      experiment: of the method.
      run: the run directory.
      tests: {data set and split: images} for the figures; none: the card says that they are to be measured.
      path: of the .safetensors.
      command: that is run, for the card.

    Returns:
      The path.
    """
    detector, facts = experiment.settle(run)
    # The figures are those of the weights as they are written.
    stored = on_disk(detector.variables, experiment.dtype)
    written = dataclasses.replace(detector, variables=jax.tree.map(lambda x: x.astype(np.float32), stored))
    figures = _test_each(experiment, tests, written, run)
    if tests and experiment.dtype != "float32":
        rounding = max(largest_difference(detector, written, source) for source in tests.values())
        facts = {**facts, "rounding": rounding}
        print(
            f"{experiment.dtype} on disk changes probabilities by {rounding:.1g} at most, "
            f"on up to {ROUNDING_IMAGES} images of each split"
        )
    about = card(run, facts, figures or "not measured where they were trained", command)
    return save_weights(path, detector.variables, detector.config, about, dtype=experiment.dtype)


def _figures(
    experiment: Experiment, tests: Mapping[str, Source], config: Any, run: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Trains one variant of an ablation: its figures on validation and on the tests."""
    validation = {"validation": {"metrics": experiment.train(config, run).best}}
    return {**validation, **(_test_each(experiment, tests, load(run), run) if tests else {})}


def tests_of(data: DataConfig, splits: Sequence[str], protocol: str = "") -> dict[str, Source]:
    """{data set and split: source}: one split for all folders, one for each, or several of one folder.

    Raises:
      UsageError: if there are neither as many splits as folders, nor one of either.
    """
    roots = data.root
    splits = splits * len(roots) if len(splits) == 1 else splits
    roots = roots * len(splits) if len(roots) == 1 else roots
    if len(roots) != len(splits):
        raise UsageError(f"--test names {len(splits)} splits for {len(roots)} folders: give one or all")
    one = lambda root, split: dataclasses.replace(data, root=(root,), train=(split,), val=(split,))  # noqa: E731
    return {
        " ".join(filter(None, (pathlib.Path(root).name, split, protocol))): _under(
            protocol, one(root, split).open("val")
        )
        for root, split in zip(roots, splits, strict=True)
    }


def _under(protocol: str, source: Source) -> Source:
    """The images that the protocol takes."""
    if not protocol:
        return source
    hard = HardSource(source)
    if not len(hard):
        raise UserError(f"--protocol irstd-hard: none of {len(source)} images has tiny targets alone")
    return hard


def _test_each(
    experiment: Experiment, tests: Mapping[str, Source], detector: Detector, run: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Images, metrics and intervals of a detector on each test; of protocols but the first as `NAME (PROTOCOL)`."""
    figures = {}
    for what, source in tests.items():
        report = experiment.test(detector, source, run / f"test-{what.replace(' ', '-')}", title=what)
        figures[what] = {name: dict(report[name]) for name in ("metrics", "intervals")} | {"images": report["images"]}
        for protocol, part in list(report.get("protocols", {}).items())[1:]:
            for name in ("metrics", "intervals"):
                figures[what][name] |= {f"{metric} ({protocol})": value for metric, value in part[name].items()}
    return figures


def _check_roots(command: Flags) -> None:
    if command.test and not command.data.root:
        raise UsageError(f"--test {' '.join(command.test)} names splits of data sets; say where they are: --data.root")


def _test_source(command: Flags) -> tuple[Source, str]:
    data = command.config.data
    _check_roots(command)
    if command.test:
        where = " + ".join(data.root)
        source, what = dataclasses.replace(data, val=command.test).open("val"), f"{' + '.join(command.test)} of {where}"
    elif data.root:
        source = data.open("val")
        what = f"the validation split {' + '.join(data.val)}, on which the checkpoint was chosen"
    else:
        source, what = in_memory(data.open("test"), with_masks=True), "400 synthetic scenes that no run trains on"
    if command.protocol:
        source = _under(command.protocol, source)
        what = f"the {len(source)} images that {command.protocol} takes of {what}"
    return source, what

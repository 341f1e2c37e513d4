"""The command shared by the experiments of all methods: recipes, training, test, ablations, shipped weights."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from irjax.data.hard import HardSource
from irjax.data.sources import told_apart
from irjax.data.splits import DataConfig, in_memory
from irjax.detector.loading import load, title_of
from irjax.errors import UsageError, UserError, note, stopping
from irjax.evaluation.detectors import (
    MASK_PROTOCOLS,
    evaluate_detector,
    summary,
    tophat_reference,
)
from irjax.experiments.ablation import Change, ablate
from irjax.experiments.run import RunConfig, train
from irjax.experiments.ship import figures_of, ship
from irjax.flags import parse, refuse
from irjax.io.files import write_json
from irjax.methods.detector_config import CONFIG_FILE
from irjax.methods.method import Method
from irjax.methods.registry import BUILT_IN, find_method, register_from
from irjax.training.allocator import keep_freed_memory
from irjax.training.configs import LoopConfig, replace_parts
from irjax.training.loop import TrainedRun
from irjax.training.optimizers import OptimizerConfig
from irjax.training.parallel import use_all_cores
from irjax.types import Source

_RENAMED = {"--protocol": "--subset"}  # flags of earlier versions


@dataclasses.dataclass(frozen=True)
class _Length:
    """The flags that say how long a run is, as words; the first excludes the others."""

    minutes: str | None = None
    steps: str | None = None
    epochs: str | None = None


@dataclasses.dataclass(frozen=True)
class _First:
    """The flags on which the defaults of the others depend."""

    recipe: str = "quick"
    loop: _Length = _Length()


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of a command besides the method's config: ``class Command(Flags, Config)`` with its `config_class`.

    Attributes:
      recipe: sets the other flags' defaults.
      run: directory of the run; an interrupted run of the same flags is resumed. Default: runs/METHOD-RECIPE-seedSEED.
      eval_only: test a run directory, a .pth, a .safetensors, hf:OWNER/NAME or the name of shipped weights, instead of
        training.
      test: splits to test on, one for all folders or one for each. With one folder and `ship` or `ablation`, any number
        of splits, each tested separately. Default: 400 synthetic scenes, or the validation split of the given folders.
      subset: `irstd-hard` tests on the images whose targets all have at most 20 pixels at 256x256, resized to that.
      ship: with a run as `eval_only`: write its weights to this .safetensors file, with a card that states how they
        were made and their figures on each of the test splits.
      ablation: train the variants of one of the paper's ablations instead.
      seeds: seeds of the ablation.
    """

    config_class: ClassVar[type]

    recipe: str = "quick"
    run: str = ""
    eval_only: str = ""
    test: tuple[str, ...] = ()
    subset: Literal["", "irstd-hard"] = ""
    ship: str = ""
    ablation: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def config(self) -> Any:
        """The part of the flags that a run depends on."""
        names = [field.name for field in dataclasses.fields(self.config_class)]
        return self.config_class(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A method with everything its command needs.

    Attributes:
      method: the method to train.
      title: the name of the method as it is printed.
      config: the dataclass that a run depends on.
      recipes: {name: function that returns a config}; one is called ``quick``. The first line of its docstring is
        shown.
      ablations: {name: {variant: change of a base config}}.
      columns: validation metrics, and metrics of a test's report, in the ablations' tables.
      protocols: mask protocols in a test's report; its metrics and intervals are those of the first.
      train_stages: trains or resumes a config in a run directory, for methods that need more than one run.
      untested: message to print instead of testing, for a config whose run finds no targets; "" for others.
    """

    method: Method
    title: str
    config: type[RunConfig]
    recipes: Mapping[str, Callable[[], Any]]
    ablations: Mapping[str, Mapping[str, Change]] = dataclasses.field(default_factory=dict)
    columns: Sequence[str] = ("miou", "niou", "pd", "fa", "IoU", "nIoU", "Pd", "Fa")
    protocols: Sequence[str] = MASK_PROTOCOLS
    train_stages: Callable[[Any, pathlib.Path], TrainedRun] | None = None
    untested: Callable[[Any], str] = lambda config: ""

    @property
    def program(self) -> str:
        """The command line that starts the command; `irjax train` starts them all."""
        own = self.method.name in BUILT_IN
        return f"python -m irjax.experiments.{self.method.name}" if own else f"irjax train {self.method.name}"

    @functools.cached_property
    def command(self) -> type[Flags]:
        """The dataclass of the command's flags: those of `Flags` and of the config."""
        choices = [("recipe", Literal[*self.recipes], "quick"), ("ablation", Literal["", *self.ablations], "")]
        own = {"config_class": self.config}
        command = dataclasses.make_dataclass("Command", choices, bases=(Flags, self.config), namespace=own, frozen=True)
        recipes = "; ".join(f"{name}: {_first_line(recipe)}" for name, recipe in self.recipes.items())
        command.__doc__ = (
            f"Trains {self.title}, selects the checkpoint on validation, tests it, and prints where the files are.\n\n"
            "Attributes:\n  recipe: sets the other flags' defaults. Without data.root, all train on synthetic scenes. "
            + recipes
        )
        return command

    def train(self, config: Any, run: pathlib.Path) -> TrainedRun:
        """Trains or resumes a run; its directory can then be given to `irjax.load`.

        Args:
          config: everything the run depends on.
          run: the run directory.
        """
        return self.train_stages(config, run) if self.train_stages else train(self.method, config, run)

    def ablation(self, name: str, base: Any) -> dict[str, Any]:
        """Returns the variants of an ablation as {name in the table: config}.

        Args:
          name: name of the ablation.
          base: the config that all variants share.

        Raises:
          UserError: if there is no such ablation, or it is not compatible with the base.
        """
        if name not in self.ablations:
            raise UserError(f"there is no ablation {name!r}; there are {tuple(self.ablations)}")
        return {variant: change(base) for variant, change in self.ablations[name].items()}

    def parse(self, arguments: Sequence[str], program: str = "") -> Flags:
        """Parses the command line; the recipe sets the defaults of the other flags."""
        program, arguments = program or self.program, [_current(word) for word in arguments]
        first, _ = parse(_First, arguments, program, return_unknown_args=True, add_help=False)
        # An unknown name is refused below, where a default would not be.
        name = first.recipe if first.recipe in self.recipes else "quick"
        recipe = self.recipes[name]()
        lengths = [length for length, given in vars(first.loop).items() if given is not None]
        if "minutes" in lengths:
            if lengths != ["minutes"]:
                refuse(f"--loop.minutes and --loop.{lengths[1]} exclude each other", program)
            recipe = replace_parts(recipe, loop={"steps": 0})
        return parse(self.command, arguments, program, default=self.command(**vars(recipe), recipe=name))

    def main(self, arguments: Sequence[str] | None = None, program: str = "") -> None:
        """Runs the command; errors that a user can correct become one line, like those of `irjax.cli`.

        Args:
          arguments: the words after the program's name; those of the process by default.
          program: the program's name, if another one than `program` started it.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        with stopping():
            line = f"{program or self.program} {' '.join(arguments)}"
            _run(self, self.parse(arguments, program), line)


def _current(word: str) -> str:
    """Returns a word of a command line with a flag's present name."""
    flag, separator, value = word.partition("=")
    if flag not in _RENAMED:
        return word
    note(f"{flag} is called {_RENAMED[flag]} now, and goes with the next version")
    return f"{_RENAMED[flag]}{separator}{value}"


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")


def _run(experiment: Experiment, command: Flags, line: str) -> None:
    keep_freed_memory()
    begin = time.perf_counter()
    config = command.config
    name = f"{experiment.method.name}-{command.recipe}"
    if not command.eval_only:
        use_all_cores()
    if command.ablation:
        if config.loop.minutes:
            raise UsageError("variants of an ablation are as long as each other in steps: give --loop.steps")
        folder = pathlib.Path(command.run or f"runs/{name}-ablation-{command.ablation}")
        variants = experiment.ablation(command.ablation, config)
        _check_roots(command)
        tests = tests_of(config.data, command.test, command.subset) if command.test else {}
        run_one = functools.partial(_figures, experiment, tests)
        print(ablate(variants, command.seeds, run_one, folder, experiment.columns, ("validation", *tests)))
        print(f"runs and tables: {folder}")
        return

    if command.ship:
        _ship(experiment, command, line)
        return
    source, what = _test_source(command)
    if command.eval_only:
        path, short = pathlib.Path(command.eval_only), title_of(command.eval_only)
        detector = load(command.eval_only)
        folder = pathlib.Path(command.run or (path if path.is_dir() else f"runs/{name}-eval-{short}")) / "test"
    else:
        run = pathlib.Path(command.run or f"runs/{name}-seed{config.loop.seed}")
        result = experiment.train(config, run)
        chosen = "chosen on validation" if config.loop.validate else "the last, not validated"
        print(f"{chosen}: step {result.best_step}; waited for data {result.data_wait:.1%} of the time")
        if experiment.untested(config):
            print(experiment.untested(config))
            return
        detector, folder = load(run), run / "test"

    title = command.eval_only or name
    source = source if config.data.root else in_memory(source, with_masks=True)  # scenes are rendered once
    report = evaluate_detector(detector, source, folder, title=title, protocols=experiment.protocols)
    reference = tophat_reference(source)
    write_json(folder / "tophat.json", reference)
    print(f"tested on {what}")
    print("\n".join(f"  {line}" for line in summary(experiment.title, report, detector, reference)))
    if not command.eval_only:
        print(f"weights and log: {run}  (irjax.load({str(run)!r}))")
    print(f"predictions, curves, worst images: {folder}")
    print(f"took {(time.perf_counter() - begin) / 60:.1f} minutes")


def _ship(experiment: Experiment, command: Flags, line: str) -> None:
    run, data = pathlib.Path(command.eval_only), command.config.data
    if not data.root or not (run / CONFIG_FILE).is_file():
        raise UsageError("--ship needs a run directory as --eval-only, and --data.root for the figures of its card")
    tests = tests_of(data, command.test or data.val, command.subset)
    print(ship(run, tests, command.ship, protocols=experiment.protocols, command=line))


def _figures(
    experiment: Experiment, tests: Mapping[str, Source], config: Any, run: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Trains one variant of an ablation and returns its figures on validation and on the tests."""
    validation = {"validation": {"metrics": experiment.train(config, run).best}}
    return {**validation, **(figures_of(load(run), tests, run, experiment.protocols) if tests else {})}


def tests_of(data: DataConfig, splits: Sequence[str], subset: str = "") -> dict[str, Source]:
    """Returns {data set and split: source}: one split for all folders, one for each, or several of one folder.

    Raises:
      UsageError: if the numbers of splits and folders differ and neither is one.
    """
    roots = data.root
    splits = tuple(splits) * len(roots) if len(splits) == 1 else splits
    roots = roots * len(splits) if len(roots) == 1 else roots
    if len(roots) != len(splits):
        raise UsageError(f"--test names {len(splits)} splits for {len(roots)} folders: give one or all")
    one = lambda root, split: dataclasses.replace(data, root=(root,), train=(split,), val=(split,))  # noqa: E731
    return {
        " ".join(filter(None, (pathlib.Path(root).name, split, subset))): _subset(subset, one(root, split).open("val"))
        for root, split in zip(roots, splits, strict=True)
    }


def _subset(name: str, source: Source) -> Source:
    """Returns the images of a subset, all without a name."""
    if not name:
        return source
    hard = HardSource(source)
    if not len(hard):
        raise UserError(f"--subset irstd-hard: none of {len(source)} images has tiny targets alone")
    return hard


def _check_roots(command: Flags) -> None:
    if command.test and not command.config.data.root:
        raise UsageError(f"--test {' '.join(command.test)} names splits of data sets; say where they are: --data.root")


def _test_source(command: Flags) -> tuple[Source, str]:
    data = command.config.data
    _check_roots(command)
    if command.test:
        where = " + ".join(data.root)
        source, what = dataclasses.replace(data, val=command.test).open("val"), f"{' + '.join(command.test)} of {where}"
        source = told_apart(source)
    elif data.root:
        source = told_apart(data.open("val"))
        what = f"the validation split {' + '.join(data.val)}, on which the checkpoint was chosen"
    else:
        source, what = data.open("test"), "400 synthetic scenes that no run trains on"
    if command.subset:
        source = _subset(command.subset, source)
        what = f"the {len(source)} images that {command.subset} takes of {what}"
    return source, what


def experiment_of(name: str) -> Experiment:
    """Returns the experiment of a method.

    Args:
      name: name of the method, or ``MODULE:ATTRIBUTE``, which is registered first.

    Raises:
      UserError: if there is no such method.
    """
    method = register_from(name) if ":" in name else find_method(name)
    if method.name in BUILT_IN:
        return importlib.import_module(f"irjax.experiments.{method.name}").EXPERIMENT
    return _made_for(method)


def _made_for(method: Method) -> Experiment:
    parts = [(name, part, dataclasses.field(default_factory=part)) for name, part in method.parts.items()]
    config = dataclasses.make_dataclass("Config", parts, bases=(RunConfig,), frozen=True)
    config.__doc__ = "Everything a run depends on; saved with it."

    def quick() -> RunConfig:
        """Synthetic scenes of 256x256, AdamW, averaged weights."""
        return config(
            data=DataConfig(size=256, synthetic_train=1000, synthetic_val=60),
            optimizer=OptimizerConfig(warmup_epochs=0.5, clip_norm=1.0),
            loop=LoopConfig(steps=1000, batch_size=8, eval_epochs=2, averaging=0.99),
        )

    return Experiment(method, method.name, config, {"quick": quick})

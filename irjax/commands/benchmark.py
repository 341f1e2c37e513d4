"""irjax benchmark: speed of a detector and its ratio to the machine's peak."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated, Any, Literal, Optional, Union

from irjax.commands.shared import Count, File, Folder, MethodName, Runtime, Switch, arg
from irjax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Times a detector and compares it with the machine's peak.

    Prints parameters, multiply-adds, latency and throughput of predict_fn (letterbox, network, decoding) and of the
    bare network, and their ratio to the floor: the multiply-adds at the rate of a large matrix product, measured in the
    same run. Candidates are timed in turns.

    Attributes:
      model: a method with random weights, or what irjax.load takes.
      method: a method, such as your own, as that of the model's weights; your own can then also be the model.
      size: sides of the square images in px.
      batch: batch sizes.
      channels: input channels of a method with random weights.
      repeats: timed calls of each candidate.
      threads: processors to use (default: all).
      bf16: compute in bfloat16.
      train: also time training steps on synthetic scenes, from the host and cached on the device.
      train_batch: examples in a training step.
      torch: compare in turns with a PyTorch network that has the published layer names; CLASS(channels) builds it (of
        tests/models: TorchHRPE or TorchMSHNet, the default); training steps run eagerly, with channels last, and
        compiled.
      runtimes: also run the exported network (docs/export.md) in these; with --torch, in onnxruntime also what PyTorch
        exports.
      sparse: instead of a model, time ADSNet's sparse stages and the whole network, with and without dropping patches.
      selection: instead of a model, time Na-IRSTD's injection and the whole network for these numbers of selected
        patches (5 and 16 if none are given) and for all patches; with --train also the gradient of a training step.
      turns: several such commands with the same FILE compile in parallel and time in turns.
      profile: also write jax.profiler's profile of one more call of each candidate to this folder (docs/jax.md).
      json: also write all numbers to this file.
    """

    model: str = "spire"
    method: MethodName = None
    size: tuple[int, ...] = (512,)
    batch: tuple[int, ...] = (1,)
    channels: Literal[1, 3] = 3
    repeats: int = 30
    threads: Count = None
    bf16: Switch = False
    train: Switch = False
    train_batch: int = 8
    torch: Annotated[Optional[str], arg("FILE[:CLASS]")] = None
    runtimes: tuple[Runtime, ...] = ()
    sparse: Switch = False
    selection: Annotated[Union[None, tuple[int, ...]], arg("[K ...]")] = None
    turns: File = None
    profile: Folder = None
    json: File = None

    def run(self) -> None:
        """Times and prints."""
        if self.train_batch < 1:
            raise UsageError(f"--train-batch must be at least 1, got {self.train_batch}")
        if self.threads is not None:
            _limit_processors(self.threads)
        from irjax.benchmarks.table import detector_text, selection_text, sparse_text
        from irjax.io.files import write_json
        from irjax.training.allocator import keep_freed_memory

        keep_freed_memory()
        if self.sparse:
            report, show = self._sparse(), sparse_text
        elif self.selection is not None:
            report, show = self._selection(), selection_text
        else:
            report, show = self._one_model(), detector_text
        print(show(report))
        if self.json:
            write_json(self.json, report)

    @property
    def _common(self) -> dict[str, Any]:
        return {"sizes": self.size, "batches": self.batch, "repeats": self.repeats, "bf16": self.bf16}

    def _one_model(self) -> dict[str, Any]:
        from irjax.benchmarks.detector import benchmark
        from irjax.benchmarks.timing import Turns
        from irjax.io.files import output_folder
        from irjax.methods.registry import register_from

        with Turns(self.turns) as turns:
            return benchmark(
                self.model,
                method=register_from(self.method).name if self.method else None,
                channels=self.channels,
                torch=self.torch,
                runtimes=self.runtimes,
                train_batch=self.train_batch if self.train else 0,
                turns=turns,
                profile=self.profile and output_folder(self.profile),
                **self._common,
            )

    def _sparse(self) -> dict[str, Any]:
        from irjax.benchmarks.sparse import benchmark_sparse

        self._refuse("--sparse", "train", "torch", "runtimes", "selection", "turns", "method", "profile")
        return benchmark_sparse(**self._common)

    def _selection(self) -> dict[str, Any]:
        from irjax.benchmarks.selection import benchmark_selection

        self._refuse("--selection", "torch", "runtimes", "turns", "method", "profile")
        train_batch = self.train_batch if self.train else 0
        return benchmark_selection(selected=self.selection or (5, 16), train_batch=train_batch, **self._common)

    def _refuse(self, chosen: str, *flags: str) -> None:
        for flag in flags:
            if getattr(self, flag) not in (None, False, ()):
                raise UsageError(f"--{flag} does not go with {chosen}")


def _limit_processors(number: int) -> None:
    """Limits this process to so many processors, before JAX creates its threads."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--threads needs Linux")
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= number <= len(available):
        raise UsageError(f"--threads must be in 1..{len(available)}, got {number}")
    os.sched_setaffinity(0, available[:number])

"""Weights on the Hugging Face Hub: ``hf:OWNER/NAME`` as a file, and weight files uploaded with their cards.

A repository holds `FILES`: a weight file, its card with the header that the Hub reads, and the configuration. Nothing
of a repository is run. Address, token and cache are those of huggingface_hub (HF_ENDPOINT, HF_TOKEN, HF_HOME).
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import irjax
from irjax.data.licences import OWN_LICENCE, OWN_LICENCE_TEXT
from irjax.detector import weights
from irjax.errors import MissingPackageError, UsageError, UserError
from irjax.io.files import write_text
from irjax.methods.detector_config import DetectorConfig
from irjax.methods.registry import find_method

WEIGHTS, CARD, CONFIG = FILES = ("model.safetensors", "README.md", "config.json")
_PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@(\S+))?")


def is_on_hub(name: str) -> bool:
    """Returns whether a model's name means a repository of the Hub."""
    return name.startswith(_PREFIX)


def repository_of(name: str) -> tuple[str, str | None]:
    """Returns "OWNER/NAME", and the revision or None, of ``hf:OWNER/NAME[@REVISION]``.

    Raises:
      UsageError: if the name has another form.
    """
    if not (match := _NAME.fullmatch(name)):
        raise UsageError(f"a model on the Hugging Face Hub is hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {name!r}")
    return match[1], match[2]


def download(name: str) -> pathlib.Path:
    """Returns a repository's weight file in huggingface_hub's cache; its card, if there is one, lies beside it.

    Without an answer of the Hub, what an earlier call has left in the cache is taken.

    Args:
      name: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION`` with a branch, tag or commit.

    Raises:
      UsageError: if the name has another form.
      MissingPackageError: without huggingface_hub.
      UserError: if there is no such repository, revision or file, no access to it, or no answer.
    """
    repository, revision = repository_of(name)
    with _client(name) as hub:
        path = pathlib.Path(hub.hf_hub_download(repository, WEIGHTS, revision=revision))
        with contextlib.suppress(hub.errors.EntryNotFoundError):
            hub.hf_hub_download(repository, CARD, revision=path.parent.name)  # of the same commit
    return path


def write_repository(name: str, path: str | os.PathLike, folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes `FILES`, all that a repository holds.

    Args:
      name: ``hf:OWNER/NAME`` of the repository.
      path: a weight file.
      folder: where they are written.

    Returns:
      The files.

    Raises:
      UserError: if the file is not a weight file or lacks a card.
    """
    repository, _ = repository_of(name)
    _, config, card = weights.load_weights(path)
    weights.check_card(card, os.fspath(path))
    folder, title = pathlib.Path(folder), repository.partition("/")[2]
    with _client(name) as hub:
        header = _header(hub, title, config, card)
    shutil.copyfile(path, folder / WEIGHTS)
    use = f"## Use\n\n```python\nimport irjax  # pip install 'irjax[hub]'\n\ndetector = irjax.load({name!r})\n```"
    title_line, _, about = weights.card_text(title, config, card).partition("\n\n")
    write_text(folder / CARD, f"---\n{header}\n---\n\n{title_line}\n\n{use}\n\n{about}")
    write_text(folder / CONFIG, config.to_json() + "\n")
    return [folder / file for file in FILES]


def upload(name: str, files: list[pathlib.Path], *, private: bool = False) -> str:
    """Uploads files of `write_repository` in one commit; the repository is made if it is not there.

    Args:
      name: ``hf:OWNER/NAME``.
      files: what is uploaded.
      private: make a new repository private.

    Returns:
      The commit's address.

    Raises:
      MissingPackageError: without huggingface_hub.
      UserError: without access or an answer.
    """
    repository, _ = repository_of(name)
    with _client(name) as hub:
        api = hub.HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        adds = [hub.CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files]
        message = f"Weights from irjax {irjax.__version__}"
        return str(api.create_commit(repository, operations=adds, commit_message=message).commit_url)


def endpoint() -> str:
    """Returns the Hub's address."""
    with _client("the Hugging Face Hub") as hub:
        return str(hub.constants.ENDPOINT)


def _header(hub: Any, title: str, config: DetectorConfig, card: Mapping[str, Any]) -> str:
    """Returns what the Hub reads of a card, as YAML."""
    task = "image-segmentation" if find_method(config.method).masks else "keypoint-detection"
    own = card["licence"].startswith(OWN_LICENCE_TEXT)
    figures = card["validation"] if isinstance(card["validation"], Mapping) else {}
    results = [
        hub.EvalResult(
            task_type=task,
            dataset_type=split.partition(" ")[0],
            dataset_name=split,
            metric_type=metric,
            metric_value=value,
        )
        for split, one in figures.items()
        for metric, value in one["metrics"].items()
        if math.isfinite(value)
    ]
    data = card["data"] if isinstance(card["data"], Mapping) else {}
    return hub.ModelCardData(
        library_name="irjax",
        pipeline_tag=task,
        tags=["infrared", "small-target-detection", "jax", config.method],
        license=OWN_LICENCE.lower() if own else "other",
        **({} if own else {"license_name": "see-card", "license_link": f"{CARD}#licence"}),
        datasets=data.get("sets"),
        model_name=title if results else None,
        eval_results=results or None,
    ).to_yaml()


@contextlib.contextmanager
def _client(name: str) -> Iterator[Any]:
    """Gives huggingface_hub, which sends nothing about this machine meanwhile; its errors name the repository."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise MissingPackageError(f"{name} needs huggingface_hub: pip install 'irjax[hub]'") from error
    before, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    where = constants.ENDPOINT
    try:
        yield hub
    except errors.GatedRepoError as error:
        raise UserError(f"{name}: ask for access at {where}, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: {where} has no such repository, or it is private and HF_TOKEN does not open it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{name}: no answer from {where}, and it is not in the cache {constants.HF_HUB_CACHE}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{name}: the repository has no {WEIGHTS}, so it holds no weights of irjax") from error
    except (errors.HTTPError, errors.HFValidationError, OSError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of an upload
        first = str(cause).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{name}: {where} refused, or could not be reached: {first}") from error
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before

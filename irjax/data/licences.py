"""Licences of the published images, as far as their publications state them (the table in datasets/README.md)."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable

# Builder -> licence, None where the publication states none.
LICENCES = {
    "sirst_v1": None,
    "sirst_v2": None,
    "nudt_sirst": None,
    "irstd_1k": "MIT",
    "sirst_aug": None,
    "sirst_uavb": "MIT",
    "irdst": None,
    "mdfa": None,
    "sirst4": "mixed: MIT of IRSTD-1K, none stated of SIRST-v1 and NUDT-SIRST",
    "irstd_hard": "mixed: MIT of IRSTD-1K, none stated of the others",
    "synthetic": "Apache-2.0",
}
OWN_LICENCE = "Apache-2.0"  # irjax's
OWN_LICENCE_TEXT = "The weights are under irjax's licence."  # how cards of weights begin
_OTHER_NAMES = {"nuaasirst": "sirst_v1", "sirst": "sirst_v1", "mdvsfa": "mdfa"}


def builder_of(folder: str) -> str | None:
    """Returns the data set that a folder's path names, in any spelling; None if it names none that irjax knows."""
    known = {name.replace("_", ""): name for name in LICENCES} | _OTHER_NAMES
    for part in reversed(pathlib.PurePath(folder).parts):
        plain = re.sub("[^a-z0-9]", "", part.lower())
        if plain in known:
            return known[plain]
    return None


def licence_text(folders: Iterable[str]) -> str:
    """Returns the licences of the images in these folders for a model card; without folders, of synthetic scenes."""
    said = []
    for folder in folders:
        builder = builder_of(folder)
        licence = "not known to irjax" if builder is None else LICENCES[builder] or "its publication states none"
        said.append(f"{pathlib.PurePath(folder).name}: {licence}")
    return "; ".join(said) or "synthetic: Apache-2.0"

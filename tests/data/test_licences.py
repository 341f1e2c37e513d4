import pathlib
import re

import pytest

from irjax.data.licences import LICENCES, builder_of, licence_text

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "folder, builder",
    [
        ("/data/NUDT-SIRST", "nudt_sirst"),
        ("datasets/IRSTD-1K/", "irstd_1k"),
        ("IRSTD1k", "irstd_1k"),
        ("SIRST-v2", "sirst_v2"),
        ("NUAA-SIRST", "sirst_v1"),
        ("prepared/sirst_v2/full/1.0.0", "sirst_v2"),
        ("/data/mine", None),
    ],
)
def test_folders_name_their_data_set(folder, builder):
    assert builder_of(folder) == builder


def test_a_card_says_what_each_publication_states():
    assert licence_text(["/a/SIRST-v2", "/a/IRSTD-1K", "/a/mine"]) == (
        "SIRST-v2: its publication states none; IRSTD-1K: MIT; mine: not known to irjax"
    )
    assert licence_text([]) == "synthetic: Apache-2.0"


def test_every_builder_has_an_entry_and_the_catalogue_says_the_same():
    builders = {path.parent.name for path in (ROOT / "irjax/datasets").glob("*/__init__.py")}
    assert set(LICENCES) == builders
    seen = set()
    catalogue = (ROOT / "datasets/README.md").read_text()
    for row in re.findall(r"^\| `(\w+)[^|]*\|(?:[^|]*\|){4}([^|]*)\|", catalogue, re.MULTILINE):
        name, said = row[0], row[1].strip()
        if name not in LICENCES:  # another table
            continue
        seen.add(name)
        licence = LICENCES[name]
        wanted = ("none stated", "none found") if licence is None else (licence.split(":")[0],)
        assert said.startswith(wanted), (name, said)
    assert seen == builders

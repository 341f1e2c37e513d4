"""Pictures that compare methods are drawn with what is known of each; LaTeX tables are escaped."""

import numpy as np
import pytest
from PIL import Image

from irjax.metrics.inputs import PointPredictions
from irjax.reports.comparison import Example, Shown, draw_examples, plot_costs
from irjax.reports.tables import latex_table


@pytest.mark.parametrize("masks", [False, True])
def test_examples(tmp_path, masks):
    rng = np.random.default_rng(0)
    image = rng.normal(80, 5, (40, 56))
    mask = np.zeros((40, 56), bool)
    mask[20:23, 30:33] = True
    methods = {
        "points only": Shown(PointPredictions([(31, 21)], [0.9]), None, None),
        "map": Shown(PointPredictions([(3, 3)], [0.6]), mask * 0.9, mask),
        "nothing": Shown(PointPredictions(np.zeros((0, 2))), np.zeros((40, 56)), np.zeros((40, 56), bool)),
    }
    example = Example("a $name_", image, np.array([[31.0, 21.0]]), mask if masks else None, methods, 5.0, True)
    draw_examples(tmp_path / "one.png", [example])
    draw_examples(tmp_path / "two.png", [example, example])
    sizes = []
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as picture:
            sizes.append(picture.size)
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] > 1.7 * sizes[0][1]


def test_a_method_may_be_called_truth(tmp_path):
    """Its column is its own: the pictures differ in the title alone."""
    mask = np.zeros((40, 56), bool)
    mask[20:23, 30:33] = True
    gray = np.linspace(0, 1, 40 * 56).reshape(40, 56)
    pictures = []
    for title in ("truth", "other"):
        methods = {title: Shown(PointPredictions(np.zeros((0, 2))), mask * 0.9, mask)}
        example = Example("a", gray, np.array([[31.0, 21.0]]), mask, methods, 5.0, True)
        draw_examples(tmp_path / f"{title}.png", [example])
        with Image.open(tmp_path / f"{title}.png") as picture:
            pictures.append(np.asarray(picture)[48:])  # below the titles
    np.testing.assert_array_equal(*pictures)


def test_costs(tmp_path):
    costs = {"network": {"latency": 0.02, "parameters": 300_000}, "filter": {"latency": 0.001, "parameters": None}}
    plot_costs(tmp_path / "costs.svg", "IoU", {"network": 0.7, "filter": 0.2}, costs)
    text = (tmp_path / "costs.svg").read_text()
    assert "<svg" in text and "PathCollection_2" in text


def test_latex():
    text = latex_table(["", "Fa (%)"], [["a_b & c", "1"], ["\\d{~}^", "#2"]])
    assert text.splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r" & Fa (\%) \\", r"\midrule", r"a\_b \& c & 1 \\",
        r"\textbackslash{}d\{\textasciitilde{}\}\textasciicircum{} & \#2 \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip

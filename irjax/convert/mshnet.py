"""Table for MSHNet: submodules of `irjax.models.MSHNet` and their names in the published checkpoints."""

from __future__ import annotations

from irjax.models.mshnet import DEPTHS, WIDTHS, MSHNet

MODULE = MSHNet()
FIRST_KERNEL = "conv_init.weight"
CHANNELS = (1, 3)
# The published program resizes images to 256x256 and classifies a pixel above one half as target.
SETTINGS = {"size": 256, "normalization": "imagenet", "threshold": 0.5}

_BLOCK = {
    "conv1": "conv1",
    "norm1": "bn1",
    "conv2": "conv2",
    "norm2": "bn2",
    "shortcut": "shortcut.0",
    "shortcut_norm": "shortcut.1",
    "channels/squeeze": "ca.fc1",
    "channels/excite": "ca.fc2",
    "positions/conv": "sa.conv1",
}


def _modules() -> dict[str, str]:
    modules = {"stem": "conv_init", "final": "final"}
    coarsest = len(WIDTHS) - 1
    for scale, depth in enumerate(DEPTHS):
        stages = {f"encoder{scale}": "middle_layer" if scale == coarsest else f"encoder_{scale}"}
        if scale < coarsest:
            stages[f"decoder{scale}"] = f"decoder_{scale}"
            modules[f"side{scale}"] = f"output_{scale}"
        for ours, published in stages.items():
            for index in range(depth):
                for inner, name in _BLOCK.items():
                    modules[f"{ours}_{index}/{inner}"] = f"{published}.{index}.{name}"
    return modules


MODULES: dict[str, str] = _modules()

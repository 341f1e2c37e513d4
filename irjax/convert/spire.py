"""Table for SPIRE: submodules of `irjax.models.HRPE` and their names in the published checkpoints."""

from __future__ import annotations

from irjax.models.hrpe import HRPE

MODULE = HRPE()
FIRST_KERNEL = "conv1.weight"
CHANNELS = (1, 3)
# The published evaluation keeps 8 peaks and drops peaks much weaker than the strongest; irjax does neither.
SETTINGS = {"size": 512, "normalization": "imagenet", "threshold": 0.35}

_BOTTLENECK = {
    "reduce/conv": "conv1",
    "reduce/norm": "bn1",
    "spatial/conv": "conv2",
    "spatial/norm": "bn2",
    "expand/conv": "conv3",
    "expand/norm": "bn3",
    "shortcut/conv": "downsample.0",
    "shortcut/norm": "downsample.1",
}
_SHUFFLE = {
    "before/conv": "branch2.0",
    "before/norm": "branch2.1",
    "spatial/conv": "branch2.3",
    "spatial/norm": "branch2.4",
    "after/conv": "branch2.5",
    "after/norm": "branch2.6",
}
_WEIGHTING = {
    "spatial/conv": "depthwise_convs",
    "spatial/norm": "bn",
    "gate/squeeze": "spatial_weighting.0.fc.0",
    "gate/excite": "spatial_weighting.0.fc.2",
}
_REFINEMENT = {**_WEIGHTING, "refine": "local_attention"}


def _under(ours: str, published: str, block: dict[str, str]) -> dict[str, str]:
    return {f"{ours}/{inner}": f"{published}.{name}" for inner, name in block.items()}


MODULES: dict[str, str] = {
    "stem1/conv": "conv1",
    "stem1/norm": "bn1",
    "stem2/conv": "conv2",
    "stem2/norm": "bn2",
    **_under("bottleneck", "layer1.0", _BOTTLENECK),
    **_under("encoder1", "layer1.1", _SHUFFLE),
    **_under("encoder2", "layer1.2", _SHUFFLE),
    **_under("encoder3", "layer1.3", _SHUFFLE),
    "transition/conv": "transition1.0.0",
    "transition/norm": "transition1.0.1",
    **_under("stage1_weighting", "stage2.branches.0.0", _WEIGHTING),
    **_under("stage1_refinement", "stage2.branches.0.1", _REFINEMENT),
    **_under("stage1_shuffle", "stage2.branches.0.2", _SHUFFLE),
    **_under("stage2_weighting", "stage4.0.branches.0.0", _WEIGHTING),
    **_under("stage2_refinement", "stage4.0.branches.0.1", _REFINEMENT),
    **_under("stage2_shuffle", "stage4.0.branches.0.2", _SHUFFLE),
    "head": "final_layer",
}

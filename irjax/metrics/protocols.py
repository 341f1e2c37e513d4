"""Named evaluation protocols: those of irjax, and those of published programs with their flaws.

The public programs of the field define IoU, Pd and Fa differently, so a number is meaningful only together with its
protocol. A protocol is a frozen record that one counting function interprets. `dataclasses.replace` makes a variant:

    strict = dataclasses.replace(protocol("irjax"), name="irjax, 2 px", limit=2.0)

The protocol of a published program reproduces the program including its errors, so that results can be compared with
published tables; its `flaws` list the errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from irjax.errors import UsageError
from irjax.metrics.spec import Curve, Protocol

__all__ = ["PROTOCOLS", "Curve", "Protocol", "as_stored", "on_canvas", "protocol"]

_GREEDY = "Matching is greedy in raster order, so a target can lose its only detection to a neighbour that has another."
_AREA_SET = (
    "False regions are told by their area: one as large as any matched region of the image is not counted in Fa, so Fa "
    "is too low."
)
_TRUNCATED = "Only truth pixels of the full level are targets: gray rims, and whole targets stored as 254, are lost."
_MIXED = (
    "Gray truth is read three ways: intersections and targets are of the full level, unions of at least half, and "
    "pixAcc of any."
)
_EMPTY_IS_ZERO = "An image without truth and prediction counts as 0 in nIoU, so empty images lower it."
_LOGIT_BINS = (
    "Its table of Pd and Fa sets thresholds 0, 25.5, 51, ... on logits, so that only the first column means anything."
)
_SMALL_CANVAS = (
    "Masks are resized by nearest neighbour, which removes small targets: from 512 to 256 only 49 % of 2x1 targets "
    "remain."
)
_CANVAS = "Masks are resized by nearest neighbour, which changes small targets."
_SMOOTHED = "Rates of the ROC have 0.001 added to their denominators."
_OPEN_CURVE = (
    "The area under its ROC begins and ends at the rates of its outermost thresholds, not at 0 and 1, so maps that are "
    "0 on much of the image get too small an AUC."
)

IRJAX = Protocol(
    name="irjax",
    summary="p > 0.5 at native size; 8-connected regions; Fa is the area of unmatched regions per pixel",
    metrics=("IoU", "nIoU", "Precision", "Recall", "Pd", "F1", "Fa", "TP", "FP", "FN"),
)

CENTROID = Protocol(
    name="centroid",
    summary="points against target centroids; Fa is the number of false points per pixel",
    metrics=("Precision", "Recall", "Pd", "F1", "Fa", "TP", "FP", "FN"),
    needs_maps=False,
    limit=5.0,
    inclusive=True,
    false_alarm="count",
    fa_unit=1e-8,
)

BASICIRSTD = Protocol(
    name="basicirstd",
    summary="BasicIRSTD: global IoU, first region nearer than 3 px, Fa by area of unmatched regions, native size",
    metrics=("IoU", "pixAcc", "Pd", "Fa"),
    matching="first",
    truth="mixed",
    flaws=(_GREEDY, _MIXED),
)

DNANET = Protocol(
    name="dnanet",
    summary="DNANet: as BasicIRSTD on a canvas of 256x256, Fa without regions as large as a matched one",
    metrics=("IoU", "pixAcc", "Pd", "Fa", "AUC"),
    matching="first",
    false_alarm="area_set",
    truth="mixed",
    canvas="resize",
    canvas_size=256,
    curve=Curve.even(10, closed=False, smoothing=1e-3),
    flaws=(_AREA_SET, _LOGIT_BINS, _GREEDY, _MIXED, _SMALL_CANVAS, _SMOOTHED, _OPEN_CURVE),
)

MSHNET = dataclasses.replace(
    DNANET,
    name="mshnet",
    summary="MSHNet: as DNANet, the side of the canvas an option (256 by default)",
    flaws=(
        *DNANET.flaws[:2],
        "Its reset keeps the number of targets, so Pd falls from epoch to epoch to 1/2, 1/3, ...; irjax counts afresh "
        "and does not copy that.",
        *DNANET.flaws[2:],
    ),
)

SCTRANSNET = Protocol(
    name="sctransnet",
    summary="SCTransNet: native size, nIoU as mean over images, Fa without regions as large as a matched one",
    metrics=("IoU", "nIoU", "PixelF1", "Pd", "Fa", "AUC"),
    matching="first",
    false_alarm="area_set",
    truth="mixed",
    empty="zero",
    curve=Curve.even(10, closed=False, smoothing=1e-3, f1_smoothing=1e-5),
    flaws=(_AREA_SET, _EMPTY_IS_ZERO, _GREEDY, _MIXED, _SMOOTHED, _OPEN_CURVE),
)

PAL = Protocol(
    name="pal",
    summary="PAL: maps saved in 8 bit and above 127, truth levels count in parts, Fa by area of unmatched regions",
    metrics=("IoU", "nIoU", "Pd", "Fa"),
    matching="first",
    truth="graded",
    empty="zero",
    eight_bit=True,
    iou_epsilon=1e-6,
    flaws=(
        "A region of gray truth is one of equal level, so a target with a gray rim counts as several.",
        _EMPTY_IS_ZERO,
        _GREEDY,
        "The map is cut to 8 bit first: the threshold is in effect 128/255, not 0.5.",
    ),
)

ACM = Protocol(
    name="acm",
    summary="open-acm: IoU and nIoU on a canvas of 512x512, no targets counted",
    metrics=("IoU", "nIoU", "pixAcc", "AUC"),
    truth="exact",
    empty="zero",
    canvas="resize",
    canvas_size=512,
    curve=Curve.even(10, closed=False, smoothing=1e-3),
    flaws=(
        _TRUNCATED,
        _EMPTY_IS_ZERO,
        _CANVAS,
        _SMOOTHED,
        _OPEN_CURVE,
    ),
)

AGPCNET = Protocol(
    name="agpcnet",
    summary="AGPCNet: IoU, pixel precision, recall and F1 on a canvas of 256x256, AUC at 200 thresholds",
    metrics=("IoU", "PixelPrecision", "PixelRecall", "PixelF1", "AUC"),
    truth="exact",
    canvas="resize",
    canvas_size=256,
    curve=Curve.even(200, closed=False, smoothing=1e-3),
    flaws=(_TRUNCATED, _SMALL_CANVAS, _SMOOTHED, _OPEN_CURVE),
)

_PEAK = "Each map is divided by its own maximum: a flat map of 0.02 becomes all target."

RPCANET = Protocol(
    name="rpcanet",
    summary="RPCANet: each map divided by its maximum, Fa without regions as large as a matched one",
    metrics=("IoU", "PixelPrecision", "PixelRecall", "PixelF1", "Pd", "Fa"),
    matching="first",
    false_alarm="area_set",
    truth="peak",
    peak_normalised=True,
    program_size=256,
    flaws=(_PEAK, _AREA_SET, _GREEDY, "Only truth pixels at the mask's maximum are targets."),
)

RPCANET_OVERLAP = Protocol(
    name="rpcanet_overlap",
    summary="RPCANet's second pair: a target counts as found with one pixel, Fa is false pixels per background pixel",
    metrics=("OverlapPd", "Fa", "AUC"),
    false_alarm="pixels",
    false_alarm_per="background",
    truth="peak",
    peak_normalised=True,
    program_size=256,
    skip_without_truth=True,
    curve=Curve.even(100, inclusive=True, targets=True, closed=False),
    flaws=(
        _PEAK,
        "Images without targets are left out with all their false alarms.",
        "One pixel of overlap finds a target, so one blob over the image finds all of them.",
        "The ROC has targets on one axis and pixels on the other, so its area is not a probability.",
        _OPEN_CURVE,
    ),
)

SPIRE = Protocol(
    name="spire",
    summary="SPIRE: truth by truth the nearest unused point within 5 px, Fa is the number of false points per pixel",
    metrics=("Precision", "Recall", "Pd", "F1", "Fa", "TP", "FP", "FN"),
    needs_maps=False,
    matching="nearest_in_order",
    limit=5.0,
    inclusive=True,
    false_alarm="count",
    fa_unit=1e-8,
    dropped_points="origin",
    sweep="once",
    flaws=(
        "Matching goes target by target to the nearest unused point, so a target can lose its only point to another.",
        "A point at (0, 0) is dropped as padding, although a target can be there.",
        "Thresholds are swept without matching again, so a weak point keeps a strong one from its target.",
        "The programs fail on an empty list of points, drop false alarms on images without targets (evaluate.py) and "
        "the misses on images that the prediction file lacks; irjax does not copy that.",
    ),
)

SPIRE_MASKS = dataclasses.replace(
    SPIRE,
    name="spire_masks",
    summary="SPIRE's program for masks: every region above 0 at its weighted centroid, then as SPIRE",
    threshold=0.0,
    eight_bit=True,
    truth="positive",
    centroid="weighted",
    sweep="once_shifted",
    flaws=(
        *SPIRE.flaws[:3],
        "Regions of everything above 0 are points, so a heat map that is nowhere 0 is one region.",
        "Its table looks scores up as if no point had been dropped, so its false alarms differ from the total.",
    ),
)

ADSNET = Protocol(
    name="adsnet",
    summary="ADSNet: nIoU as mean over images, Fa is false pixels per pixel",
    metrics=("IoU", "nIoU", "Pd", "Fa"),
    false_alarm="pixels",
    flaws=("Fa counts every false pixel, so a rim around a found target is a false alarm too.",),
)

LESPS = dataclasses.replace(BASICIRSTD, name="lesps", summary="LESPS: the program of BasicIRSTD")
NA_IRSTD = dataclasses.replace(
    BASICIRSTD,
    name="na_irstd",
    summary="Na-IRSTD: as BasicIRSTD, and the false alarms per image that its formula says",
    metrics=("IoU", "pixAcc", "Pd", "Fa", "FalsePerImage"),
)
SCALE_LOSS = dataclasses.replace(MSHNET, name="scale_loss", summary="Scale-aware losses: the program of MSHNet")

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            *(IRJAX, CENTROID, BASICIRSTD, LESPS, DNANET, MSHNET, SCTRANSNET, PAL, ACM, AGPCNET, RPCANET),
            *(RPCANET_OVERLAP, SPIRE, SPIRE_MASKS, NA_IRSTD, ADSNET, SCALE_LOSS),
        )
    }
)


def protocol(name: str | Protocol) -> Protocol:
    """Returns the protocol of a name; a `Protocol` is returned unchanged.

    Raises:
      UserError: if no protocol has that name; the message lists the known names.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def on_canvas(spec: Protocol, canvas: str | None, size: int | None = None) -> Protocol:
    """Returns a protocol with another canvas; if nothing is resized, the flaws due to resizing are removed.

    Args:
      spec: the protocol; one that counts at native size is returned unchanged.
      canvas: "pad" or "resize"; None keeps that of the protocol.
      size: side of the canvas in pixels; None keeps that of the protocol.

    Raises:
      UserError: if `canvas` is unknown or `size` is negative.
    """
    if spec.canvas == "native":
        return spec
    canvas = canvas or spec.canvas
    flaws = tuple(flaw for flaw in spec.flaws if canvas == "resize" or flaw not in (_CANVAS, _SMALL_CANVAS))
    return dataclasses.replace(spec, canvas=canvas, canvas_size=size or spec.canvas_size, flaws=flaws)


def as_stored(spec: Protocol, side: int) -> Protocol | None:
    """Returns the protocol under which maps of side x side count as they are, with the truth resized to them.

    It is None if the published program brings images to another size, or to none.

    Args:
      spec: the protocol.
      side: side of the maps in pixels.
    """
    if spec.canvas == "native" and spec.program_size == side:
        return dataclasses.replace(spec, canvas="resize", canvas_size=side)
    return spec if spec.canvas == "resize" and spec.canvas_size == side else None

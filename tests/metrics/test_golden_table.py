"""Every number that the public implementations returned (metrics_golden.json), by protocol and metric.

A row of `TABLE` names a recorded program, how it was called, and for each key it returned where irjax has that number.
A test fails if a recorded key has no row: nothing is left out.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest
import scipy.special

from irjax.metrics import (
    Curve,
    Evaluation,
    ScoreHistogram,
    distinct_scores,
    evaluate_images,
    protocol,
    score_histogram,
    sweep,
)

REPLACE = dataclasses.replace
TENTHS = np.arange(11) / 10


def flat(value, prefix=""):
    """Nested dictionaries as {"a.b": value}."""
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{prefix}{key}.").items()}


@dataclasses.dataclass
class Run:
    """A program's call in irjax: one protocol on one group's maps."""

    spec: object
    maps: list
    masks: list
    logits: bool = False

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        return evaluate_images(self.maps, self.masks, self.spec, logits=self.logits)[self.spec.name]

    @functools.cached_property
    def values(self):
        return self.evaluation.metrics()

    @functools.cached_property
    def total(self):
        return self.evaluation.total

    @functools.cached_property
    def curve(self):
        return self.evaluation.curve()

    def sweep(self, thresholds):
        return sweep(self.maps, self.masks, thresholds, self.spec, logits=self.logits)

    @functools.cached_property
    def tenths(self):
        return self.sweep(TENTHS)

    @functools.cached_property
    def logit_bins(self):
        """Flaw 2: thresholds 0, 25.5, 51, ... on logits; from 51 on p > 1 in double precision."""
        points = self.sweep([0.5, scipy.special.expit(25.5), 1.0])
        return [points.at(min(index, 2)) for index in range(11)]

    @functools.cached_property
    def table(self):
        return self.sweep([0.1, 0.3, 0.5, 0.7, 0.9])


def metric(name, unit=1.0):
    return lambda run: run.values[name] / unit


def count(name):
    return lambda run: getattr(run.total, name)


def union(run):
    return run.total.pixel_tp + run.total.pixel_fp + run.total.pixel_fn


def curve(name):
    return lambda run: getattr(run.curve, name)


def swept(points, number):
    return lambda run: number(getattr(run, points))


GLOBAL_IOU = {
    "pixAcc": metric("pixAcc"),
    "mIoU": metric("IoU"),
    "total_inter": count("pixel_tp"),
    "total_union": union,
}

BASICIRSTD = {
    **GLOBAL_IOU,
    "PD": metric("Pd"),
    "FA": metric("Fa"),
    "FA_x1e6": metric("Fa", 1e-6),
    "n_match": count("matched"),
    "n_gt": count("truths"),
    "dismatch_pixel": count("false_region_pixels"),
    "all_pixel": count("pixels"),
}

# DNANet's and MSHNet's table of Pd and Fa, on logits, so that columns 1 to 10 are empty.
LOGIT_TABLE = {
    "PD": swept("logit_bins", lambda rows: [row.recall for row in rows]),
    "FA": swept("logit_bins", lambda rows: [row.fa for row in rows]),
    "FA0_x1e6": metric("Fa", 1e-6),
    "n_match": swept("logit_bins", lambda rows: [row.tp for row in rows]),
    "n_gt": swept("logit_bins", lambda rows: [row.tp + row.fn for row in rows]),
    "fa_area_sum": lambda run: [round(row.fa * run.total.pixels) for row in run.logit_bins],
    "denominator_px": count("pixels"),
}

ROC = {
    "ROC.AUC_trapezoid": metric("AUC"),
    "ROC.tp_rates": curve("tpr"),
    "ROC.fp_rates": curve("fpr"),
    "ROC.recall": curve("tpr"),
    "ROC.precision": curve("precision"),
    "ROC.tp": curve("tp"),
    "ROC.fp": curve("fp"),
    "ROC.pos": lambda run: [run.curve.positives] * 11,
    "ROC.neg": lambda run: [run.curve.negatives] * 11,
}

PROBABILITY_TABLE = {
    "PD": swept("tenths", lambda s: s.recall),
    "FA": swept("tenths", lambda s: s.fa),
    "FA0_x1e6": swept("tenths", lambda s: s.fa[0] * 1e6),
    "n_match": swept("tenths", lambda s: s.matched),
    "n_gt": swept("tenths", lambda s: [s.truths] * 11),
    "fa_area_sum": swept("tenths", lambda s: s.false_alarms),
    "denominator_px": count("pixels"),
}

SPIRE = {
    "tp": metric("TP"),
    "fp": metric("FP"),
    "fn": metric("FN"),
    "precision": metric("Precision"),
    "recall": metric("Recall"),
    "f1": metric("F1"),
    "pixels": count("pixels"),
    "FA": metric("Fa"),
    "FA_x1e8": metric("Fa", 1e-8),
}

SPIRE_MASKS = {
    **{f"overall.{key}": SPIRE[key] for key in ("tp", "fp", "fn", "precision", "recall")},
    "overall.f1_score": metric("F1"),
    "overall.image_count": count("images"),
    "table.thresholds": swept("table", lambda s: s.thresholds),
    "table.TP": swept("table", lambda s: s.matched),
    "table.FP": swept("table", lambda s: s.predictions - s.matched),
    "table.FN": swept("table", lambda s: s.truths - s.matched),
    "table.Precision": swept("table", lambda s: s.precision),
    "table.Recall": swept("table", lambda s: s.recall),
    "table.F1": swept("table", lambda s: s.f1),
    "table.PD": swept("table", lambda s: s.recall),
    "table.FA": swept("table", lambda s: s.fa),
}

SCTRANSNET = {
    "mIoU": metric("IoU"),
    "nIoU": metric("nIoU"),
    "PD": metric("Pd"),
    "FA": metric("Fa"),
    "FA_x1e6": metric("Fa", 1e-6),
    "dismatch_pixel": count("area_set_pixels"),
    "n_match": count("matched"),
    "n_gt": count("truths"),
    "F1_at_05": metric("PixelF1"),
    "precision_at_05": lambda run: run.curve.precision[5],
    "recall_at_05": lambda run: run.curve.tpr[5],
    "FP_over_all": curve("false_per_pixel"),
}

PAL = {
    "PD": metric("Pd"),
    "FA": metric("Fa"),
    "FA_x1e6": metric("Fa", 1e-6),
    "fa_px": count("false_region_pixels"),
    "n_match": count("matched"),
    "n_gt": count("truths"),
    "mIoU": metric("IoU"),
    "nIoU": metric("nIoU"),
}


def iou_of_each_image(run):
    return [Evaluation(run.spec, None, ("",), (row,), {}).metrics()["nIoU"] for row in run.evaluation.rows]


ACM = {
    "nIoU": metric("nIoU"),
    "IoU": metric("IoU"),
    "per_image": iou_of_each_image,
    "ROC10.tp_rates": curve("tpr"),
    "ROC10.fp_rates": curve("fpr"),
}

AGPCNET = {
    "mIoU": metric("IoU"),
    "precision": metric("PixelPrecision"),
    "recall": metric("PixelRecall"),
    "fscore": metric("PixelF1"),
    "AUC_trapezoid": metric("AUC"),
    "tp": count("pixel_tp"),
    "fp": count("pixel_fp"),
    "fn": count("pixel_fn"),
}

RPCANET = {
    "PD_FA.PD": metric("Pd"),
    "PD_FA.FA": metric("Fa"),
    "PD_FA.dismatch_pixel": count("area_set_pixels"),
    "TPFNFP.mIoU": metric("IoU"),
    "TPFNFP.precision": metric("PixelPrecision"),
    "TPFNFP.recall": metric("PixelRecall"),
    "TPFNFP.fscore": metric("PixelF1"),
}

RPCANET_OVERLAP = {
    "my_PD_FA.PD": metric("OverlapPd"),
    "my_PD_FA.FA": metric("Fa"),
    "my_PD_FA.false_px": count("pixel_fp"),
    "my_PD_FA.background_px": lambda run: run.total.pixels - run.total.pixel_tp - run.total.pixel_fn,
    "my_PD_FA.true_detect": count("overlapped"),
    "my_PD_FA.targets": count("truths"),
    "ROC_AUC": metric("AUC"),
}


def empty_as(rule):
    return lambda run: REPLACE(run.evaluation, protocol=REPLACE(run.spec, empty=rule)).metrics()["nIoU"]


def exact_auc(run):
    levels = distinct_scores(run.maps)
    each = (score_histogram(p, m, levels) for p, m in zip(run.maps, run.masks, strict=True))
    return ScoreHistogram.total(each).auc()


REFERENCE_PIXELS = {
    "tp": count("pixel_tp"),
    "fp": count("pixel_fp"),
    "fn": count("pixel_fn"),
    "px": count("pixels"),
    "IoU": metric("IoU"),
    "precision": metric("PixelPrecision"),
    "recall": metric("PixelRecall"),
    "F1": metric("PixelF1"),
    "FPR_over_neg": lambda run: REPLACE(
        run.evaluation, protocol=REPLACE(run.spec, false_alarm_per="background")
    ).metrics()["Fa"],
    "Fa_pixel_over_all": metric("Fa"),
    "nIoU_empty_zero": empty_as("zero"),
    "nIoU_empty_one": empty_as("one"),
    "nIoU_empty_skip": empty_as("skip"),
    "AUC_exact": exact_auc,
}

REFERENCE_OVERLAP = {
    "n_gt": count("truths"),
    "detected": count("overlapped"),
    "Pd": metric("OverlapPd"),
    "n_gt_conn4": lambda run: Run(REPLACE(run.spec, connectivity=4), run.maps, run.masks).total.truths,
}


def fa_by(what):
    return lambda run: REPLACE(run.evaluation, protocol=REPLACE(run.spec, false_alarm=what)).metrics()["Fa"]


REFERENCE_MATCHING = {
    "tp": metric("TP"),
    "fp": metric("FP"),
    "fn": metric("FN"),
    "n_gt": count("truths"),
    "n_pred": count("predictions"),
    "Pd": metric("Pd"),
    "precision": metric("Precision"),
    "F1": metric("F1"),
    "fa_px": count("false_region_pixels"),
    "fa_px_areaset": count("area_set_pixels"),
    "Fa_region_px": fa_by("area"),
    "Fa_areaset_px": fa_by("area_set"),
    "Fa_count_px": fa_by("count"),
    "FP_per_image": metric("FalsePerImage"),
}

IRJAX = protocol("irjax")
MATCHINGS = {
    "first_lt3": {"matching": "first"},
    "first_le5": {"matching": "first", "limit": 5.0, "inclusive": True},
    "nearest_lt3": {"matching": "nearest_in_order"},
    "nearest_le5": {"matching": "nearest_in_order", "limit": 5.0, "inclusive": True},
    "nearest_le5_drop00": {
        "matching": "nearest_in_order", "limit": 5.0, "inclusive": True, "dropped_points": "origin"
    },
    "hungarian_lt3": {},
    "hungarian_le5": {"limit": 5.0, "inclusive": True},
}  # fmt: skip


def padded(name, side):
    """The golden call: images lie on the canvas, top left."""
    return REPLACE(protocol(name), canvas="pad", canvas_size=side)


def native(name):
    return REPLACE(protocol(name), canvas="native")


def within(prefix, rows):
    return {f"{prefix}.{key}": reader for key, reader in rows.items()}


# program: calls, each (protocol, maps as the program got them, {recorded key: where irjax has it}).
TABLE = {
    "BasicIRSTD": [(protocol("basicirstd"), "prob", BASICIRSTD)],
    "LESPS": [(protocol("lesps"), "prob", BASICIRSTD)],
    "DNANet_logits_embed256": [(padded("dnanet", 256), "logit", {**GLOBAL_IOU, **LOGIT_TABLE, **ROC})],
    "DNANet_255xprob_embed256": [(padded("dnanet", 256), "prob", PROBABILITY_TABLE)],
    "MSHNet_logits_size64": [(padded("mshnet", 64), "logit", {**GLOBAL_IOU, **LOGIT_TABLE, **ROC})],
    "MSHNet_logits_size96": [(padded("mshnet", 96), "logit", {**GLOBAL_IOU, **LOGIT_TABLE, **ROC})],
    "SPIRE_calculate_metrics_d5": [(protocol("spire"), "prob", SPIRE)],
    "SPIRE_calculate_metrics_d3": [(REPLACE(protocol("spire"), limit=3.0), "prob", SPIRE)],
    "SPIRE_eval_from_mask_binarised_geometric_d5": [(protocol("spire_masks"), "binary", SPIRE_MASKS)],
    "SPIRE_eval_from_mask_heatmap_weighted_d5": [(protocol("spire_masks"), "prob", SPIRE_MASKS)],
    "SCTransNet": [(protocol("sctransnet"), "prob", SCTRANSNET)],
    "PAL": [(protocol("pal"), "prob", PAL)],
    "open-acm_stubbed_mxnet": [(native("acm"), "logit", ACM)],
    "AGPCNet": [(native("agpcnet"), "logit", AGPCNET)],
    "RPCANet": [(protocol("rpcanet"), "prob", RPCANET), (protocol("rpcanet_overlap"), "prob", RPCANET_OVERLAP)],
    "reference_clean_room": [
        (
            REPLACE(
                IRJAX,
                metrics=("IoU", "nIoU", "PixelPrecision", "PixelRecall", "PixelF1", "Fa"),
                false_alarm="pixels",
            ),
            "prob",
            within("pixel", REFERENCE_PIXELS),
        ),
        (REPLACE(IRJAX, metrics=("OverlapPd",)), "prob", within("overlap_any_pixel", REFERENCE_OVERLAP)),
        *(
            (
                REPLACE(IRJAX, metrics=(*IRJAX.metrics, "FalsePerImage"), **changes),
                "prob",
                within(key, REFERENCE_MATCHING),
            )
            for key, changes in MATCHINGS.items()
        ),
    ],
}


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "metrics_golden.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for part in "AB":
        arrays[f"binary_{part}"] = arrays[f"prob_{part}"] > 0.5
    return arrays, json.loads((shared / "golden" / "metrics_golden.json").read_text())


def group_of(arrays, kind, group):
    return [image for part in group for image in arrays[f"{kind}_{part}"]]


@pytest.mark.parametrize("group", ["A", "B", "AB"])
@pytest.mark.parametrize("program", TABLE)
def test_every_number_of_every_program(golden, program, group):
    arrays, recorded = golden
    if program not in recorded["results"][group]:
        # MSHNet's side was 64 for A and 96 for the others; every recorded program has a row, see below.
        assert program.startswith("MSHNet_logits_size")
        return
    want, got = flat(recorded["results"][group][program]), {}
    for spec, kind, rows in TABLE[program]:
        run = Run(spec, group_of(arrays, kind, group), group_of(arrays, "mask", group), logits=kind == "logit")
        for key, reader in rows.items():
            assert key not in got
            got[key] = reader(run)
    assert got.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-6, atol=0, err_msg=f"{program}, {group}: {key}")


def test_every_recorded_program_has_a_row(golden):
    recorded = golden[1]["results"]
    assert recorded.keys() == {"A", "B", "AB"}
    assert {program for group in recorded.values() for program in group} == TABLE.keys()


HUNGARIAN = {
    "n_gt": "truths",
    "n_pred": "predictions",
    "tp": "matched",
    "fa_px": "false_region_pixels",
    "fa_px_areaset": "area_set_pixels",
    "px": "pixels",
}


def image_row(rows, index):
    """What the golden file has of one image, from the counts under each protocol."""
    basic, five, three = (rows[name][index] for name in ("basicirstd", "spire", "spire, 3 px"))
    got = {
        "basicirstd.n_gt": basic.truths,
        "basicirstd.n_match": basic.matched,
        "basicirstd.dismatch_pixel": basic.false_region_pixels,
        "basicirstd.inter": basic.pixel_tp,
        "basicirstd.union": basic.pixel_tp + basic.pixel_fp + basic.pixel_fn,
        "areaset_bug_pixel": basic.area_set_pixels,
    }
    for key, row in (("spire_d5_tp_fp_fn", five), ("spire_d3_tp_fp_fn", three)):
        got[key] = [row.matched, row.predictions - row.matched, row.truths - row.matched]
    for key, name in (("ref_hungarian_lt3", "irjax"), ("ref_hungarian_le5", "centroid")):
        row = rows[name][index]
        got |= {f"{key}.{short}": getattr(row, field) for short, field in HUNGARIAN.items()}
        got |= {f"{key}.fn": row.truths - row.matched, f"{key}.fp": row.predictions - row.matched}
    return got


@pytest.mark.parametrize("group", ["A", "B"])
def test_every_number_of_every_image(golden, group):
    arrays, recorded = golden
    three = REPLACE(protocol("spire"), name="spire, 3 px", limit=3.0)
    specs = ("irjax", "centroid", "basicirstd", "spire", three)
    evaluations = evaluate_images(arrays[f"prob_{group}"], arrays[f"mask_{group}"], specs)
    rows = {name: evaluation.rows for name, evaluation in evaluations.items()}
    for index, image in enumerate(recorded["per_image"][group]):
        want = flat(image)
        assert want.pop("index") == index and want.pop("description")
        assert image_row(rows, index) == want


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("form", ["levels", "floats"])
def test_gray_truth_as_each_loader_hands_it_over(golden, number, form):
    arrays, recorded = golden
    want, maps = flat(recorded["gray"][str(number)]), arrays["prob_G"][number : number + 1]
    masks = arrays["gray_G"][number : number + 1]
    if form == "floats":
        masks = masks.astype(np.float32) / 255
    mshnet, positive = padded("mshnet", 64), REPLACE(IRJAX, name="positive", truth="positive")
    runs = {spec.name: Run(spec, maps, masks) for spec in (protocol("basicirstd"), mshnet, protocol("pal"), positive)}
    basic, pal = runs["basicirstd"], runs["pal"].total
    unit = protocol("pal").pixel_unit
    got = {
        "BasicIRSTD.mIoU": basic.values["IoU"],
        "BasicIRSTD.pixAcc": basic.values["pixAcc"],
        "PAL.inter": pal.pixel_tp / unit,
        "PAL.union": (pal.pixel_tp + pal.pixel_fp + pal.pixel_fn) / unit,
        "targets_if_gt_gt0": runs["positive"].total.truths,
        "targets_if_gt_gt_half": Run(IRJAX, maps, arrays["gray_G"][[number]]).total.truths,
    }
    for key, name in (("BasicIRSTD", "basicirstd"), ("MSHNet", "mshnet"), ("PAL", "pal")):
        total = runs[name].total
        area = total.area_set_pixels if name == "mshnet" else total.false_region_pixels
        got |= {f"{key}.n_gt": total.truths, f"{key}.n_match": total.matched, f"{key}.fa_px": area}
    assert want.pop("description") and got.keys() == want.keys()
    for key, value in want.items():
        assert got[key] == pytest.approx(value, rel=1e-6), key


def test_a_curve_is_a_protocol_setting(golden):
    """The exact area by 256 bins instead: near, and not the same."""
    arrays, recorded = golden
    spec = REPLACE(IRJAX, metrics=("AUC",), curve=Curve.even(256))
    run = Run(spec, group_of(arrays, "prob", "AB"), group_of(arrays, "mask", "AB"))
    exact = recorded["results"]["AB"]["reference_clean_room"]["pixel"]["AUC_exact"]
    assert run.values["AUC"] != exact and run.values["AUC"] == pytest.approx(exact, abs=1e-3)

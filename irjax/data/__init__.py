"""Data input, from files to batches: published layouts, prepared data sets, synthetic scenes and host-side batching.

    source = open_source("datasets/SIRST-v2", "train_full")      # random access to Examples, read lazily
    order = Order(num_examples=len(source), seed=0)              # maps each draw of a run to an example
    cache = load_cache(source, size=512, max_points=32)          # everything in memory; `cut` makes batches inside jit
    batches = host_batches(source, order=order, batch_size=8, size=512, max_points=32)   # the same draws, through grain

`layouts` reads the folder layouts in which data sets are published; `sources` opens, concatenates and compares splits;
`pipeline` and `cache` turn them into batches. Both take their draws from one `Order`, so they produce the same batches.
Names are imported on first use; grain and TFDS are imported only where they are needed.
"""

import importlib

_EXPORTS = {
    "irjax.io.images": ("read_image",),
    "irjax.io.masks": ("read_mask",),
    "irjax.data.draws": ("carve_validation",),
    "irjax.data.layouts": ("FolderSource", "detect_layout", "list_splits", "open_layout"),
    "irjax.data.sources": ("TfdsSource", "check_disjoint", "concatenate", "open_source", "split_hash"),
    "irjax.data.pipeline": ("Order", "host_batches", "letterbox_example", "network_views"),
    "irjax.data.cache": ("PixelCache", "cut", "load_cache"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

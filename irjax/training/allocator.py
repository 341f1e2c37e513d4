"""One setting of the C library that makes XLA's CPU backend markedly faster; for programs, not for libraries."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tells glibc to reuse large buffers instead of returning them to the system.

    XLA's CPU backend allocates its temporary buffers anew for each call, and glibc maps and unmaps large ones every
    time, so that every page is faulted in again. Entry points call this once before the first computation; importing
    irjax never does. Elsewhere than on glibc nothing happens.

    Returns:
      Whether the setting was made.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))

"""The numba compiler's settings for CPU loops, its cache on disk, and waiting for other processes.

Loops are compiled without the interpreter's lock, so that our own threads run side by side; without fast
mathematics, so that nothing is reordered and no product is fused with a sum; and kept on disk where a folder
can be written.
"""
# mypy: ignore-errors
# numba has no types.

import pickle
import sys
from contextlib import suppress
from pathlib import Path

from numba import njit
from numba.core.dispatcher import Dispatcher

from laconic.kernels._compiling import current, tell_not_kept

# Without counts of references, which take a quarter of the compiler's time: loops make and return no arrays.
_OPTIONS = {
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "_nrt": False,
}


def loop(function):
    """The function, compiled at its first call for each kind of arguments.

    numba refuses to keep compiled code where neither the folder of the source, nor the user's cache, nor
    NUMBA_CACHE_DIR can be written. Then each process compiles for itself, as it does where the disk is full.
    """
    try:
        compiled = njit(cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError):
        compiled = njit(**_OPTIONS)(function)
    _wait_for_others(compiled._cache)
    _go_on_where_not_kept(compiled._cache)
    return compiled


def _wait_for_others(cache):
    """Let a warm-up that misses a loop in the cache wait for processes that compile, and look again."""
    load = cache.load_overload

    def load_or_wait(*arguments):
        found = load(*arguments)
        warm_up = current()
        if found is None and warm_up is not None:
            if warm_up.wait(cache.cache_path) and (found := load(*arguments)) is not None:
                warm_up.let_go()
            else:
                warm_up.begin()
        return found

    cache.load_overload = load_or_wait


def _go_on_where_not_kept(cache):
    """Let a loop that was compiled and cannot be written run all the same."""
    save = cache.save_overload

    def save_or_tell(*arguments):
        try:
            save(*arguments)
        except OSError as error:
            tell_not_kept(cache.cache_path, error)

    cache.save_overload = save_or_tell


def inner_loop(function):
    """As ``loop``, for functions that only compiled functions call: kept on disk as part of those.

    What Python would need to call it is not compiled.
    """
    return njit(no_cpython_wrapper=True, **_OPTIONS)(function)


def inlined(function):
    """The function as part of each compiled function that calls it: for what has one caller, or is short.

    numba compiles and optimizes every other function by itself, and once more with each of its callers.
    """
    return njit(inline="always", **_OPTIONS)(function)


_PACKAGE = __name__.rpartition(".")[0] + "."
_looked_at = set()


def forget_stale():
    """Remove the index files of loaded modules that name classes which are not there any more.

    numba unpickles an index before it compares the stamp of the source. Where another version of laconic has
    kept it, with a class that was moved or renamed since, the first call of a loop would raise AttributeError
    or ModuleNotFoundError. Without the index the loop is compiled anew.
    """
    for name in [name for name in sys.modules if name.startswith(_PACKAGE) and name not in _looked_at]:
        _looked_at.add(name)
        loops = [each for each in vars(sys.modules[name]).values() if isinstance(each, Dispatcher)]
        for folder in {each.stats.cache_path for each in loops} - {None}:
            for index in Path(folder).glob(f"{name.rpartition('.')[2]}.*.nbi"):
                if _is_stale(index):
                    with suppress(OSError):  # another process was faster, or the folder is read-only
                        index.unlink()


def _is_stale(index):
    try:
        with index.open("rb") as file:
            pickle.load(file)  # numba's version, and then the stamp and the signatures
            pickle.load(file)
    except (AttributeError, ImportError):
        return True
    except Exception:  # numba's own affair
        return False
    return False


def folder():
    """Where compiled code is kept on disk; None: nowhere."""
    return loop(_nothing).stats.cache_path


def _nothing():
    pass

"""Memory that is refused once, at any request: of the bridge, and of numpy's arrays.

The C file beside this one is compiled when it is needed. No other process is: the interpreter and
numpy take other allocators at any time.
"""

import ctypes
import gc
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastsoftmax import kernels

SOURCE = Path(__file__).parent / "c" / "failing_memory.c"

BRIDGE, NUMPY = "bridge", "numpy"
KINDS = (BRIDGE, NUMPY)  # in the order of the C file
_SET_HANDLER = 304  # place of PyDataMem_SetHandler among the functions of numpy's C interface


class _Allocator(ctypes.Structure):
    """PyMemAllocatorEx."""

    _fields_ = [
        (name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")
    ]


def compiler():
    """The C compiler; None where there is none, or allocators cannot be changed this way."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    found = [shutil.which(name) for name in names if name]
    is_known = sys.platform.startswith("linux") and sys.implementation.name == "cpython"
    return next(filter(None, found), None) if is_known else None


class Memory:
    """Requests for memory while it is `installed`."""

    def __init__(self, folder):
        library = Path(folder) / "failing_memory.so"
        command = [compiler(), "-std=c11", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", library]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.requests_made.restype = self._library.live_blocks.restype = ctypes.c_long
        self._library.fail_from.argtypes = [ctypes.c_int, ctypes.c_long]

    @contextmanager
    def installed(self):
        """Take over the allocators; other threads must be idle."""
        python = ctypes.pythonapi
        before, ours = _Allocator(), _Allocator()
        python.PyMem_GetAllocator(0, ctypes.byref(before))
        python.PyMem_GetAllocator(0, ctypes.byref(ours))
        code = ctypes.CDLL(kernels.__file__).PyInit_kernels
        self._library.wrap_raw(ctypes.byref(ours), code)
        python.PyCapsule_New.restype = ctypes.py_object
        python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        handler = ctypes.addressof(ctypes.c_char.in_dll(self._library, "numpy_handler"))
        capsule = python.PyCapsule_New(handler, b"mem_handler", None)
        numpy_before = _set_handler(capsule)
        python.PyMem_SetAllocator(0, ctypes.byref(ours))
        try:
            yield self
        finally:
            self.allow()
            python.PyMem_SetAllocator(0, ctypes.byref(before))
            _set_handler(numpy_before)

    def refuse(self, kind, n):
        """Let the n-th request from now on fail."""
        self._library.fail_from(KINDS.index(kind), n)

    def allow(self):
        """Let no request fail any more, and count from 0."""
        for i in range(len(KINDS)):
            self._library.fail_from(i, 0)

    def requests(self, kind):
        """How many there were since the last `refuse` or `allow`."""
        return self._library.requests_made(KINDS.index(kind))

    def live(self):
        """Blocks of each kind that were not freed, after the garbage was collected."""
        gc.collect()
        return {kind: self._library.live_blocks(i) for i, kind in enumerate(KINDS)}


def _set_handler(capsule):
    module = (np._core if hasattr(np, "_core") else np.core)._multiarray_umath
    python = ctypes.pythonapi
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = python.PyCapsule_GetPointer(module._ARRAY_API, None)
    functions = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[_SET_HANDLER])
    return set_handler(capsule)

"""Modules and pages whose doctests need a package that is not installed are left out."""

from importlib.util import find_spec

collect_ignore = []
if find_spec("dask") is None or find_spec("distributed") is None:
    collect_ignore += ["fastsoftmax/_dask", "fastsoftmax/dask.py", "docs/dask.md"]

"""The parts of `fastsoftmax.dask`: rows on the workers of a Dask cluster."""

"""The version, in its one place: pyproject.toml reads it from here without importing."""

__version__ = "0.1.0.dev0"

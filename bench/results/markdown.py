"""What the tables are written with."""

from collections.abc import Iterable, Sequence


def head(columns: Sequence[str]) -> Iterable[str]:
    yield line(*columns)
    yield "|---" + "|---:" * (len(columns) - 1) + "|"


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def ratio(value: float) -> str:
    text = digits(value)
    return f"**{text}**" if value < 1.0 else text


def digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"

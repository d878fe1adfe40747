"""The tables of `cluster.json`: evaluations on a cluster, predicted and measured."""

from collections.abc import Iterable
from typing import Any

from results.markdown import digits, head, line, number

CLUSTER = "cluster"


def lines(results: dict[str, Any]) -> Iterable[str]:
    """What was checked, then what is only predicted."""
    checked = [row for row in results["rows"] if "measured, s" in row]
    predicted = [row for row in results["rows"] if "measured, s" not in row]
    yield (
        "An evaluation (loss and gradient of all rows) on local Dask workers of one thread each, 8 "
        f"partitions. All share {results['machine_info']['threads']} cores with the client. "
        "`sums`: the number of arrays of the model's size that come from the workers."
    )
    yield ""
    parts = ("computing", "messages", "traffic")
    named = (*(f"{name}, ms" for name in (*parts, "predicted", "measured")), "predicted / measured")
    yield from head(("rows", "workers", "sums", "model, MB", *named))
    for row in checked:
        yield line(
            row["task"],
            str(row["workers"]),
            str(row["sums"]),
            number(row["model, MB"]),
            *(number(1e3 * row[f"{name}, s"]) for name in (*parts, "predicted", "measured")),
            digits(row["predicted, s"] / row["measured, s"]),
        )
    yield ""
    if not predicted:
        return
    yield _assumed(predicted[0])
    yield ""
    fixed = ("rows", "X, GB", "pass, TFLOP", "model, MB", "client, GB")
    chosen = [predicted[0]["workers"].index(n) for n in (1, 16, 128, 1024)]
    counts = [f"{predicted[0]['workers'][i]} workers, s" for i in chosen]
    yield from head((*fixed, *counts, "quickest with", "s", "all-reduce, 128 workers, s"))
    for row in predicted:
        yield line(
            row["task"],
            *(number(row[name]) for name in fixed[1:]),
            *(number(row["seconds"][i]) for i in chosen),
            str(row["best workers"]),
            number(row["best, s"]),
            number(row["all-reduced, s"][chosen[2]]),
        )
    yield ""


def _assumed(row: dict[str, Any]) -> str:
    assumed = row["assumed"]
    return (
        "The next table is predicted, not measured. These are assumed: workers of "
        f"{assumed['cores']} cores (each doubling of the cores keeps {assumed['efficiency']:g} of "
        f"the speed of a core), a network of {assumed['link, GB/s']:g} GB/s and memory of "
        f"{assumed['memory, GB/s']:g} GB/s. The speed of one core and the time of messages are "
        f"those of the machine above. Messages take {row['first worker, ms']:g} ms with one "
        f"worker, and {row['each worker, ms']:g} ms more for each further worker."
    )


def shown(row: dict[str, Any]) -> str:
    """A row in the terminal."""
    if "measured, s" in row:
        found = f"predicted {row['predicted, s']:g} s, measured {row['measured, s']:g} s"
        return f"{row['workload']}: {found}"
    pairs = zip(row["workers"], row["seconds"], strict=True)
    found = ", ".join(f"{n}: {seconds:.3g} s" for n, seconds in pairs)
    return f"{row['workload']}: {found}"

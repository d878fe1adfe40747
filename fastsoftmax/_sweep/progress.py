"""What a sweep prints while it runs: a line for each fit, with the time that is left."""

import time


class Progress:
    """Lines of the fits of `n_folds` folds at each of `n_Cs` values of C; none unless verbose."""

    def __init__(self, n_folds: int, n_Cs: int, verbose: int) -> None:
        self._n_folds, self._n_fits, self._verbose = n_folds, n_folds * n_Cs, verbose
        self._began = time.perf_counter()
        self._ends: list[float] = []  # of the fits so far, in seconds since the beginning

    def tell_fold(self, C: float, fold: int, n_iter: int, gap: float, score: float) -> None:
        """Tell of the fit to a fold; the next fits are expected to take as long as the latest.

        The latest n_folds fits, which are one of each fold: fits take longer as C grows.
        """
        self._ends.append(self._seconds())
        if not self._verbose:
            return
        latest = [0.0, *self._ends][-self._n_folds - 1 :]
        each = (latest[-1] - latest[0]) / (len(latest) - 1)
        left = each * (self._n_fits - len(self._ends))
        width = len(str(self._n_fits))
        print(
            f"[{len(self._ends):{width}}/{self._n_fits}] C {C:<8.3g}  fold {fold + 1}  "
            f"iterations {n_iter:3}  gap {gap:.1e}  score {score:.4f} | "
            f"{_spelt(latest[-1])}, about {_spelt(left)} left",
            flush=True,
        )

    def tell_end(self, n_Cs_left: int) -> None:
        """Tell that larger values of C are not tried."""
        if self._verbose:
            print(
                f"the score has fallen: {n_Cs_left} larger values of C are not tried",
                flush=True,
            )

    def tell_refit(self, C: float, n_iter: int, gap: float) -> None:
        """Tell of the fit to all rows at the chosen C."""
        if self._verbose:
            print(
                f"all rows  C {C:<8.3g}  iterations {n_iter:3}  gap {gap:.1e} | "
                f"{_spelt(self._seconds())}",
                flush=True,
            )

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _spelt(seconds: float) -> str:
    """Return a time as people read it: "3.1 s", "12 s", "2 min 5 s", "3 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""pytest plugin: scikit-learn's tests of LogisticRegression, with fastsoftmax in its place.

`test_drop_in` runs them in a process of their own with this plugin, which replaces the two classes
before the tests import them, and writes to the file named by `DROP_IN_RESULTS` what became of each
test and how many fits by fastsoftmax it made.

The replacements translate what differs by design (`docs/drop-in.md`), and nothing else.
"""

import inspect
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.linear_model

from fastsoftmax import FastSoftmax, FastSoftmaxCV

SOLVERS = {
    "lbfgs": "lbfgs",
    "newton-cholesky": "newton-cholesky",
    "newton-cg": "auto",
    "sag": "auto",
    "saga": "auto",
    "liblinear": "auto",
}
RESULTS = pytest.StashKey[dict]()
FITS_BEFORE = pytest.StashKey[int]()
ORIGINALS = {
    name: inspect.signature(getattr(sklearn.linear_model, name)).parameters
    for name in ("LogisticRegression", "LogisticRegressionCV")
}
PENALTY = ORIGINALS["LogisticRegression"]["penalty"].default

fits = 0


def relative_gap(tol):
    """A tolerance for the gap where the gradient was to be at most tol: about its square."""
    return max(min(tol, 1e-2) ** 2, 1e-13)


class Translated:
    """What both replacements share."""

    @classmethod
    def _get_param_names(cls):
        """Those that the installed scikit-learn has."""
        return [name for name in super()._get_param_names() if name in ORIGINALS[cls.__name__]]

    def _refuse(self, y):
        """Raise where something is asked for that fastsoftmax does not have."""
        if self.dual:
            raise NotImplementedError("dual=True")
        if self.multi_class == "ovr" and len(np.unique(y)) > 2:
            raise NotImplementedError("multi_class='ovr'")

    def _fit_translated(self, X, y, changes, options):
        """Fit with other values of some parameters, which are as they were afterwards."""
        global fits
        fits += 1
        changes = {"solver": SOLVERS[self.solver], "tol": relative_gap(self.tol), **changes}
        before = {name: getattr(self, name) for name in changes if hasattr(self, name)}
        try:
            vars(self).update(changes)
            return super().fit(X, y, **options)
        finally:
            vars(self).update(before)


class LogisticRegression(Translated, FastSoftmax):
    """FastSoftmax with the parameters of scikit-learn's class; defaults are FastSoftmax's."""

    def __init__(
        self,
        penalty=PENALTY,
        *,
        dual=False,
        tol=1e-4,
        C=1.0,
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        random_state=None,
        solver="lbfgs",
        max_iter=1000,
        multi_class="auto",
        verbose=0,
        warm_start=False,
        n_jobs=None,
        l1_ratio=0.0,
    ):
        super().__init__(
            C,
            fit_intercept=fit_intercept,
            class_weight=class_weight,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            warm_start=warm_start,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.penalty = penalty
        self.dual = dual
        self.intercept_scaling = intercept_scaling
        self.multi_class = multi_class
        self.l1_ratio = l1_ratio

    def fit(self, X, y, sample_weight=None):
        self._refuse(y)
        changes = {}
        l1_ratio = {"l1": 1.0, "l2": 0.0}.get(self.penalty, self.l1_ratio) or 0.0
        if self.penalty is None:
            if self.C != 1.0:
                warnings.warn("Setting penalty=None will ignore the C", UserWarning, stacklevel=2)
            changes["C"], l1_ratio = np.inf, 0.0
        changes["l1_ratio"] = l1_ratio
        if l1_ratio:
            changes["solver"] = "auto"
        return self._fit_translated(X, y, changes, {"sample_weight": sample_weight})


class LogisticRegressionCV(Translated, FastSoftmaxCV):
    """FastSoftmaxCV with the parameters of scikit-learn's class and its layout of results."""

    def __init__(
        self,
        *,
        Cs=10,
        fit_intercept=True,
        cv=5,
        dual=False,
        penalty=PENALTY,
        scoring=None,
        solver="lbfgs",
        tol=1e-4,
        max_iter=1000,
        class_weight=None,
        n_jobs=None,
        verbose=0,
        refit=True,
        intercept_scaling=1.0,
        multi_class="auto",
        random_state=None,
        l1_ratios=None,
        use_legacy_attributes=True,
    ):
        super().__init__(
            Cs,
            cv=5 if cv is None else cv,
            scoring=scoring,
            refit=refit,
            fit_intercept=fit_intercept,
            class_weight=class_weight,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.cv = cv
        self.dual = dual
        self.penalty = penalty
        self.solver = solver
        self.intercept_scaling = intercept_scaling
        self.multi_class = multi_class
        self.l1_ratios = l1_ratios
        self.use_legacy_attributes = use_legacy_attributes

    def fit(self, X, y, sample_weight=None, **options):
        self._refuse(y)
        ratios = [0.0] if self.l1_ratios is None else self.l1_ratios
        if len(ratios) > 1 or (self.penalty == "elasticnet" and self.l1_ratios is None):
            raise NotImplementedError("l1_ratios")
        self.l1_ratio_ = 1.0 if self.penalty == "l1" else float(ratios[0])
        changes = {"cv": 5 if self.cv is None else self.cv, "l1_ratio": self.l1_ratio_}
        options["sample_weight"] = sample_weight
        self._fit_translated(X, y, changes, options)
        self._lay_out()
        return self

    def _lay_out(self):
        """Give what was learnt the axes of LogisticRegressionCV."""
        paths = self.coefs_paths_
        if self.fit_intercept:
            paths = np.concatenate([paths, self.intercepts_paths_[..., None]], axis=-1)
        scores, n_iter, ratios = self.scores_, self.n_iter_, self.l1_ratios is not None
        self.l1_ratios_ = np.array([self.l1_ratio_])
        if not self.use_legacy_attributes:
            self.coefs_paths_ = paths[:, None]
            self.scores_, self.n_iter_ = scores[:, None], n_iter[:, None]
            return
        classes = self.classes_ if len(self.classes_) > 2 else self.classes_[1:]
        self.C_ = np.full(len(classes), self.C_)
        self.l1_ratio_ = np.full(len(classes), self.l1_ratio_)
        if ratios:
            paths, scores, n_iter = paths[:, :, None], scores[..., None], n_iter[..., None]
        self.coefs_paths_ = {label: paths[..., k, :] for k, label in enumerate(classes)}
        self.scores_ = dict.fromkeys(classes, scores)
        self.n_iter_ = n_iter[None]


def pytest_configure(config):
    """Replace the classes; the tests are imported later."""
    config.stash[RESULTS] = {}
    for module in (sklearn.linear_model, sklearn.linear_model._logistic):
        module.LogisticRegression = LogisticRegression
        module.LogisticRegressionCV = LogisticRegressionCV


def pytest_runtest_setup(item):
    item.stash[FITS_BEFORE] = fits


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" or report.outcome != "passed":
        item.config.stash[RESULTS][item.name] = {
            "outcome": report.outcome,
            "fits": fits - item.stash.get(FITS_BEFORE, fits),
            "message": report.longrepr.reprcrash.message if report.failed else "",
        }
    return report


def pytest_sessionfinish(session):
    results = json.dumps(session.config.stash[RESULTS])
    Path(os.environ["DROP_IN_RESULTS"]).write_text(results, encoding="utf-8")

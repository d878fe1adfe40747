"""Standard errors, tests and intervals of fits: against statsmodels, and what is refused."""

import sys
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError

from fastsoftmax import FastSoftmax

UNPENALISED = {"C": np.inf, "n_jobs": 1}


def make_data(rng, n_classes=4, n=600):
    """Rows of features of several sizes and offsets; no class is separable."""
    scale, offset = np.array([1.0, 10.0, 0.1, 1e3]), np.array([0.0, 100.0, 3.0, -5e3])
    z = rng.normal(size=(n, 4))
    y = (z @ rng.normal(size=(4, n_classes)) + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    return scale * z + offset, y


def fitted(X, y, sample_weight=None, **params):
    model = FastSoftmax(**{**UNPENALISED, **params})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y, sample_weight)


def statistics(X, y, sample_weight=None, **options):
    return fitted(X, y, sample_weight).statistics(X, y, sample_weight, **options)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return X[:, [2, 3]], np.array(["barolo", "grignolino", "barbera"])[y]


class TestAgainstStatsmodels:
    def test_stored_results(self, wine):
        """statsmodels 0.15.0: MNLogit(y, add_constant(X)).fit(), conf_int(alpha=0.1)."""
        result = fitted(*wine).statistics(*wine, reference="barolo", confidence_level=0.9)
        assert (result.reference, result.classes.tolist()) == ("barolo", ["barbera", "grignolino"])
        assert result.terms.tolist() == ["intercept", "x0", "x1"]
        order = [1, 0]  # classes are sorted here
        coef = [[4.01967183, -10.7913281, 1.14913719], [-2.80127992, -7.32371319, 1.06801177]]
        errors = [[2.62206986, 1.72633059, 0.185391570], [2.67123314, 1.62945097, 0.182469275]]
        p_values = [[0.125272215, 4.07779e-10, 5.70281e-10], [0.2943235, 6.97043e-06, 4.8248e-09]]
        lower = [[-0.293249292, -13.6308892, 0.844195197], [-7.19506744, -10.0039215, 0.767876517]]
        upper = [[8.33259296, -7.95176696, 1.45407919], [1.59250761, -4.64350485, 1.36814702]]
        # these are the contrasts of grignolino and barbera
        np.testing.assert_allclose(result.coef[order], coef, rtol=1e-7)
        np.testing.assert_allclose(result.standard_errors[order], errors, rtol=1e-7)
        np.testing.assert_allclose(result.p_values[order], p_values, rtol=1e-5)
        np.testing.assert_allclose(result.conf_int[order, :, 0], lower, rtol=1e-7)
        np.testing.assert_allclose(result.conf_int[order, :, 1], upper, rtol=1e-7)
        found = (result.log_likelihood, result.log_likelihood_null, result.aic, result.bic)
        expected = (-121.48985075, -193.3148430004, 254.9797015, 274.0704028)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert (result.pseudo_r2, result.df) == (pytest.approx(0.371544114955), 6.0)

    @pytest.mark.parametrize("reference", range(4))
    @pytest.mark.parametrize("intercept", [True, False], ids=["intercept", ""])
    def test_several_classes(self, rng, reference, intercept):
        api = pytest.importorskip("statsmodels.api")
        X, y = make_data(rng)
        X = X if intercept else (X - X.mean(axis=0)) / X.std(axis=0)
        ours = fitted(X, y, fit_intercept=intercept).statistics(X, y, reference=reference)
        renumbered = np.where(y == reference, -1, y)  # the base of MNLogit is the first
        design = api.add_constant(X) if intercept else X
        theirs = api.MNLogit(renumbered, design).fit(disp=0, method="newton")
        np.testing.assert_allclose(ours.coef, theirs.params.T, rtol=1e-7)
        np.testing.assert_allclose(ours.standard_errors, theirs.bse.T, rtol=1e-7)
        np.testing.assert_allclose(ours.z, theirs.tvalues.T, rtol=1e-7)
        np.testing.assert_allclose(ours.p_values, theirs.pvalues.T, rtol=1e-6, atol=1e-300)
        np.testing.assert_allclose(ours.conf_int, theirs.conf_int(), rtol=1e-6)
        np.testing.assert_allclose(ours.covariance, theirs.cov_params(), rtol=1e-5, atol=1e-12)
        assert ours.log_likelihood == pytest.approx(theirs.llf)
        if intercept:  # without one it counts a parameter less
            assert (ours.aic, ours.bic) == (pytest.approx(theirs.aic), pytest.approx(theirs.bic))
            assert ours.log_likelihood_null == pytest.approx(theirs.llnull)
            assert ours.pseudo_r2 == pytest.approx(theirs.prsquared)

    @pytest.mark.parametrize("reference", [None, "b"])
    def test_two_classes(self, rng, reference):
        api = pytest.importorskip("statsmodels.api")
        X, y = make_data(rng, 2)
        names = np.array(["a", "b"])[y]
        ours = fitted(X, names).statistics(X, names, reference=reference)
        of = y == 0 if reference == "b" else y == 1
        theirs = api.Logit(of.astype(float), api.add_constant(X)).fit(disp=0)
        assert ours.classes.tolist() == (["a"] if reference == "b" else ["b"])
        np.testing.assert_allclose(ours.coef[0], theirs.params, rtol=1e-7)
        np.testing.assert_allclose(ours.standard_errors[0], theirs.bse, rtol=1e-7)
        np.testing.assert_allclose(ours.covariance, theirs.cov_params(), rtol=1e-5, atol=1e-12)
        assert ours.aic == pytest.approx(theirs.aic)


class TestOneAnswer:
    """Other ways to ask for the same thing."""

    @pytest.mark.parametrize("n_classes", [2, 4])
    def test_weights_are_repeated_rows(self, rng, n_classes):
        X, y = make_data(rng, n_classes)
        weights = rng.integers(0, 4, len(y)).astype(float)
        rows = np.repeat(np.arange(len(y)), weights.astype(int))
        a, b = statistics(X, y, weights), statistics(X[rows], y[rows])
        np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(a.coef, b.coef, rtol=1e-7)
        for name in ("log_likelihood", "log_likelihood_null", "n_observations", "aic", "bic", "df"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9), name

    def test_class_without_weight(self, rng):
        """The fit leaves that class out, and so do its statistics."""
        X, y = make_data(rng)
        a = statistics(X, y, (y != 2).astype(float))
        b = statistics(X[y != 2], y[y != 2])
        assert a.classes.tolist() == b.classes.tolist() == [1, 3]
        np.testing.assert_allclose(a.standard_errors, b.standard_errors, rtol=1e-9)

    @pytest.mark.parametrize(
        "params",
        [
            {"standardize": True},
            {"input_scale": 0.01},
            {"solver": "lbfgs"},
            {"backend": "numpy"},
            {"n_jobs": 2},
        ],
        ids=str,
    )
    def test_parameters_of_the_fit(self, rng, params):
        X, y = make_data(rng)
        a, b = fitted(X, y, **params).statistics(X, y), statistics(X, y)
        np.testing.assert_allclose(a.standard_errors, b.standard_errors, rtol=1e-6)
        np.testing.assert_allclose(a.coef, b.coef, rtol=1e-4)

    def test_shifted_without_an_intercept(self, rng):
        """standardize=True centres features, so that is another model than X without an intercept.

        It is that of features which the user has scaled; standard errors are for X as it is.
        """
        X, y = make_data(rng)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        a = fitted(X, y, fit_intercept=False, standardize=True).statistics(X, y)
        b = fitted(scaled, y, fit_intercept=False).statistics(scaled, y)
        assert a.terms.tolist() == ["x0", "x1", "x2", "x3"]
        np.testing.assert_allclose(a.standard_errors * X.std(axis=0), b.standard_errors, rtol=1e-7)
        np.testing.assert_allclose(a.z, b.z, rtol=1e-4)

    @pytest.mark.parametrize("dtype", ["float32", "uint8", "csr"])
    def test_storage(self, rng, dtype):
        X = rng.integers(0, 9, size=(500, 3)).astype(float)
        y = (X @ rng.normal(size=(3, 3)) / 4 + rng.gumbel(size=(500, 3))).argmax(axis=1)
        stored = sparse.csr_array(X) if dtype == "csr" else X.astype(dtype)
        a, b = statistics(stored, y), statistics(X, y)
        np.testing.assert_allclose(a.standard_errors, b.standard_errors, rtol=1e-5)

    def test_temperature_plays_no_part(self, wine):
        model = fitted(*wine)
        before = model.statistics(*wine)
        after = model.calibrate_temperature(*wine).statistics(*wine)
        model.temperature_ = 7.0
        np.testing.assert_array_equal(before.coef, after.coef)
        np.testing.assert_array_equal(before.covariance, model.statistics(*wine).covariance)

    def test_repr(self, wine):
        text = repr(fitted(*wine).statistics(*wine))
        assert text == (
            "<FitStatistics of 6 contrasts with barbera: log_likelihood=-121.49, df=6, "
            "aic=254.98, bic=274.07, pseudo_r2=0.3715>"
        )

    def test_fit_of_scikit_learn(self, wine):
        from sklearn.linear_model import LogisticRegression

        X, y = wine
        theirs = LogisticRegression(C=np.inf, solver="newton-cg", tol=1e-10).fit(X, y)
        found = FastSoftmax.from_sklearn(theirs).statistics(X, y)
        np.testing.assert_allclose(found.z, statistics(X, y).z, rtol=1e-4)

    def test_nothing_is_noted_or_written(self, wine):
        X, y = wine
        model = fitted(X, y)
        names, kept = set(vars(model)), X.copy()
        X.flags.writeable = False
        model.summary(X, y)
        assert set(vars(model)) == names
        np.testing.assert_array_equal(X, kept)


def minus_log_posterior(w, X, y, C, n_classes):
    """Of the coefficients of all classes, by numpy alone."""
    w = w.reshape(n_classes, -1)
    o = X @ w[:, 1:].T + w[:, 0]
    top = o.max(axis=1)
    loss = np.log(np.exp(o - top[:, None]).sum(axis=1)) + top - o[np.arange(len(y)), y]
    return loss.sum() + (w[:, 1:] ** 2).sum() / (2 * C)


class TestLaplace:
    @pytest.mark.parametrize("scaled", [False, True])
    def test_is_the_inverse_of_the_posteriors_hessian(self, rng, scaled):
        """Second differences of the penalised likelihood of all classes, then contrasts."""
        X, y = rng.normal(size=(200, 2)) + 0.5, rng.integers(0, 3, 200)
        y[:3] = range(3)
        C, scale = 0.05, 4.0 if scaled else 1.0
        model = fitted(X, y, C=C, tol=1e-12, input_scale=scale)
        result = model.statistics(X, y, covariance="laplace", reference=1)
        w = np.hstack([model.intercept_[:, None], model.coef_ / scale]).ravel()
        Z, step = X * scale, 1e-3
        size, unit = len(w), 1e-3 * np.eye(len(w))
        hessian = np.empty((size, size))
        for i in range(size):
            for j in range(size):
                hessian[i, j] = sum(
                    s * t * minus_log_posterior(w + s * unit[i] + t * unit[j], Z, y, C, 3)
                    for s in (1, -1)
                    for t in (1, -1)
                ) / (4 * step**2)
        common = np.kron(np.ones(3), [1, 0, 0])  # of the intercepts, which nothing tells
        inverse = np.linalg.inv(hessian + np.outer(common, common)).reshape(3, 3, 3, 3)
        contrast = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
        expected = np.einsum("ak,kilj,bl->aibj", contrast, inverse, contrast)
        size_of = np.array([1.0, scale, scale])
        expected *= size_of[:, None, None] * size_of
        np.testing.assert_allclose(result.covariance, expected.reshape(6, 6), rtol=1e-3, atol=1e-6)

    def test_two_classes(self, rng):
        X, y = rng.normal(size=(100, 1)), rng.integers(0, 2, 100)
        model = fitted(X, y, C=0.1, tol=1e-12, fit_intercept=False)
        p = model.predict_proba(X)[:, 1]
        result = model.statistics(X, y, covariance="laplace")
        rows = float(p * (1 - p) @ X[:, 0] ** 2)
        np.testing.assert_allclose(result.covariance, [[1 / (rows + 1 / 0.1)]], rtol=1e-9)
        assert result.df == pytest.approx(rows / (rows + 10.0))

    def test_without_a_penalty_it_is_the_other(self, wine):
        a = statistics(*wine, covariance="laplace")
        np.testing.assert_array_equal(a.covariance, statistics(*wine).covariance)
        assert a.df == 6.0

    def test_separable_and_collinear(self):
        """A prior tells what the rows do not."""
        X, y = load_iris(return_X_y=True)
        X = np.hstack([X, X[:, :1]])
        result = fitted(X, y, C=1.0, tol=1e-8).statistics(X, y, covariance="laplace")
        np.testing.assert_allclose(result.standard_errors[:, 1], result.standard_errors[:, 5])
        assert 0.0 < result.df < 12.0

    def test_tests_nothing(self, wine):
        result = fitted(*wine, C=1.0).statistics(*wine, covariance="laplace")
        with pytest.raises(ValueError, match='p-values only for covariance="fisher"'):
            _ = result.p_values


class TestRefused:
    def test_a_penalty(self, wine):
        with pytest.raises(ValueError, match=r"C=2 is a penalty.*C=numpy.inf.*laplace"):
            fitted(*wine, C=2.0).summary(*wine)

    @pytest.mark.parametrize("params", [{"class_weight": "balanced"}, {"label_smoothing": 0.1}])
    @pytest.mark.parametrize("covariance", ["fisher", "laplace"])
    def test_what_is_no_likelihood(self, wine, params, covariance):
        with pytest.raises(ValueError, match=f"a fit with {next(iter(params))}="):
            fitted(*wine, **params).summary(*wine, covariance=covariance)

    @pytest.mark.parametrize("which", ["wholly", "in part", "by one column"])
    @pytest.mark.parametrize("solver", ["auto", "lbfgs"])
    def test_separable(self, rng, which, solver):
        X, y = load_iris(return_X_y=True)
        if which == "wholly":
            y = y == 0
        elif which == "by one column":  # which occurs in rows of one class alone
            X, y = make_data(rng)
            X = np.column_stack([X, (y == 1) & (X[:, 0] > 0)])
        with pytest.raises(ValueError, match=r"not identifiable.*separable"):
            fitted(X, y, solver=solver).summary(X, y)

    @pytest.mark.parametrize("intercept", [True, False], ids=["intercept", ""])
    def test_collinear(self, rng, intercept):
        X, y = make_data(rng)
        X = np.column_stack([X, X[:, 0] - 3 * X[:, 2]])
        model = fitted(X, y, fit_intercept=intercept)
        with pytest.raises(ValueError, match=r"coefficients of x0, x2, x4 are .*: .* collinear"):
            model.summary(X, y)

    def test_dummy_columns(self, rng):
        """All of a one-hot coding: with the intercept they are collinear, without it they tell."""
        pandas = pytest.importorskip("pandas")
        _, y = make_data(rng)
        X = pandas.get_dummies(pandas.Series(rng.integers(0, 3, len(y))), prefix="d", dtype=float)
        with pytest.raises(ValueError, match=r"d_0, d_1, d_2, intercept .*column of ones"):
            fitted(X, y).summary(X, y)
        assert len(fitted(X, y, fit_intercept=False).summary(X, y)) == 9

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
    def test_constant(self, rng, value):
        X, y = make_data(rng)
        X = np.column_stack([np.full(len(y), value), X])
        with pytest.raises(ValueError, match=r"coefficients of x0(, intercept)? are not"):
            fitted(X, y).summary(X, y)

    def test_other_rows(self, rng):
        X, y = make_data(rng)
        model = fitted(X, y)
        for rows in (slice(300), slice(300, None)):
            with pytest.raises(ValueError, match="not the optimum of these rows"):
                model.summary(X[rows], y[rows])
        with pytest.raises(ValueError, match="not the optimum of these rows"):
            model.summary(X, y, rng.uniform(0.0, 3.0, len(y)))

    def test_unconverged(self, rng):
        X, y = make_data(rng)
        with pytest.raises(ValueError, match="did not converge"):
            fitted(X, y, max_iter=2).summary(X, y)
        with pytest.raises(ValueError, match="not the optimum"):
            fitted(X, y, C=1.0, solver="lbfgs", max_iter=3).summary(X, y, covariance="laplace")

    def test_too_many_coefficients(self, wine):
        model = fitted(*wine)
        with pytest.raises(ValueError, match="9 coefficients, and max_parameters is 8"):
            model.summary(*wine, max_parameters=8)
        assert len(model.summary(*wine, max_parameters=9)) == 6

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"reference": "chianti"}, ValueError, "reference must be one of the classes"),
            ({"covariance": "robust"}, ValueError, 'must be "fisher" or "laplace", got \'robust\''),
            (
                {"confidence_level": 95},
                ValueError,
                r"confidence_level must lie in \(0, 1\), got 95",
            ),
            ({"confidence_level": np.nan}, ValueError, "confidence_level must lie in"),
            ({"confidence_level": "high"}, TypeError, "confidence_level must be a number"),
        ],
    )
    def test_options(self, wine, options, error, message):
        with pytest.raises(error, match=message):
            fitted(*wine).summary(*wine, **options)

    def test_rows(self, wine):
        X, y = wine
        model = fitted(X, y)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            model.summary(X, y[:-1])
        with pytest.raises(ValueError, match="y holds a label that is none of the classes"):
            model.summary(X, np.where(np.arange(len(y)) == 3, "x", y))
        with pytest.raises(ValueError, match="has none of 'barbera'"):
            model.summary(X[y != "barbera"], y[y != "barbera"])
        with pytest.raises(ValueError, match="features"):
            model.summary(X[:, :1], y)
        with pytest.raises(ValueError, match="NaN"):
            model.summary(np.full_like(X, np.nan), y)
        with pytest.raises(NotFittedError):
            FastSoftmax().summary(X, y)


class TestTable:
    COLUMNS = ("coef", "std_err", "z", "p_value", "ci_lower", "ci_upper")

    def test_frame(self, wine):
        pandas = pytest.importorskip("pandas")
        X, y = wine
        frame = pandas.DataFrame(X, columns=["ash", "alcalinity"])
        model = fitted(frame, y)
        table, result = model.summary(frame, y), model.statistics(frame, y)
        assert tuple(table.columns) == self.COLUMNS
        assert table.index.names == ["class", "term"]
        ash = table.loc[("grignolino", "ash")]
        assert ash["coef"] == result.coef[1, 1]
        assert ash["std_err"] == result.standard_errors[1, 1]
        assert ash["p_value"] == result.p_values[1, 1]
        assert (ash["ci_lower"], ash["ci_upper"]) == tuple(result.conf_int[1, 1])
        posterior = model.summary(frame, y, covariance="laplace")
        assert list(posterior.columns) == ["coef", "std_err", "ci_lower", "ci_upper"]

    def test_without_pandas(self, wine, monkeypatch):
        X, y = wine
        result = fitted(X, y).statistics(X, y)
        monkeypatch.setitem(sys.modules, "pandas", None)
        table = result.table()
        assert table.dtype.names == ("class", "term", *self.COLUMNS)
        assert table["term"].tolist() == 2 * ["intercept", "x0", "x1"]
        assert table["class"].tolist() == 3 * ["barolo"] + 3 * ["grignolino"]
        np.testing.assert_array_equal(table["std_err"], result.standard_errors.ravel())
        np.testing.assert_array_equal(table["ci_upper"], result.conf_int[..., 1].ravel())

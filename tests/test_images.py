"""The main job on real images: the sample that comes with the package, and more if there is more.

The larger tests read the folder ``fashion`` inside the folder that FASTSOFTMAX_TEST_DATA names: the
four files of Fashion-MNIST, or of a part of it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import load_fashion_mnist, load_fashion_mnist_sample

TEXTBOOK = {"batch_size": 256, "learning_rate": 0.1, "solver": "sgd", "random_state": 0}


@pytest.fixture(scope="module")
def sample():
    """(X, y, X_test, y_test) with pixels from 0 to 1 in float64."""
    return scaled(*load_fashion_mnist_sample("train"), *load_fashion_mnist_sample("test"))


@pytest.fixture(scope="module")
def images():
    """The same from the larger files."""
    root = os.environ.get("FASTSOFTMAX_TEST_DATA")
    if not root:
        pytest.skip("FASTSOFTMAX_TEST_DATA does not name a folder with fashion/*.gz")
    folder = Path(root) / "fashion"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return scaled(*load_fashion_mnist(folder, "train"), *load_fashion_mnist(folder, "test"))


def scaled(X, y, X_test, y_test):
    return X / 255.0, y, X_test / 255.0, y_test


def objective(model, X, y, C):
    """F by its definition."""
    logits = X @ model.coef_.T.astype(np.float64) + model.intercept_
    own = logits[np.arange(len(y)), y]
    loss = float(np.mean(logsumexp(logits, axis=1) - own))
    return loss + float((model.coef_.astype(np.float64) ** 2).sum()) / (2.0 * C * len(y))


def textbook_run(data, real, n_epochs, **parameters):
    X, y, X_test, y_test = (part.astype(real) if part.ndim == 2 else part for part in data)
    model = FastSoftmax(**TEXTBOOK, max_iter=n_epochs, n_jobs=1, **parameters)
    return model.fit(X, y, eval_set=[(X_test, y_test)])


class TestTextbook:
    """Mini-batches of 256, learning rate 0.1, constant: what the chapter of any textbook runs."""

    def test_sample(self, sample, real):
        model = textbook_run(sample, real, 60)
        loss = model.history_["loss"]
        assert len(loss) == 60
        assert loss[-1] < 0.62
        assert model.score(sample[2], sample[3]) > 0.75
        # the curve of the chapter: falling fast, then slowly
        assert loss[0] > loss[4] > loss[19] > loss[59]
        assert loss[0] - loss[4] > loss[4] - loss[19]

    def test_images(self, images, real):
        model = textbook_run(images, real, 60)
        assert model.history_["loss"][-1] < 0.5
        assert model.score(images[2], images[3]) > 0.80
        assert model.history_["eval_accuracy"][-1][0] == pytest.approx(
            model.score(images[2].astype(real), images[3])
        )

    def test_float32_and_float64_tell_the_same_story(self, sample):
        single, double = (textbook_run(sample, real, 10) for real in (np.float32, np.float64))
        np.testing.assert_allclose(single.history_["loss"], double.history_["loss"], rtol=1e-5)
        np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-5)

    def test_momentum_gets_there_sooner(self, sample):
        plain = textbook_run(sample, np.float32, 10)
        heavy = textbook_run(sample, np.float32, 10, momentum=0.9, C=np.inf)
        assert heavy.history_["loss"][-1] < plain.history_["loss"][-1]


class TestOptimum:
    @staticmethod
    def compare(data, C):
        """The default solver, certified to 1e-9, and scikit-learn's at tol=1e-10."""
        X, y, X_test, y_test = data
        ours = FastSoftmax(C, tol=1e-9, n_jobs=1).fit(X, y)
        theirs = LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=1000)
        with threadpool_limits(1, user_api="blas"):  # its many small products wait for threads
            theirs.fit(X, y)
        ours_F, theirs_F = objective(ours, X, y, C), objective(theirs, X, y, C)
        assert ours.converged_
        assert ours.objective_ == pytest.approx(ours_F, rel=1e-12)
        assert abs(ours_F - theirs_F) <= 1e-8 * theirs_F
        assert ours_F <= theirs_F * (1.0 + 1e-9), "the certificate is false"
        probs = ours.predict_proba(X_test)
        np.testing.assert_allclose(probs, theirs.predict_proba(X_test), atol=2e-3)
        assert abs(ours.score(X_test, y_test) - theirs.score(X_test, y_test)) < 2e-3

    def test_sample(self, sample):
        self.compare(sample, C=0.1)

    @pytest.mark.slow
    def test_images(self, images):
        self.compare(images, C=1.0)

    @pytest.mark.parametrize("C", [0.01, 1.0])
    def test_default_tolerance(self, sample, C):
        X, y = sample[:2]
        best = FastSoftmax(C, tol=1e-8, n_jobs=1).fit(X, y)
        for real, noise in ((np.float32, 1e-6), (np.float64, 1e-12)):
            model = FastSoftmax(C, n_jobs=1).fit(X.astype(real), y)
            assert model.converged_
            true_gap = objective(model, X, y, C) / best.objective_ - 1.0
            assert true_gap <= 1e-4
            assert model.gap_ >= true_gap - noise

    def test_images_by_default(self, images, real):
        X, y, X_test, y_test = images
        model = FastSoftmax(n_jobs=1).fit(X.astype(real), y)
        assert model.converged_
        assert model.score(X_test, y_test) > 0.80

    def test_pixels_as_they_are(self, sample):
        """Bytes from 0 to 255, never scaled: the solver's business, not the user's."""
        X, y = sample[:2]
        scaled = FastSoftmax(0.01, n_jobs=1).fit(X, y)
        raw = FastSoftmax(0.01 / 255.0**2, n_jobs=1)
        for pixels in (np.rint(255.0 * X), np.rint(255.0 * X).astype(np.uint8)):
            assert raw.fit(pixels, y).objective_ == pytest.approx(scaled.objective_, rel=2e-4)
            assert raw.converged_

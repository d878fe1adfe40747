"""The suite: every race, contestant by contestant, timed by pytest-benchmark."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from measuring.harness import NATIVE, ONE_THREAD, Race
from measuring.problems import FASHION, ONE_ROW, PROBE_100, PROBE_1000, TEXT
from races import native, prediction, rows, training

CONTESTANTS = (NATIVE, ONE_THREAD, "numpy", "scikit-learn", "torch")
# Of SGD: scikit-learn's SGDClassifier takes one row at a time, one class against the rest.
WITHOUT_SKLEARN = (NATIVE, ONE_THREAD, "numpy", "torch")
WITH_SCIPY = (NATIVE, ONE_THREAD, "numpy", "scipy", "torch")
CSR_CONTESTANTS = (NATIVE, ONE_THREAD, "scipy", "scikit-learn", "torch")
CSR_WITHOUT_SKLEARN = (NATIVE, ONE_THREAD, "scipy", "torch")

TEXT_BINARY = {"kind": "text", "sizes": (90_000, 200_000, 2)}
BINARY = {"kind": "fashion", "sizes": (60_000, 2)}
PASSES = [
    {**FASHION, "storage": "float32"},
    {**FASHION, "storage": "float64"},
    {**FASHION, "storage": "float16"},
    {**FASHION, "storage": "uint8"},
    PROBE_100,
    PROBE_1000,
]
MORE_PASSES = [
    {**FASHION, "storage": "int8"},
    {**FASHION, "order": "F"},
    {"kind": "probe", "sizes": (1_000_000, 4, 3)},  # few features
    {"kind": "probe", "sizes": (2_000, 4_096, 10)},  # many
    {"kind": "probe", "sizes": (50_000, 512, 32)},
    {"kind": "probe", "sizes": (2_000, 256, 10_000)},
    {"kind": "probe", "sizes": (150, 4, 3)},  # microseconds a pass
]
PREDICTIONS = [
    {"method": "predict_proba", **FASHION},
    {"method": "predict_proba", **FASHION, "storage": "uint8"},
    {"method": "predict_proba", **FASHION, "order": "F"},
    {"method": "predict_proba", **ONE_ROW},
    {"method": "predict_log_proba", **FASHION},
    {"method": "predict", **FASHION},
    {"method": "predict", **ONE_ROW},
    {"method": "predict_topk", **PROBE_1000},
    {"method": "predict_topk", **ONE_ROW},
    {"method": "evaluate", **FASHION},
    {"method": "evaluate", **PROBE_1000},
    {"method": "score", **FASHION},
]
CSR_PREDICTIONS = [{"method": method, **TEXT} for method in ("predict_proba", "evaluate")]
LOGITS = [{"n_rows": n, "n_classes": K} for n, K in rows.SHAPES]


def entries(
    builder: Callable[..., Race],
    arguments: Sequence[dict[str, Any]],
    contestants: Sequence[str],
    **more: Any,
) -> pytest.MarkDecorator:
    """Parametrise by `entry` (a builder and its arguments) and `contestant`.

    The contestants of a race follow each other, so that its data is made once.
    """
    values = []
    for given in arguments:
        given = {**more, **given}
        label = "-".join(map(_label, given.values()))
        for contestant in contestants:
            values.append(pytest.param((builder, given), contestant, id=f"{label}-{contestant}"))
    return pytest.mark.parametrize(("entry", "contestant"), values)


def _label(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


@entries(training.loss_grad, PASSES + MORE_PASSES, (*CONTESTANTS, training.BY_CLASS))
def test_loss_grad(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.loss_grad, [BINARY, {**BINARY, "storage": "uint8"}], CONTESTANTS)
def test_loss_grad_binary(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    training.loss_grad,
    [TEXT, {**TEXT, "indices": "int64"}, TEXT_BINARY],
    (*CSR_CONTESTANTS, training.TRANSPOSED),
)
def test_loss_grad_csr(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.loss_grad, PASSES, (*native.ISAS, "numpy"), by_isa=True)
def test_loss_grad_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.loss_grad, [TEXT], (*native.ISAS, "scipy"), by_isa=True)
def test_loss_grad_csr_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.sgd_epoch, [FASHION], WITHOUT_SKLEARN)
def test_epoch(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.sgd_epoch, [TEXT], CSR_WITHOUT_SKLEARN)
def test_epoch_csr(entry, contestant, timed):
    timed(entry, contestant)


@entries(training.textbook, [{"n_rows": 60_000}], (NATIVE, ONE_THREAD, "torch"))
def test_textbook(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.softmax, LOGITS, CONTESTANTS, operation="softmax")
def test_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.softmax, LOGITS, WITH_SCIPY, operation="log_softmax")
def test_log_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.softmax, LOGITS, CONTESTANTS, operation="softmax", in_place=True)
def test_softmax_in_place(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.softmax, LOGITS, (*native.ISAS, "numpy"), operation="softmax", by_isa=True)
def test_softmax_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.logsumexp, LOGITS, WITH_SCIPY)
def test_logsumexp(entry, contestant, timed):
    timed(entry, contestant)


@entries(rows.cross_entropy_rows, LOGITS, WITHOUT_SKLEARN)
def test_cross_entropy(entry, contestant, timed):
    timed(entry, contestant)


@entries(prediction.predict, PREDICTIONS, CONTESTANTS)
def test_predict(entry, contestant, timed):
    timed(entry, contestant)


@entries(prediction.predict, CSR_PREDICTIONS, CSR_CONTESTANTS)
def test_predict_csr(entry, contestant, timed):
    timed(entry, contestant)

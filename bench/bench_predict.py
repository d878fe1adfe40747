"""What fitted models say of many rows, and of one."""

import races
import races_predict
from harness import entries

FASHION = {"kind": "fashion", "sizes": (60_000,)}
ONE = {"kind": "fashion", "sizes": (1,)}
PROBE = {"kind": "probe", "sizes": (20_000, 768, 1000)}
TEXT = {"kind": "text", "sizes": (90_000, 200_000, 20)}
PREDICTIONS = [
    {"method": "predict_proba", **FASHION},
    {"method": "predict_proba", **FASHION, "storage": "uint8"},
    {"method": "predict_proba", **FASHION, "order": "F"},
    {"method": "predict_proba", **ONE},
    {"method": "predict_log_proba", **FASHION},
    {"method": "predict", **FASHION},
    {"method": "predict", **ONE},
    {"method": "predict_topk", **PROBE},
    {"method": "predict_topk", **ONE},
    {"method": "evaluate", **FASHION},
    {"method": "evaluate", **PROBE},
    {"method": "score", **FASHION},
]


@entries(races_predict.predict, PREDICTIONS, races.CONTESTANTS)
def test_predict(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    races_predict.predict,
    [{"method": method, **TEXT} for method in ("predict_proba", "evaluate")],
    races.CSR_CONTESTANTS,
)
def test_predict_csr(entry, contestant, timed):
    timed(entry, contestant)

"""Loss and gradient in one pass over the rows: what the evaluations of a fit cost."""

import races
from harness import entries

FASHION = {"kind": "fashion", "sizes": (60_000,)}
PASSES = [
    {**FASHION, "storage": "float32"},
    {**FASHION, "storage": "float64"},
    {**FASHION, "storage": "float16"},
    {**FASHION, "storage": "uint8"},
    {"kind": "probe", "sizes": (50_000, 512, 100)},
    {"kind": "probe", "sizes": (20_000, 768, 1000)},
]


@entries(races.loss_grad, PASSES, (*races.CONTESTANTS, races.BY_CLASS))
def test_loss_grad(entry, contestant, timed):
    timed(entry, contestant)


@entries(races.loss_grad, [{**sizes, "isas": True} for sizes in PASSES], (*races.ISAS, "numpy"))
def test_loss_grad_isas(entry, contestant, timed):
    timed(entry, contestant)

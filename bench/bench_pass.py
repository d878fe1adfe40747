"""Loss and gradient in one pass over the rows: what the evaluations of a fit cost."""

import races
import races_pass
from harness import entries

FASHION = {"kind": "fashion", "sizes": (60_000,)}
BINARY = {"kind": "fashion", "sizes": (60_000, 2)}
TEXT = {"kind": "text", "sizes": (90_000, 200_000, 20)}
TEXT_BINARY = {"kind": "text", "sizes": (90_000, 200_000, 2)}
PASSES = [
    {**FASHION, "storage": "float32"},
    {**FASHION, "storage": "float64"},
    {**FASHION, "storage": "float16"},
    {**FASHION, "storage": "uint8"},
    {"kind": "probe", "sizes": (50_000, 512, 100)},
    {"kind": "probe", "sizes": (20_000, 768, 1000)},
]
SHAPES = [
    {**FASHION, "storage": "int8"},
    {**FASHION, "order": "F"},
    {"kind": "probe", "sizes": (1_000_000, 4, 3)},  # few features
    {"kind": "probe", "sizes": (2_000, 4_096, 10)},  # many
    {"kind": "probe", "sizes": (50_000, 512, 32)},
    {"kind": "probe", "sizes": (2_000, 256, 10_000)},
    {"kind": "probe", "sizes": (150, 4, 3)},  # microseconds a pass
]


def _isas(passes):
    return [{**arguments, "by_isa": True} for arguments in passes]


@entries(races_pass.loss_grad, PASSES + SHAPES, (*races.CONTESTANTS, races_pass.BY_CLASS))
def test_loss_grad(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_pass.loss_grad, [BINARY, {**BINARY, "storage": "uint8"}], races.CONTESTANTS)
def test_loss_grad_binary(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    races_pass.loss_grad,
    [TEXT, {**TEXT, "indices": "int64"}, TEXT_BINARY],
    (*races.CSR_CONTESTANTS, races.TRANSPOSED),
)
def test_loss_grad_csr(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_pass.loss_grad, _isas(PASSES), (*races.ISAS, "numpy"))
def test_loss_grad_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_pass.loss_grad, _isas([TEXT]), (*races.ISAS, races.SCIPY))
def test_loss_grad_csr_isas(entry, contestant, timed):
    timed(entry, contestant)

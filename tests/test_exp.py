"""exp and log of the kernels against wider arithmetic: every float32, samples of float64."""

import numpy as np
import pytest

INF, NAN = np.inf, np.nan
LONG_IS_LONGER = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps / 100
NEEDS_LONG = pytest.mark.skipif(
    not LONG_IS_LONGER, reason="long double is no more precise than double here"
)

# Units in the last place. Of all floats, exp of nine is further than 1 from the truth where
# multiply-add is fused: 1.0086 at -27.379135.
LIMIT = 1.01


@pytest.fixture(params=["exp", "log"])
def name(request):
    return request.param


@pytest.fixture
def values(kernels, name, isa):
    """A function of an array: exp or log of it by the kernels, in a new array."""

    def call(x):
        out = np.full_like(x, -77)
        getattr(kernels, name + "_values")(out, x, isa=isa)
        return out

    return call


def error(out, exact):
    """The largest error in ulp of results against wider ones.

    An infinity is taken for the power of 2 after the largest number.
    """
    kind = np.finfo(out.dtype)
    with np.errstate(all="ignore"):
        odd = np.flatnonzero(out != exact.astype(out.dtype))  # elsewhere within half an ulp
        out, exact = out[odd].astype(exact.dtype), exact[odd]
    np.testing.assert_array_equal(np.isnan(out), np.isnan(exact))
    end = np.ldexp(exact.dtype.type(1), kind.maxexp)
    out, exact = (np.clip(a[~np.isnan(a)], -end, end) for a in (out, exact))
    unit = np.spacing(np.minimum(np.abs(exact), kind.max / 1.5).astype(kind.dtype))
    return float(np.max(np.abs(out - exact) / unit.astype(exact.dtype), initial=0.5))


def check_floats(values, name, bits):
    """The floats of these bits against float64, whose own error is 1e-9 ulp of float32."""
    x = bits.view(np.float32)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.float64))
    assert error(values(x), exact) <= LIMIT


def test_sample_of_all_floats(values, name):
    check_floats(values, name, np.arange(0, 1 << 32, 4093).astype(np.uint32))


@pytest.mark.slow
def test_all_floats(values, name):
    """Where there is something to compute: to 110 on either side for exp, from 0 on for log."""
    last = np.array([110.0 if name == "exp" else INF], dtype=np.float32).view(np.uint32)[0]
    for sign in (0, 1 << 31) if name == "exp" else (0,):
        for first in range(sign, sign + int(last) + 1, 1 << 18):
            check_floats(values, name, np.arange(first, first + (1 << 18)).astype(np.uint32))


@NEEDS_LONG
def test_sample_of_doubles(values, name, rng):
    any_bits = rng.integers(0, 1 << 64, 100_000, dtype=np.uint64).view(np.float64)
    near = {
        "exp": [rng.uniform(-746, 711, 100_000), rng.uniform(-1, 1, 100_000)],
        "log": [np.exp(rng.uniform(-745, 709, 100_000)), rng.uniform(0.5, 2, 100_000)],
    }
    x = np.concatenate([any_bits, *near[name]])
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.longdouble))
    assert error(values(x), exact) <= LIMIT


@NEEDS_LONG
def test_edges(values, name, real):
    """Where the result overflows, underflows or is subnormal; around the multiples of log(2)."""
    kind = np.finfo(real)
    edges = [kind.max, kind.tiny, kind.smallest_subnormal, kind.eps, 1.0, np.sqrt(0.5), np.sqrt(2)]
    if name == "exp":
        edges += [np.log(np.longdouble(kind.max)), np.log(kind.tiny)]
        edges += [np.log(np.longdouble(kind.smallest_subnormal)) - k for k in (0, 0.7, 1)]
        edges += list(np.arange(-40, 40) * np.log(2) / 2)
    x = np.array(edges, dtype=real)
    ways = [x]
    for direction in (-INF, INF):
        y = x
        for _ in range(3):
            with np.errstate(over="ignore"):
                y = np.nextafter(y, real(direction))
            ways.append(y)
    x = np.concatenate([sign * way for way in ways for sign in (1, -1)])
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.longdouble))
    assert error(values(x), exact) <= LIMIT


def test_special_values(kernels, isa, real):
    kind = np.finfo(real)
    for function, pairs in (
        (
            kernels.exp_values,
            [(-INF, 0.0), (INF, INF), (NAN, NAN), (0.0, 1.0), (-0.0, 1.0), (kind.max, INF),
             (-kind.max, 0.0), (kind.smallest_subnormal, 1.0), (kind.tiny, 1.0)],
        ),
        (
            kernels.log_values,
            [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (NAN, NAN), (-1.0, NAN),
             (1.0, 0.0), (-kind.smallest_subnormal, NAN)],
        ),
    ):  # fmt: skip
        x, expected = np.array(pairs, dtype=real).T.copy()
        out = np.empty_like(x)
        function(out, x, isa=isa)
        np.testing.assert_array_equal(out, expected)
        zeros = expected == 0
        np.testing.assert_array_equal(np.signbit(out[zeros]), np.signbit(expected[zeros]))


def test_a_value_does_not_depend_on_its_place(kernels, name, values, real, isa, guarded, rng):
    """Every length of a tail, in place and out of place, at any alignment."""
    x = np.exp(rng.normal(0, 3, 211)).astype(real)
    expected = values(x)
    function = getattr(kernels, name + "_values")
    for n in [*range(36), 211]:
        for start in (0, n % 7):
            some = x[start : start + n]
            out = guarded(len(some))
            function(out.array, some, isa=isa)
            np.testing.assert_array_equal(out.checked(), expected[start : start + n])
            out.array[...] = some
            function(out.array, out.array, isa=isa)
            np.testing.assert_array_equal(out.checked(), expected[start : start + n])

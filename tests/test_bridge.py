"""What the bridge makes of arguments: bad ones are refused by name, good ones left as they are."""

import array

import numpy as np
import pytest

from fastsoftmax.kernel_arguments import Descent

N, D, K = 12, 5, 3

# Arrays that are written to; the others are only read.
OUTPUTS = {
    "exp_values": ["out"],
    "log_values": ["out"],
    "softmax_rows": ["out"],
    "log_softmax_rows": ["out"],
    "logsumexp_rows": ["out"],
    "cross_entropy_rows": ["loss", "grad"],
    "affine_rows": ["logits"],
    "loss_grad": ["grad_weights", "grad_bias"],
    "sgd_steps": ["params", "velocity"],
}

# The features and X's rows of logits; rows of these may lie apart.
STRIDED = {"X", "logits", "grad", "out"}


def arguments(name, real):
    """Good arguments of a function, by name: see `call`."""
    rng = np.random.default_rng(3)

    def numbers(*shape):
        return rng.normal(size=shape).astype(real)

    if name in ("exp_values", "log_values"):
        return {"out": numbers(N), "x": np.abs(numbers(N))}
    if name in ("softmax_rows", "log_softmax_rows"):
        return {"out": numbers(N, K), "logits": numbers(N, K)}
    if name == "logsumexp_rows":
        return {"out": numbers(N), "logits": numbers(N, K)}
    if name == "affine_rows":
        return {
            "logits": numbers(N, K),
            "X": numbers(N, D),
            "weights": numbers(K, D),
            "bias": numbers(K),
        }
    targets = {
        "labels": rng.integers(K, size=N).astype(np.int32),
        "target_probs": None,
        "row_weights": np.ones(N, dtype=real),
        "label_smoothing": 0.1,
    }
    targets["n_classes"] = K
    if name == "cross_entropy_rows":
        return {"loss": numbers(N), "grad": numbers(N, K), "logits": numbers(N, K), **targets}
    if name == "loss_grad":
        return {
            "grad_weights": np.zeros((K, D)),
            "grad_bias": np.zeros(K),
            "X": numbers(N, D),
            **targets,
            "weights": numbers(K, D),
            "bias": numbers(K),
        }
    return {
        "params": numbers(K * (D + 1)),
        "velocity": numbers(K * (D + 1)),
        "X": numbers(N, D),
        **targets,
        "order": np.arange(N),
        "batch_size": 4,
        "learning_rate": 0.1,
        "momentum": 0.5,
        "l2": 0.01,
        "fit_bias": True,
    }


# Arguments of `call` that travel together.
TARGETS = ("labels", "target_probs", "row_weights", "label_smoothing", "n_classes")
DESCENT = ("batch_size", "learning_rate", "momentum", "l2", "fit_bias")


def call(kernels, name, **given):
    """Call a function, with targets and a descent made of the arguments that belong to them."""
    if "labels" in given:
        given["targets"] = kernels.Targets(*(given.pop(key) for key in TARGETS))
    if "momentum" in given:
        given["descent"] = Descent(*(given.pop(key) for key in DESCENT))
    return getattr(kernels, name)(**given)


def soft(given):
    """The same call with target_probs instead of labels."""
    real = given["row_weights"].dtype
    return {**given, "labels": None, "target_probs": np.full((N, K), 1 / K, dtype=real)}


@pytest.fixture(params=OUTPUTS)
def name(request):
    return request.param


@pytest.fixture
def refuses(kernels, name):
    """A function of arguments that asserts that they are refused, in a message that fits."""

    def check(given, error, match):
        with pytest.raises(error, match=match):
            call(kernels, name, **given)

    return check


@pytest.fixture
def variants(name, real):
    """Good arguments; for targets both labels and probabilities."""
    given = arguments(name, real)
    return [given, soft(given)] if "labels" in given else [given]


def arrays(given):
    return [(key, value) for key, value in given.items() if isinstance(value, np.ndarray)]


def test_good_arguments_are_good(kernels, name, variants, isa):
    for given in variants:
        inputs = {k: v.tobytes() for k, v in arrays(given) if k not in OUTPUTS[name]}
        call(kernels, name, **given, isa=isa)
        for key, before in inputs.items():
            assert given[key].tobytes() == before, key
        for key, value in arrays(given):
            assert np.isfinite(value).all(), key


def test_no_arrays(refuses, variants):
    for given in variants:
        for key, _ in arrays(given):
            optional = {"labels", "target_probs", "grad", "grad_weights", "grad_bias", "velocity"}
            for bad in (3, "text", [[1.0, 2.0]], object(), *([] if key in optional else [None])):
                refuses({**given, key: bad}, (TypeError, ValueError), rf"\b{key}\b")


def test_wrong_number_types(refuses, variants, real):
    for given in variants:
        for key, value in arrays(given):
            for dtype in ("O", "c8", "?", "i2", "u8", "U3", "M8[s]", "f4,f4", np.longdouble):
                if np.dtype(dtype) != np.dtype(np.float64):
                    bad = np.zeros(value.shape, dtype=dtype)
                    refuses({**given, key: bad}, (TypeError, ValueError), rf"\b{key}\b")
            swapped = value.astype(value.dtype.newbyteorder())
            refuses({**given, key: swapped}, TypeError, rf"\b{key}\b")
            if value.dtype == real and key not in ("X", "grad_weights", "grad_bias"):
                other = value.astype(np.float64 if real is np.float32 else np.float32)
                refuses({**given, key: other}, TypeError, "float")


def test_types_of_features(kernels, real):
    """Those that X may be stored as, and the float64 that float32 arithmetic does not read."""
    for name in ("affine_rows", "loss_grad", "sgd_steps"):
        given = arguments(name, real)
        for dtype in (np.uint8, np.int8, np.float16, np.float32, np.float64):
            X = given["X"].astype(np.int8).astype(dtype)
            if dtype is np.float64 and real is np.float32:
                with pytest.raises(TypeError, match="X"):
                    call(kernels, name, **{**given, "X": X})
            else:
                call(kernels, name, **{**given, "X": X})


def test_wrong_dimensions(refuses, variants):
    for given in variants:
        for key, value in arrays(given):
            for bad in (
                value[np.newaxis],
                value[..., np.newaxis],
                value[0],
                np.array(value.flat[0]),
            ):
                refuses({**given, key: bad}, ValueError, rf"\b{key}\b")


def test_wrong_shapes(refuses, variants, name):
    """One row or column more or less: the message names an array that must agree with another."""
    for given in variants:
        keys = "|".join([*given, "weights"])  # params are weights and bias
        for key, value in arrays(given):
            if key == "order":  # as long as one likes, like the rows of logsumexp_rows
                continue
            for axis in range(1 if name == "logsumexp_rows" else value.ndim):
                longer = np.concatenate([value, value.take([0], axis=axis)], axis=axis)
                shorter = value.take(range(value.shape[axis] - 1), axis=axis)
                none = value.take([], axis=axis)
                for bad in (longer, shorter, none):
                    refuses({**given, key: bad}, ValueError, rf"\b({keys})\b")


def test_wrong_layouts(refuses, variants):
    for given in variants:
        for key, value in arrays(given):
            wide = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), dtype=value.dtype)
            apart = wide[..., ::2]
            backwards = value[..., ::-1]
            bad = [apart, backwards]
            if value.ndim == 2:
                bad.append(np.asfortranarray(value))
                if key not in STRIDED:
                    bad += [value[::-1], np.vstack([value, value])[::2]]
            for view in bad if key != "X" else []:  # X may lie anyhow: see test_pack.py
                refuses({**given, key: view}, ValueError, rf"\b{key}\b")
            memory = np.zeros(value.nbytes + 16, dtype=np.uint8)
            for offset in (1, value.itemsize // 2):
                view = memory[offset : offset + value.nbytes].view(value.dtype).reshape(value.shape)
                if not view.flags.aligned:
                    refuses({**given, key: view}, ValueError, rf"{key} must be aligned")


def test_rows_between_elements(refuses, variants):
    """Rows that are not a whole number of elements apart."""
    for given in variants:
        for key, value in arrays(given):
            if value.ndim == 2:
                record = np.dtype([("row", value.dtype, value.shape[1]), ("odd", "u1")])
                refuses({**given, key: np.zeros(len(value), record)["row"]}, ValueError, key)


def test_read_only(kernels, name, refuses, variants):
    """Outputs must be writable; inputs need not be."""
    for given in variants:
        frozen = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in given.items()}
        for key, value in arrays(frozen):
            value.flags.writeable = key in OUTPUTS[name]
        call(kernels, name, **frozen)
        for key in OUTPUTS[name]:
            frozen[key].flags.writeable = False
            refuses(frozen, ValueError, rf"\b{key}\b")
            frozen[key].flags.writeable = True


def test_labels_out_of_range(kernels, refuses, name, real):
    given = arguments(name, real)
    if "labels" not in given:
        pytest.skip("no labels here")
    for label in (-1, K, 2**31 - 1, -(2**31)):
        for place in (0, N // 2, N - 1):
            labels = given["labels"].copy()
            labels[place] = label
            refuses({**given, "labels": labels}, ValueError, r"labels must lie in \[0, 3\)")
    refuses({**given, "labels": None}, ValueError, "exactly one of labels and target_probs")
    both = {**soft(given), "labels": given["labels"]}
    refuses(both, ValueError, "exactly one of labels and target_probs")


def test_order_out_of_range(kernels, real):
    given = arguments("sgd_steps", real)
    before = given["params"].copy()
    for row in (-1, N, 2**62, -(2**63)):
        for place in (0, 5, N - 1):
            order = given["order"].copy()
            order[place] = row
            with pytest.raises(ValueError, match=r"order must .* \[0, 12\)"):
                call(kernels, "sgd_steps", **{**given, "order": order})
    np.testing.assert_array_equal(given["params"], before)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("label_smoothing", [-0.1, 1.1, np.nan, np.inf]),
        ("n_classes", [0, -1, 2, 4, 2**24 + 1, 2**62]),
        ("batch_size", [0, -1, -(2**62)]),
        ("n_threads", [0, -1, -(2**70)]),
        ("isa", ["sse", "", "AVX2", "base\0"]),
    ],
)
def test_numbers_out_of_range(key, values, refuses, variants):
    for given in variants:
        if key not in given and not (key == "isa" or (key == "n_threads" and "x" not in given)):
            continue
        for value in values:
            match = "n_classes|labels|weights|target_probs" if key == "n_classes" else key
            refuses({**given, key: value}, ValueError, match)


def test_numbers_of_a_wrong_type(refuses, variants):
    whole = {"n_classes": K, "batch_size": 4, "n_threads": 1}
    for given in variants:
        optional = {} if "x" in given else {"n_threads": 1}
        for key, value in {**optional, **given}.items():
            if isinstance(value, bool | np.ndarray | None):
                continue
            wrong = ["1", None, [], 1j, object(), *([2.5] if key in whole else [])]
            for bad in wrong:
                refuses({**given, key: bad}, TypeError, key)
            if key in whole and key != "n_threads":
                refuses({**given, key: 2**70}, ValueError, key)
        for bad in (7, b"base", ["base"]):
            refuses({**given, "isa": bad}, TypeError, "isa")


def test_outputs_that_go_together(kernels, real):
    given = arguments("loss_grad", real)
    for missing in ("grad_weights", "grad_bias"):
        with pytest.raises(ValueError, match="grad_weights and grad_bias"):
            call(kernels, "loss_grad", **{**given, missing: None})
    given = arguments("sgd_steps", real)
    with pytest.raises(ValueError, match="velocity must be given"):
        call(kernels, "sgd_steps", **{**given, "velocity": None})
    call(kernels, "sgd_steps", **{**given, "velocity": None, "momentum": 0.0})


def test_one_logit_is_for_two_classes(kernels, real):
    given = arguments("loss_grad", real)
    one = {
        "weights": given["weights"][:1],
        "bias": given["bias"][:1],
        "grad_weights": given["grad_weights"][:1],
        "grad_bias": given["grad_bias"][:1],
        "labels": given["labels"] % 2,
    }
    call(kernels, "loss_grad", **{**given, **one, "n_classes": 2})
    for n_classes in (3, 4):
        with pytest.raises(ValueError, match="weights"):
            call(kernels, "loss_grad", **{**given, **one, "n_classes": n_classes})


def test_empty_arrays(kernels, real, isa):
    """No rows and no features: whatever numpy makes of the strides of nothing."""
    for name in OUTPUTS:
        given = arguments(name, real)
        rows = {k: v[:0] for k, v in arrays(given) if len(v) == N}
        sums = call(kernels, name, **{**given, **rows}, isa=isa)
        assert sums in (None, (0.0, 0.0))
    for name in ("affine_rows", "loss_grad"):
        given = arguments(name, real)
        columns = {k: v[:, :0] for k, v in arrays(given) if v.ndim == 2 and v.shape[1] == D}
        call(kernels, name, **{**given, **columns}, isa=isa)
    given = arguments("sgd_steps", real)
    flat = {k: v[:K] for k, v in given.items() if k in ("params", "velocity")}
    call(kernels, "sgd_steps", **{**given, **flat, "X": given["X"][:, :0]}, isa=isa)
    for name in ("softmax_rows", "log_softmax_rows", "logsumexp_rows", "cross_entropy_rows"):
        given = arguments(name, real)
        columns = {k: v[:, :0] for k, v in arrays(given) if v.ndim == 2}
        with pytest.raises(ValueError, match="logits must have at least one column"):
            call(kernels, name, **{**given, **columns})


def test_layouts_of_features(kernels, make_problem, storage, isa, tmp_path):
    """Rows apart, upside down, repeated, read-only and in a file: the bits of a plain copy."""
    problem = make_problem(40, 19, 4, storage=storage)
    mapped = np.memmap(tmp_path / "X", dtype=storage, mode="w+", shape=problem.X.shape)
    mapped[...] = problem.X
    mapped.flags.writeable = False
    for X in (
        problem.X,
        problem.X[::-1],
        problem.X[::-2].repeat(2, axis=0),
        np.broadcast_to(problem.X[7], problem.X.shape),
        np.hstack([problem.X, problem.X])[:, 5:24],
        mapped,
    ):
        results = []
        for same in (X, X.copy()):
            given = problem._replace(X=same)
            rows = given.rows(kernels)
            out = np.empty(problem.weights.shape), np.empty(problem.bias.shape)
            sums = kernels.loss_grad(*out, *given.whole(kernels), isa=isa)
            params, how = problem.params, Descent(7, 0.01, 0.0, 0.1, True)
            steps = kernels.sgd_steps(params, None, *rows, np.arange(39, -1, -1), how, isa=isa)
            results.append([*out, params, sums, steps])
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two)


def test_other_buffers(kernels):
    """Refused: another thread could resize them during the call, which crashed the process."""
    x, out = array.array("d", [0.0, 1.0]), np.array([5.0, 5.0])
    for other in (x, memoryview(x), bytearray(16), [0.0, 1.0], None):
        with pytest.raises(TypeError, match="x must be a numpy array"):
            kernels.exp_values(out, other)
    with pytest.raises(TypeError, match="out must be a numpy array"):
        kernels.exp_values(x, out)


class TestTargets:
    @pytest.fixture
    def given(self, make_problem):
        return make_problem(50, 6, 4, smoothing=0.1)

    @pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft"])
    def test_parts(self, kernels, make_problem, soft):
        problem = make_problem(50, 6, 4, soft=soft, smoothing=0.1)
        X, targets = problem.rows(kernels)
        for rows in (slice(0, 7), slice(7, 50), slice(-3, None), slice(9, 9), slice(60, 70)):
            part, expected = targets[rows], problem.at(rows)
            assert part.n_rows == len(expected.X)
            np.testing.assert_array_equal(part.row_weights, expected.row_weights)
            outs = [(np.empty(problem.weights.shape), np.empty(4)) for _ in range(2)]
            model = problem.weights, problem.bias
            sums = kernels.loss_grad(*outs[0], X[rows], part, *model)
            assert sums == kernels.loss_grad(*outs[1], *expected.whole(kernels))
            np.testing.assert_array_equal(outs[0][0], outs[1][0])
        assert targets[:] is targets

    def test_only_adjacent_rows(self, kernels, given):
        _, targets = given.rows(kernels)
        with pytest.raises(ValueError, match="adjacent rows"):
            targets[::2]
        for rows in (3, [1, 2], np.arange(3), None):
            with pytest.raises(TypeError, match="slice of adjacent rows"):
                targets[rows]

    def test_what_was_given_can_be_read(self, kernels, given):
        _, targets = given.rows(kernels)
        assert targets.labels is given.labels
        assert targets.row_weights is given.row_weights
        assert targets.target_probs is None
        assert (targets.n_classes, targets.n_rows, targets.label_smoothing) == (4, 50, 0.1)
        for name in ("labels", "n_classes", "n_rows"):
            with pytest.raises(AttributeError):
                setattr(targets, name, 3)

    def test_labels_that_change_later_do_not_count(self, kernels, given):
        """Kernels index by them: a label out of range would read, and write, anywhere."""
        X, targets = given.rows(kernels)
        part = targets[10:]
        out = [np.empty(given.weights.shape) for _ in range(2)]
        model = given.weights, given.bias
        before = kernels.loss_grad(out[0], np.empty(4), X, targets, *model)
        first = kernels.loss_grad(None, None, X[10:], part, *model)
        given.labels[:] = 2**31 - 1
        assert kernels.loss_grad(out[1], np.empty(4), X, targets, *model) == before
        assert kernels.loss_grad(None, None, X[10:], part, *model) == first
        np.testing.assert_array_equal(*out)

    def test_are_made_once(self, kernels, given):
        _, targets = given.rows(kernels)
        for made in (targets, targets[3:]):
            with pytest.raises(ValueError, match="made once"):
                made.__init__(given.labels, None, given.row_weights, 0.0, 4)

    def test_are_asked_for(self, kernels, given):
        X, targets = given.rows(kernels)
        model = given.weights, given.bias
        for other in (None, given.labels, object()):
            with pytest.raises(TypeError, match="targets must be Targets"):
                kernels.loss_grad(None, None, X, other, *model)
        with pytest.raises(TypeError, match="row_weights of targets must hold"):
            kernels.loss_grad(None, None, X, kernels.Targets.__new__(kernels.Targets), *model)
        with pytest.raises(ValueError, match="targets must have 50 rows as X, got 40"):
            kernels.loss_grad(None, None, X, targets[10:], *model)

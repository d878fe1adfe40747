"""interim: the coming API of the backend on today's."""

from typing import Any, NamedTuple


class Targets(NamedTuple):
    labels: Any
    target_probs: Any
    row_weights: Any
    label_smoothing: Any
    n_classes: Any

    def __getitem__(self, rows):
        cut = [
            None if a is None else a[rows]
            for a in (self.labels, self.target_probs, self.row_weights)
        ]
        return Targets(*cut, self.label_smoothing, self.n_classes)


class Interim:
    def __init__(self, module):
        self._m = module
        self.Targets = Targets

    def __getattr__(self, name):
        return getattr(self._m, name)

    def loss_grad(self, gw, gb, X, t, w, b, **k):
        return self._m.loss_grad(
            gw,
            gb,
            X,
            t.labels,
            t.target_probs,
            t.row_weights,
            t.label_smoothing,
            w,
            b,
            t.n_classes,
            **k,
        )

    def sgd_steps(self, p, v, X, t, order, d, **k):
        return self._m.sgd_steps(
            p,
            v,
            X,
            t.labels,
            t.target_probs,
            t.row_weights,
            t.label_smoothing,
            t.n_classes,
            order,
            d.batch_size,
            d.learning_rate,
            d.momentum,
            d.l2,
            d.fit_bias,
            squared_scale=d.squared_scale,
            center=d.center,
            **k,
        )

    def newton_steps(self, points, records, base, start, Z, t, s, **k):
        return self._m.newton_steps(
            points,
            records,
            base,
            start,
            Z,
            t.labels,
            t.target_probs,
            t.row_weights,
            t.label_smoothing,
            s.class_share,
            s.l2,
            s.fit_intercept,
            s.tol,
            s.target,
            **k,
        )

    def assemble_gradient(self, g, along, w, gb, t, **k):
        return self._m.assemble_gradient(
            g, along, w, gb, t.center, t.scale, t.base, t.share, t.l2, **k
        )

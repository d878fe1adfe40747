"""scikit-learn's own tests of LogisticRegression, with fastsoftmax in its place.

They are run as they are installed, by `drop_in_plugin`. `EXCEPTIONS` is the one list of those that
fail, and has to be exact; `docs/drop-in.md` shows it as `python tests/test_drop_in.py` prints it.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import sklearn

import fastsoftmax

TESTS = "sklearn.linear_model.tests.test_logistic"
VERSION = ".".join(sklearn.__version__.split(".")[:2])
VERSIONS = ("1.6", "1.9")  # whose tests the list is about


class Failing(NamedTuple):
    """Tests that fail for one reason: functions, with a pattern for their parameters ("": all)."""

    reason: str
    tests: dict[str, str]
    versions: tuple[str, ...] = VERSIONS


EXCEPTIONS = (
    Failing(
        "One against the rest (`multi_class='ovr'`), which scikit-learn 1.8 has removed: use "
        "`OneVsRestClassifier(FastSoftmax())`",
        {
            "test_predict_iris": "clf0|clf3|clf4",
            "test_ovr_multinomial_iris": "",
            "test_LogisticRegressionCV_GridSearchCV_elastic_net_ovr": "",
            "test_LogisticRegressionCV_elasticnet_attribute_shapes": "",
            "test_LogisticRegressionCV_no_refit": "ovr-l2|ovr-elasticnet",
            "test_logistic_regression_multi_class_auto": "",
            "test_n_iter": "",
            "test_sample_weight_not_modified": "-ovr$",
        },
        versions=("1.6",),
    ),
    Failing(
        "Two classes as two rows of coefficients (`multi_class='multinomial'`), removed likewise: "
        "they have one row here, as in scikit-learn without that",
        {"test_multinomial_binary_probabilities": ""},
        versions=("1.6",),
    ),
    Failing(
        "The warnings of scikit-learn's own deprecations and changes of defaults (`multi_class`, "
        "`penalty`, `n_jobs`, `l1_ratio=None`, `use_legacy_attributes`, `scoring`), and about "
        "`penalty` and `l1_ratio` that contradict each other",
        {
            "test_multi_class_deprecated": "",
            "test_penalty_deprecated": "",
            "test_lr_penalty_l1ratio_incompatible": "",
            "test_logisticregressioncv_warns_with_use_legacy_attributes": "",
            "test_l1_ratio_None_deprecated": "",
            "test_l1_ratio_non_elasticnet": "",
            "test_logisticregression_warns_with_n_jobs": "",
            "test_lr_scoring_warns": "",
            "test_elasticnet_l1_ratio_err_helpful": "",
        },
    ),
    Failing(
        "Errors and warnings about what a solver of scikit-learn cannot do (several classes, large "
        "values, 64-bit indices, a `penalty`, `n_jobs`); here every solver can, or has no such "
        "parameter",
        {
            "test_check_solver_option": "",
            "test_lr_liblinear_warning": "",
            "test_liblinear_multiclass_raises": "",
            "test_liblinear_with_large_values": "",
            "test_large_sparse_matrix": "liblinear|sag",
        },
    ),
    Failing(
        "The wording of warnings that name a solver of scikit-learn; ours tell the gap that was "
        "reached and what to change",
        {"test_max_iter": ""},
    ),
    Failing(
        "`dual=True`, for liblinear alone",
        {
            "test_liblinear_dual_random_state": "",
            "test_sample_and_class_weight_equivalence_liblinear": "",
            "test_logisticregression_liblinear_sample_weight": "params1",
        },
    ),
    Failing(
        "liblinear turns float32 into float64; here float32 stays, as with scikit-learn's other "
        "solvers",
        {"test_dtype_match": "liblinear"},
    ),
    Failing(
        "Counts iterations of scikit-learn's solvers against each other",
        {"test_newton_cholesky_fallback_to_lbfgs": ""},
    ),
    Failing(
        "`max_iter=0` leaves the start, where the intercepts are the log-frequencies of the "
        "classes here, and 0 in scikit-learn",
        {"test_zero_max_iter": "liblinear|newton|sag"},
    ),
    Failing(
        "Private methods (`_predict_proba_lr`, `_get_scorer`)",
        {"test_logreg_predict_proba_multinomial": "", "test_get_default_scorer": ""},
    ),
    Failing(
        "Compares to six decimals with a fit by scikit-learn that stops before six decimals are "
        "right",
        {"test_logistic_cv_multinomial_score": "neg_log_loss"},
    ),
    Failing(
        "A scorer whose answers depend on the order of the calls: FastSoftmaxCV scores all folds "
        "at a C before the next C",
        {"test_logistic_cv_mock_scorer": ""},
    ),
    Failing(
        "A fold whose training rows have one class is refused, with the number of the fold",
        {"test_logistic_cv_folds_with_classes_missing": "^2-"},
    ),
    Failing(
        "FastSoftmaxCV does not route metadata: `fit` and `score` have named parameters, and "
        "`sample_weight` counts in fits and scores alike",
        {
            "test_lr_cv_scores_differ_when_sample_weight_is_requested": "",
            "test_passing_params_without_enabling_metadata_routing": "",
        },
    ),
    Failing(
        "Several `l1_ratios`: FastSoftmaxCV takes one `l1_ratio` for all `Cs`; `GridSearchCV` has "
        "both",
        {
            "test_LogisticRegressionCV_GridSearchCV_elastic_net": "",
            "test_LogisticRegressionCV_no_refit": "l1_ratios1|l-elastic|auto-elastic",
            "test_LogisticRegressionCV_elasticnet_attribute_shapes": "^[23]$",
            "test_scores_attribute_layout_elasticnet": "",
        },
    ),
    Failing(
        "`set_callbacks`: the number of tasks (scikit-learn has an empty one at the end), the "
        "arguments at the beginning of a task (here the fitted estimator is passed at its end), "
        "and a warning for solvers without callbacks (here all solvers have them)",
        {
            "test_logistic_regression_callback_support": "",
            "test_logistic_regression_callback_fitted_estimator": "",
            "test_logistic_regression_callback_support_warning": "",
        },
        versions=("1.9",),
    ),
)

# These fit nothing of ours, so that neither outcome says anything.
OTHER_FUNCTIONS = {
    "test_logistic_regression_path_coefs_multinomial",
    "test_logistic_regression_path_convergence_fail",
    "test_logistic_regression_path_init_coefs",
}


def table():
    """The exceptions in Markdown."""
    lines = ["| fails | because it tests | scikit-learn |", "|---|---|---|"]
    for group in EXCEPTIONS:
        tests = ", ".join(
            f"`{name}`" + (f" (`{params}`)" if params else "")
            for name, params in group.tests.items()
        ).replace("|", "\\|")
        lines.append(f"| {tests} | {group.reason} | {', '.join(group.versions)} |")
    return "\n".join(lines) + "\n"


def function_of(test):
    return test.partition("[")[0]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What became of each test, by its name."""
    if VERSION not in VERSIONS:
        pytest.skip("the list is about other versions' tests")
    if importlib.util.find_spec(TESTS) is None:
        pytest.skip("this scikit-learn is installed without its tests")
    folder = tmp_path_factory.mktemp("drop_in")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    paths = [Path(fastsoftmax.__file__).parents[1], Path(__file__).parent]
    given = os.environ.get("PYTHONPATH")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "SKLEARN_")) and name != "SCIPY_ARRAY_API"
    } | {
        "PYTHONPATH": os.pathsep.join([*map(str, paths), *([given] if given else [])]),
        "DROP_IN_RESULTS": str(folder / "results.json"),
        "COLUMNS": "200",
    }
    options = ["-p", "drop_in_plugin", "-p", "no:cacheprovider", "-q", "--tb=no", "-W", "ignore"]
    process = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options, "--pyargs", TESTS],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert process.returncode in (0, 1), process.stdout + process.stderr
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def failed(results):
    """The names of those that fail."""
    return {
        name
        for name, result in results.items()
        if result["outcome"] == "failed" and function_of(name) not in OTHER_FUNCTIONS
    }


@pytest.fixture(scope="module")
def expected(results):
    """The names that each line of the list is about."""
    return {
        (group.reason, function): {
            name
            for name, result in results.items()
            if function_of(name) == function
            and result["outcome"] != "skipped"
            and re.search(params, name.partition("[")[2].removesuffix("]"))
        }
        for group in EXCEPTIONS
        if VERSION in group.versions
        for function, params in group.tests.items()
    }


@pytest.mark.slow
class TestScikitLearnsTests:
    def test_what_fails_is_listed(self, results, failed, expected):
        listed = set().union(*expected.values())
        assert {name: results[name]["message"] for name in failed - listed} == {}

    def test_what_is_listed_fails(self, failed, expected):
        listed = set().union(*expected.values())
        assert listed - failed == set()

    def test_no_test_is_listed_twice(self, expected):
        names = [name for tests in expected.values() for name in tests]
        assert len(names) == len(set(names))

    def test_every_line_is_needed(self, results, expected):
        functions = {function_of(name) for name in results}
        covered = {function for (_, function), tests in expected.items() if tests}
        idle = {function for (_, function), tests in expected.items() if not tests}
        assert (idle & functions) - covered == set()

    def test_most_pass_and_fit_ours(self, results):
        passed = {name: r for name, r in results.items() if r["outcome"] == "passed"}
        assert len(passed) > 100
        idle = {function_of(name) for name, result in passed.items() if not result["fits"]}
        assert idle <= OTHER_FUNCTIONS


def test_the_documentation_has_the_list():
    page = Path(__file__).parents[1] / "docs" / "drop-in.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    assert page.read_text(encoding="utf-8").endswith("\n\n" + table())


if __name__ == "__main__":
    print(table(), end="")

"""kernels.pyi against the module that it describes, and against the numpy twin."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import fastsoftmax

EMPTY = inspect.Parameter.empty
STUB = Path(fastsoftmax.__file__).with_name("kernels.pyi")
FUNCTIONS = {
    node.name: node
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}


@pytest.fixture(params=["kernels", "reference"])
def module(request):
    if request.param == "kernels":
        return request.getfixturevalue("kernels")
    return importlib.import_module("fastsoftmax.reference")


def signature_of(function):
    """The parameters of a function in the stub, without their annotations."""
    given = function.args
    positional = [
        *((argument, inspect.Parameter.POSITIONAL_ONLY) for argument in given.posonlyargs),
        *((argument, inspect.Parameter.POSITIONAL_OR_KEYWORD) for argument in given.args),
    ]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    parameters = [(*pair, default) for pair, default in zip(positional, defaults, strict=True)]
    parameters += [
        (argument, inspect.Parameter.KEYWORD_ONLY, default)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [
        (argument.arg, kind, EMPTY if default is None else ast.literal_eval(default))
        for argument, kind, default in parameters
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(module, name):
    actual = inspect.signature(getattr(module, name)).parameters.values()
    assert signature_of(FUNCTIONS[name]) == [(p.name, p.kind, p.default) for p in actual]


def test_functions_are_complete(module):
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isroutine(value)
        and value.__module__
        in (
            module.__name__,
            "fastsoftmax.reference._blocks",
            "fastsoftmax.reference._hessian",
            "fastsoftmax.reference._newton",
            "fastsoftmax.reference._vectors",
        )
    }
    assert public == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_everything_is_annotated(name):
    given = FUNCTIONS[name].args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    assert all(argument.annotation is not None for argument in arguments)
    assert FUNCTIONS[name].returns is not None

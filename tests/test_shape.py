"""The form of the code: short functions with few parameters."""

import ast

import pytest
from test_imports import modules

LONGEST, MOST_PARAMETERS = 80, 10
# Public signatures of earlier versions, whose keywords users have in their programs.
EXCEPTIONS = {"evaluation.protocol.evaluate_features"}


def functions(name):
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{node.name}", node


@pytest.mark.parametrize("name", modules())
def test_functions_are_short_and_take_few_parameters(name):
    for function, node in functions(name):
        lines = node.end_lineno - node.lineno + 1
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        parameters = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        if function not in EXCEPTIONS:
            assert lines <= LONGEST, f"{function}: {lines} lines"
            assert len(parameters) <= MOST_PARAMETERS, f"{function}: {len(parameters)} parameters"

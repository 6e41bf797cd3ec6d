"""The exercises: each check refuses the usual mistakes, accepts the solution and knows an empty answer."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seglib import lesson
from tests.helpers.notebooks import REWRITTEN, tagged

# The usual mistakes, as functions that a learner might write, by notebook and number of the exercise.
MISTAKES: dict[str, dict[int, list[Callable[..., Any]]]] = {}

EXERCISES = [(path, number) for path in REWRITTEN for number in range(1, len(tagged(path, "exercise")) + 1)]
EXERCISE = pytest.mark.parametrize(("path", "number"), EXERCISES, ids=lambda value: getattr(value, "stem", str(value)))


class Exercise:
    """The three cells of an exercise. A check may use numpy, torch, `lesson` and the learner's function, no more."""

    def __init__(self, path: Path, number: int) -> None:
        self.stub, self.check, self.solution = (
            tagged(path, tag)[number - 1].source for tag in ("exercise", "check", "solution")
        )
        self.names: dict[str, Any] = {"np": np, "torch": torch, "lesson": lesson}
        functions = [node.name for node in ast.parse(self.stub).body if isinstance(node, ast.FunctionDef)]
        self.function = functions[-1]
        exec(self.stub, self.names)

    def answer(self, function: Callable[..., Any]) -> None:
        """Put the answer of a learner in place of the stub."""
        self.names[self.function] = function

    def run_check(self) -> None:
        """Execute the cell that checks the answer."""
        exec(self.check, self.names)


@EXERCISE
def test_a_check_knows_an_empty_answer(path, number, capsys):
    Exercise(path, number).run_check()
    printed = capsys.readouterr().out
    assert "Not answered yet" in printed
    assert "Right!" not in printed


@EXERCISE
def test_a_check_accepts_the_solution(path, number, capsys):
    exercise = Exercise(path, number)
    exercise.run_check()
    capsys.readouterr()
    exec(exercise.solution, exercise.names)  # raises if the solution is wrong
    assert "Right!" in capsys.readouterr().out
    exercise.run_check()
    printed = capsys.readouterr().out
    assert "Right!" in printed
    assert "Not yet" not in printed


@EXERCISE
def test_a_check_refuses_the_usual_mistakes(path, number, capsys):
    mistakes = MISTAKES.get(path.stem, {}).get(number, [])
    assert len(mistakes) >= 2, "write down at least two usual mistakes above"
    for mistake in mistakes:
        exercise = Exercise(path, number)
        exercise.answer(mistake)
        exercise.run_check()
        printed = capsys.readouterr().out
        assert "Not yet" in printed, f"{mistake.__name__} is accepted:\n{printed}"
        assert "Right!" not in printed


@EXERCISE
def test_a_check_does_not_hold_the_solution(path, number):
    exercise = Exercise(path, number)
    solutions = [node for node in ast.parse(exercise.solution).body if isinstance(node, ast.FunctionDef)]
    statements = [ast.unparse(node) for function in solutions for node in function.body if not _is_docstring(node)]
    check = ast.unparse(ast.parse(exercise.check))
    assert statements
    assert not [statement for statement in statements if statement in check]
    assert exercise.function not in {node.name for node in ast.walk(ast.parse(exercise.check)) if _is_function(node)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef)

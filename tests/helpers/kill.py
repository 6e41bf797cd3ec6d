"""A process that is killed at a named point, without a clock."""

from collections.abc import Callable

import pytest

from tests.helpers.children import KILLED, die, exit_codes


def run_killed(name: str, call: Callable[[], object]) -> None:
    """Run `call` in a forked process that is killed where it calls the function `name`."""

    def call_and_die() -> None:
        pytest.MonkeyPatch().setattr(name, lambda *_, **__: die())
        call()

    assert exit_codes(call_and_die) == [KILLED]

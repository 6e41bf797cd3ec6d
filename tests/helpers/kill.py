"""A process that is killed at a named point, without a clock."""

import os
from collections.abc import Callable

import pytest


def run_killed(name: str, call: Callable[[], object]) -> None:
    """Run `call` in a forked process that ends, as if killed, where it calls the function `name`."""
    process = os.fork()
    if process == 0:
        pytest.MonkeyPatch().setattr(name, lambda *_, **__: os._exit(9))
        try:
            call()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9

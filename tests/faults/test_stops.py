"""Ctrl-C and the notebook's stop button: what was learnt is saved, and the same call goes on."""

import os
import random
import signal

import pytest
import torch

from seglib import runs
from seglib.losses import BCELoss
from seglib.train import TrainConfig, fit
from tests.helpers.discs import Discs, check_same_end
from tests.helpers.victims import Net, fault, finish, log_of, start, train, wait_for

SETTINGS = {"epochs": 6, "checkpoint_minutes": None, "scheduler": "cosine"}  # saved by nothing but epochs and stops


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder, SETTINGS)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_at_random_moments_it_ends_the_same(tmp_path, whole, workers):
    moments, stopped = random.Random(workers), 0
    folder = tmp_path / "run"
    for _ in range(4):
        child = start(folder, SETTINGS | {"workers": workers})
        # Every second time while it trains; else perhaps before, but no sooner than it listens to Ctrl-C.
        wait_for(folder / runs.LAST if stopped % 2 else log_of(folder), child.is_alive)
        child.join(moments.uniform(0.05, 0.2))
        if child.exitcode is not None:
            break
        os.kill(child.pid, signal.SIGINT)
        child.join(30)
        assert "KeyboardInterrupt" in log_of(folder).read_text() or child.exitcode == 0
        stopped += child.exitcode != 0
    assert stopped > 1
    with fault("Ctrl-C at a random moment", stopped):
        finish(folder, SETTINGS | {"workers": workers})
        check_same_end(folder, whole)


class StopAt:
    """A loss at whose `call`-th call in training somebody presses Ctrl-C."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __repr__(self) -> str:
        return repr(BCELoss())  # which it is

    def __call__(self, logits, mask):
        self.calls += torch.is_grad_enabled()
        if self.calls == self.call:
            signal.raise_signal(signal.SIGINT)
        return BCELoss()(logits, mask)


@pytest.fixture
def _interruptible():
    """Tests in the background, as of a shell's job, ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fit_discs(run_dir, loss, val=None):
    config = TrainConfig(epochs=2, batch_size=2, lr=0.01, trackers=(), previews=0)
    return fit(Net(), Discs(8), val or Discs(3), loss, config, run_dir)


@pytest.mark.usefixtures("_interruptible")
def test_a_stop_waits_for_the_step_and_saves_it(tmp_path):
    with fault("Ctrl-C inside a step"):
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match=r"after epoch 1 and 2 steps, which is saved in .*same call"):
            fit_discs(tmp_path / "run", StopAt(6))
        assert signal.getsignal(signal.SIGINT) is handler
        state = runs.read_checkpoint(tmp_path / "run" / runs.LAST)
        assert len(state["history"]) == 1 and state["epoch"]["steps"] == 2 and len(state["epoch"]["done"][0]) == 2
        loss = StopAt(99)
        assert fit_discs(tmp_path / "run", loss).finished
        assert loss.calls == 2  # the other two of the second epoch's four steps
        uninterrupted = fit_discs(tmp_path / "whole", BCELoss())
        check_same_end(tmp_path / "run", uninterrupted.dir)


@pytest.mark.usefixtures("_interruptible")
def test_who_presses_twice_does_not_lose_what_is_being_saved(tmp_path, monkeypatch):
    original = runs.save_torch

    def pressing(path, content):
        if content.get("epoch", {}) and content["epoch"]["steps"]:
            signal.raise_signal(signal.SIGINT)
        original(path, content)

    with fault("Ctrl-C while a stop is saved"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="epoch 0 and 2 steps"):
            patch.setattr(runs, "save_torch", pressing)
            fit_discs(tmp_path / "run", StopAt(2))
        assert runs.read_checkpoint(tmp_path / "run" / runs.LAST)["epoch"]["steps"] == 2
        fit_discs(tmp_path / "run", BCELoss())
        check_same_end(tmp_path / "run", fit_discs(tmp_path / "whole", BCELoss()).dir)


@pytest.mark.usefixtures("_interruptible")
def test_a_stop_while_validating_loses_no_step(tmp_path):
    class Stopping(Discs):
        def __getitem__(self, index):
            signal.raise_signal(signal.SIGINT)
            return super().__getitem__(index)

    with fault("Ctrl-C while validating"):
        with pytest.raises(KeyboardInterrupt, match="epoch 0 and 4 steps"):
            fit_discs(tmp_path, BCELoss(), Stopping(3))
        loss = StopAt(99)
        run = fit_discs(tmp_path, loss)
        assert loss.calls == 4 and len(run.history) == 2  # only the second epoch is trained


@pytest.mark.usefixtures("_interruptible")
def test_a_stop_before_the_first_step_saves_nothing_and_leaves_the_folder_usable(tmp_path):
    class Stopping(Discs):
        def __getitem__(self, index):
            if self.armed:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(index)

    data = Stopping(8)
    config = TrainConfig(epochs=1, batch_size=2, lr=0.01, trackers=(), previews=0)
    with fault("Ctrl-C before the first step"):
        data.armed = False
        hooked = Net()
        hooked.register_forward_hook(lambda *_: setattr(data, "armed", True))  # the look at the model before training
        with pytest.raises(KeyboardInterrupt, match="before the first step was done"):
            fit(hooked, data, Discs(3), BCELoss(), config, tmp_path)
        assert not (tmp_path / runs.LAST).exists()
        data.armed = False
        assert fit(Net(), data, Discs(3), BCELoss(), config, tmp_path).finished


def test_an_interrupt_that_is_raised_inside_a_step_saves_no_half_of_it(tmp_path):
    """By a loss, say, without any signal: batch norm has seen the step's images, the weights have not."""

    class Raising(StopAt):
        def __call__(self, logits, mask):
            self.calls += torch.is_grad_enabled()
            if self.calls == self.call:
                raise KeyboardInterrupt("from the loss")
            return BCELoss()(logits, mask)

    with fault("KeyboardInterrupt inside a step"):
        with pytest.raises(KeyboardInterrupt, match="from the loss"):
            fit_discs(tmp_path / "run", Raising(6))
        assert runs.read_checkpoint(tmp_path / "run" / runs.LAST)["epoch"]["steps"] == 0
        fit_discs(tmp_path / "run", BCELoss())
        check_same_end(tmp_path / "run", fit_discs(tmp_path / "whole", BCELoss()).dir)


def test_settings_that_change_nothing_may_change_between_two_calls(tmp_path):
    train(tmp_path / "one", epochs=1)
    run = train(tmp_path / "one", epochs=1, workers=2, checkpoint_minutes=5, trackers=("tensorboard",))
    assert run.finished

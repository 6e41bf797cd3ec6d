"""The run folder: gone on with under the same settings or with more epochs, by one process at a time, never spoilt."""

import sys

import pytest
import torch
from filelock import FileLock

from seglib import runs
from seglib.losses import BCELoss
from seglib.train import duration
from tests.helpers.discs import Discs, check_same_end, net, train

# ------------------------------------------------------------------------------------------------ more epochs


@pytest.mark.usefixtures("drawn_curves")
@pytest.mark.parametrize("chosen", [{}, {"scheduler": "plateau", "plateau_patience": 0}, {"warmup_steps": 8}])
def test_a_run_asked_for_more_epochs_goes_on_as_if_it_had_been_from_the_start(tmp_path, capsys, chosen):
    train(tmp_path / "grown", epochs=2, **chosen)
    grown = train(tmp_path / "grown", net(seed=9), epochs=4, **chosen)
    assert "Going on after epoch 2 of 4" in capsys.readouterr().out
    whole = train(tmp_path / "whole", epochs=4, **chosen)
    check_same_end(grown.dir, whole.dir)
    assert runs.read_config(grown.dir)["settings"]["config"]["epochs"] == 4
    assert (grown.dir / "loss.png").read_bytes() == (whole.dir / "loss.png").read_bytes()


def test_under_a_cosine_more_epochs_are_refused_with_the_reason(tmp_path):
    train(tmp_path, epochs=2, scheduler="cosine")
    with pytest.raises(ValueError, match=r"config\.epochs: 2 then, 3 now\nA cosine schedule brings .* another rate"):
        train(tmp_path, epochs=3, scheduler="cosine")


@pytest.mark.parametrize("chosen", [{"epochs": 1}, {"epochs": 3, "lr": 0.5}, {"epochs": 3, "scheduler": "cosine"}])
def test_fewer_epochs_or_more_with_another_setting_are_refused(tmp_path, chosen):
    train(tmp_path, epochs=2)
    with pytest.raises(ValueError, match=r"config\.epochs: 2 then") as error:
        train(tmp_path, **chosen)
    assert "cosine schedule" not in str(error.value)


def test_a_run_that_stopped_early_stays_so_when_asked_for_more(tmp_path):
    chosen = {"lr": 0.3, "patience": 1}
    stopped = len(train(tmp_path, epochs=30, **chosen).history)
    assert stopped < 30
    run = train(tmp_path, epochs=40, **chosen)
    assert run.finished and len(run.history) == stopped


@pytest.mark.usefixtures("drawn_curves")
def test_killed_at_the_very_end_of_more_epochs_the_curves_are_drawn_anew(tmp_path, monkeypatch):
    train(tmp_path / "grown", epochs=1)

    def dies(*_):
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("seglib.train.write_summary", dies)
        train(tmp_path / "grown", epochs=2)
    train(tmp_path / "grown", epochs=2)
    train(tmp_path / "whole", epochs=2)
    curves = [(tmp_path / name / "loss.png").read_bytes() for name in ("grown", "whole")]
    assert curves[0] == curves[1]


# ------------------------------------------------------------------------------------------------ one at a time


def test_two_trainings_in_one_folder_are_one_too_many(tmp_path, monkeypatch):
    train(tmp_path, epochs=1)
    monkeypatch.setattr(runs, "LOCK_WAIT", 0.1)
    with FileLock(tmp_path / runs.LOCK), pytest.raises(RuntimeError, match="another process trains in .*another tab"):
        train(tmp_path, epochs=2)
    assert train(tmp_path, epochs=2).finished


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(FileLock, "acquire", refuses)
    assert train(tmp_path, epochs=1).finished


# ------------------------------------------------------------------------------------------------ nothing spoilt


class SpoiltAt:
    """A loss that is NaN, or that leaves NaN in the weights, at its `call`-th call in training."""

    def __init__(self, call: int, quietly: bool = False) -> None:
        self.call, self.quietly, self.calls = call, quietly, 0

    def __repr__(self) -> str:
        return repr(BCELoss())

    def __call__(self, logits, mask):
        self.calls += torch.is_grad_enabled()
        value = BCELoss()(logits, mask)
        if self.calls == self.call and torch.is_grad_enabled():
            if not self.quietly:
                return value * float("nan")
            value.register_hook(lambda gradient: gradient * float("nan"))
        return value


@pytest.mark.parametrize("quietly", [False, True])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_the_checkpoint_from_before_a_bad_number_is_kept(tmp_path, quietly, call):
    """Ten images in batches of four are three steps an epoch; each is saved."""
    message = "a weight became NaN" if quietly else rf"became nan in epoch {(call + 2) // 3}, step {(call - 1) % 3 + 1}"
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path / "run", loss=SpoiltAt(call, quietly), checkpoint_minutes=0)
    if call == 1:
        assert not (tmp_path / "run" / runs.LAST).exists()
    else:
        state = runs.read_checkpoint(tmp_path / "run" / runs.LAST)
        assert all(value.isfinite().all() for value in state["model"].values())
        assert (len(state["history"]), state["epoch"]["steps"]) == divmod(call - 1, 3)
    run = train(tmp_path / "run", loss=BCELoss(), checkpoint_minutes=0)  # what was wrong is mended
    whole = train(tmp_path / "whole", loss=BCELoss())
    check_same_end(run.dir, whole.dir)


def test_a_checkpoint_within_an_epoch_is_saved_when_it_is_due_and_not_before(tmp_path, monkeypatch):
    saved = []
    original = runs.save_torch
    monkeypatch.setattr(runs, "save_torch", lambda path, content: (saved.append(path.name), original(path, content)))
    clock = iter(range(0, 10_000, 60))  # every look at the clock finds it a minute later
    monkeypatch.setattr("seglib.state.time.monotonic", lambda: next(clock))
    train(tmp_path, data=Discs(20), epochs=1, batch_size=2, checkpoint_minutes=4)
    assert saved.count("checkpoint.pth") == 10 // 4 + 1
    saved.clear()
    train(tmp_path / "never", data=Discs(20), epochs=1, batch_size=2, checkpoint_minutes=None)
    assert saved.count("checkpoint.pth") == 1


def test_settings_that_led_nowhere_do_not_bind_the_folder(tmp_path):
    """Who follows the advice of an error in the first step changes them."""
    with pytest.raises(FloatingPointError, match=r"at learning rate 0\.01"):
        train(tmp_path, loss=SpoiltAt(1))
    run = train(tmp_path, lr=1e-3, batch_size=2, accumulate=2)
    assert run.finished and runs.read_config(tmp_path)["settings"]["config"]["accumulate"] == 2


def test_the_rate_that_is_told_is_that_of_the_bad_step(tmp_path):
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2, .*at learning rate 0\.002:"):
        train(tmp_path, loss=SpoiltAt(2), warmup_steps=10)


def test_previews_that_cannot_be_written_cost_no_epoch(tmp_path):
    (tmp_path / "predictions").mkdir(parents=True)
    (tmp_path / "predictions" / "epoch_001").write_text("in the way")
    with pytest.raises(OSError, match="epoch_001"):
        train(tmp_path)
    assert len(runs.read_checkpoint(tmp_path / runs.LAST)["history"]) == 1
    assert train(tmp_path).finished


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    train(tmp_path, epochs=1)
    left = [tmp_path / ".config.123.part.json", tmp_path / "last" / ".checkpoint.123.part.pth"]
    left.append(tmp_path / "predictions" / "epoch_001" / ".disc0.123.part.png")
    others = [tmp_path / ".data.zip.part", tmp_path / "deeper" / "last" / ".checkpoint.123.part.pth"]
    for path in left + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    train(tmp_path, epochs=2)
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


@pytest.mark.parametrize("in_a_notebook", [False, True])
def test_the_time_left_is_told_as_a_person_would_say_it(tmp_path, capsys, monkeypatch, in_a_notebook):
    if in_a_notebook:  # where there is a bar beside the lines
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    said = [duration(seconds) for seconds in (0.4, 99, 101, 3_600, 7_260, 100_000)]
    assert said == ["0 s", "99 s", "2 min", "60 min", "2 h 1 min", "27 h 47 min"]
    train(tmp_path, epochs=2)
    first, last = [line for line in capsys.readouterr().out.splitlines() if "train loss" in line]
    assert " s left" in first and "left" not in last

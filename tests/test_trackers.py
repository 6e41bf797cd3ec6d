"""Trackers: told every epoch once, also after an interruption; losing one loses nothing else."""

import json
import sys
import types
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seglib import trackers
from tests.helpers.discs import train


def test_weights_and_biases_is_used_only_when_asked_for_and_told_how_to_go_on(tmp_path, monkeypatch, server):
    class FakeWandb(types.ModuleType):
        calls: ClassVar[list] = []

        def init(self, **settings):
            self.calls.append(settings)
            return self

        def log(self, numbers, step):
            self.calls.append((step, numbers["val_iou"]))

        def finish(self):
            self.calls.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("wandb"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    run = train(tmp_path / "quiet", epochs=1)
    assert FakeWandb.calls == []
    run = train(tmp_path / "leaves", epochs=1, trackers=("wandb",))
    opened, logged, closed = FakeWandb.calls
    about = json.loads((run.dir / "config.json").read_text())["about"]
    assert (opened["id"], opened["name"], opened["resume"]) == (about["id"], "leaves", "allow")
    assert opened["mode"] == "offline"
    assert (logged, closed) == ((1, run.best["val_iou"]), "finished")
    FakeWandb.calls.clear()
    monkeypatch.setenv("WANDB_BASE_URL", server.url("/"))  # where somebody does
    train(tmp_path / "leaves", epochs=2, trackers=("wandb",))
    opened, *_ = FakeWandb.calls
    assert (opened["id"], opened["mode"]) == (about["id"], "online")  # gone on with, it is the same run there
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        train(tmp_path / "missing", epochs=1, trackers=("wandb",))


def logged(run_dir) -> list[tuple[int, float]]:
    """The epochs and validation losses that TensorBoard shows."""
    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("val_loss")]


def test_tensorboard_has_each_epoch_once_also_when_killed_before_it_was_told(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    original, calls = trackers.Trackers.log, []

    def dying(self, row):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        original(self, row)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trackers.Trackers, "log", dying)
        train(tmp_path, trackers=("tensorboard",))
    assert [epoch for epoch, _ in logged(tmp_path)] == [1]
    run = train(tmp_path, trackers=("tensorboard",))
    assert logged(tmp_path) == list(enumerate(run.column("val_loss"), 1))


@pytest.mark.parametrize("when", ["opened", "told", "closed"])
def test_a_tracker_that_fails_is_lost_once_and_stops_nothing(tmp_path, monkeypatch, capsys, when):
    def fails(*_):
        raise OSError(28, "No space left on device")

    class Board:
        add_scalar = fails if when == "told" else lambda *_: None
        close = fails if when == "closed" else lambda *_: None
        flush = lambda *_: None  # noqa: E731

        def __init__(self, *_, **__):
            if when == "opened":
                fails()

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Board)
    run = train(tmp_path, trackers=("tensorboard",))
    assert len(run.history) == 3 and run.finished
    assert capsys.readouterr().out.count("tensorboard is lost (OSError: [Errno 28] No space left") == 1


def test_weights_and_biases_goes_offline_where_there_is_no_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason="needs wandb: pip install wandb")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    run = train(tmp_path / "run", trackers=("wandb",))
    assert run.finished and "`wandb sync`" in capsys.readouterr().out
    assert list((run.dir / "wandb").glob("offline-run-*/*.wandb"))

"""Two processes that train together average their gradients and write one run folder."""

import json

import pytest

from seglib import runs
from seglib.losses import BCELoss
from seglib.train import measure
from tests.helpers.discs import ConvNet, Discs, PartlyIgnored, check_equal, train
from tests.helpers.together import run_together


def test_two_processes_end_with_the_same_weights_and_write_one_history(tmp_path, capfd):
    run_dir = tmp_path / "run"

    def train_one_model() -> dict:
        model = ConvNet(norm=True)
        run = train(run_dir, model, PartlyIgnored(17), Discs(5), BCELoss(), epochs=2, accumulate=3)  # unequal parts
        weights = {name: value.tolist() for name, value in model.state_dict().items()}
        return {"weights": weights, "history": run.history}

    (tmp_path / "exchange").mkdir()
    first, second = run_together(train_one_model, tmp_path / "exchange")
    assert first["weights"] == second["weights"]
    check_equal(first["history"], second["history"])
    assert first["history"] == runs.read_history(run_dir / "history.csv")
    assert capfd.readouterr().out.count("epoch 2/2") == 1
    assert json.loads((run_dir / "config.json").read_text())["settings"]["processes"] == 2

    model = ConvNet(norm=True)
    model.load_state_dict(runs.read_checkpoint(run_dir / runs.LAST)["model"])
    alone = measure(model, Discs(5), BCELoss(), batch_size=4)  # each image counted once, whichever process read it
    assert alone.matrix.iou()[1].item() == pytest.approx(first["history"][-1]["val_iou"], abs=1e-6)
    assert alone.loss == pytest.approx(first["history"][-1]["val_loss"], abs=1e-5)
    with pytest.raises(ValueError, match="processes: 2 then, 1 now"):
        train(run_dir, ConvNet(norm=True), PartlyIgnored(17), Discs(5), BCELoss(), epochs=2, accumulate=3)

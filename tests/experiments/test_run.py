import dataclasses

import numpy as np
from PIL import Image

from irjax.experiments import na_irstd, run
from irjax.methods.na_irstd import METHOD


def test_a_run_keeps_the_lists_of_its_draw(tmp_path, monkeypatch):
    root = tmp_path / "some" / "set"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
        for index in range(20):
            Image.fromarray(np.full((32, 48), index, np.uint8)).save(root / part / f"{index:02d}.png")
    config = na_irstd.EXPERIMENT.parse(
        f"--data.root {root} --data.train draw_train --data.val draw_val --data.draw 60 20 20 --data.split-seed 3 "
        "--data.resize 64".split()
    ).config
    monkeypatch.setattr(run, "fit", lambda *_, on_start, **__: on_start())
    run.train(METHOD, config, tmp_path / "run")
    lists = {path.name: path.read_text().split() for path in (tmp_path / "run" / "splits").iterdir()}
    assert {name: len(names) for name, names in lists.items()} == {
        "set-draw_train.txt": 12, "set-draw_val.txt": 4, "set-draw_test.txt": 4
    }  # fmt: skip
    assert sorted(sum(lists.values(), [])) == [f"{i:02d}" for i in range(20)]
    assert lists["set-draw_val.txt"] == list(config.data.open("val").names)
    assert config.data.open("train")[0].image.shape == (64, 64)
    plain = dataclasses.replace(config, data=dataclasses.replace(config.data, train=("train",), val=("val",)))
    run.train(METHOD, plain, tmp_path / "plain")
    assert not (tmp_path / "plain" / "splits").exists()

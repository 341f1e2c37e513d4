import dataclasses

from irjax.experiments.mshnet import LossConfig, quick
from irjax.reports.files import plain
from irjax.training.configs import same_config


def test_a_field_that_is_younger_than_the_file_had_its_default():
    config = quick()
    saved = plain(dataclasses.asdict(config))
    assert same_config(saved, config)
    del saved["optimizer"]["groups"], saved["loss"]["name"], saved["decode"]
    assert same_config(saved, config)
    other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, groups=("final=0",)))
    assert not same_config(saved, other)
    del saved["loss"]["warm_epochs"]  # 1 here, and not its default
    assert not same_config(saved, config)
    assert same_config(saved, dataclasses.replace(config, loss=LossConfig()))


def test_what_is_another_config():
    config = quick()
    saved = plain(dataclasses.asdict(config))
    saved["loop"]["steps"] += 1
    assert not same_config(saved, config)
    assert not same_config({**plain(dataclasses.asdict(config)), "unknown": 1}, config)
    assert not same_config(None, config)

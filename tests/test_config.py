import pytest
import yaml

from evlift.config import DataConfig, PretrainConfig, StudentConfig, TrainConfig, differences, to_dict, write_yaml
from evlift.errors import ConfigError, EvliftError


def test_yaml_holds_every_setting():
    config = PretrainConfig(data=DataConfig(source="street", size=(96, 128)))
    assert yaml.safe_load(write_yaml(config)) == to_dict(config)
    assert to_dict(config)["data"]["size"] == [96, 128]


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataConfig(size=(8, 8)),
        lambda: DataConfig(scale=(0.8, 0.2)),
        lambda: DataConfig(val_fraction=0),
        lambda: StudentConfig(depth=0),
        lambda: StudentConfig(patch=15),
        lambda: TrainConfig(steps=0),
        lambda: TrainConfig(lr=-1),
    ],
)
def test_bad_values_are_refused_with_advice(make):
    with pytest.raises(ConfigError, match=r"; |must"):
        make()


def test_differences_name_the_setting():
    old, new = to_dict(PretrainConfig()), to_dict(PretrainConfig(train=TrainConfig(lr=1.0)))
    assert differences(old, new) == ["train.lr: 0.0005 → 1.0"]
    assert differences(old, old) == []


def test_errors_are_one_family():
    assert issubclass(ConfigError, EvliftError) and issubclass(ConfigError, ValueError)

"""The conformance suites on every component of this plugin."""

from spikecore.testing.suites.model import ModelSuite
from spikecore.testing.suites.trainer import TrainerSuite


class TestPPO(TrainerSuite):
    component = "ppo"


class TestA2C(TrainerSuite):
    component = "a2c"


class TestDQN(TrainerSuite):
    component = "dqn"


class TestTD3(TrainerSuite):
    component = "td3"


class TestPopulationMLP(ModelSuite):
    component = "population_mlp"


class TestAtariConvNet(ModelSuite):
    component = "atari_convnet"

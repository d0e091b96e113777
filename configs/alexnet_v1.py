"""AlexNet of NIPS 2012, two towers, on ImageNet, 90 epochs; or with BatchNorm.

python main.py --config configs/alexnet_v1.py --workdir runs/alexnet_v1
python main.py --config configs/alexnet_v1.py:alexnet_bn --workdir runs/alexnet_bn

Published (its table 2, one network, ten crops): 59.3 top-1, 81.8 top-5; not reproduced here. The paper divided the rate
by 10 three times, by eye; the epochs of that are ours. For alexnet_bn no result with this recipe is known.
On a laptop: those of configs/common.py and --config.augment.size=64 --config.eval.size=64
--config.eval.resize=64 --config.schedule.base_batch_size=16.
"""

from configs import common

MODELS = ('alexnet_v1', 'alexnet_bn')


def get_config(model='alexnet_v1'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 90, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (30, 60, 80)
    return config

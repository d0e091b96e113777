"""ResNet-50 v2 with average-pool shortcuts on ImageNet, 50 epochs.

python main.py --config configs/resnet50v2_avgpool.py --workdir runs/resnet50v2_avgpool

Published with this recipe, ten crops: 78.05 top-1, 94.19 top-5, and 78.86 top-1, 94.50 top-5 for two models averaged;
not reproduced here. On a laptop: configs/common.py.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'resnet50v2'
    config.model.shortcut = 'avgpool'
    config.epochs, config.batch_size = 50, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 0.05
    config.optimizer.decay_bias_and_norm = False
    config.schedule.warmup_epochs, config.schedule.floor = 1, 5e-6
    config.loss.smoothing = 0.1
    return config

"""GhostNet 1.3x on ImageNet, 360 epochs, 8 GPUs x 400; or 1.0x.

python main.py --config configs/ghostnet_130.py --workdir runs/ghostnet_130
python main.py --config configs/ghostnet_130.py:ghostnet_100 --workdir runs/ghostnet_100

Published with this recipe: 75.78 top-1, 92.77 top-5 for ghostnet_130, none that is known for ghostnet_100; not
reproduced here. On a laptop: configs/common.py.
"""

from configs import common

MODELS = ('ghostnet_130', 'ghostnet_100')


def get_config(model='ghostnet_130'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 360, 3200
    config.schedule.base_batch_size = config.batch_size
    config.loss.smoothing = 0.1
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2.6, 3e-5
    config.optimizer.decay_bias_and_norm = False
    config.augment.color_jitter = 0.4
    return config

"""MobileNet on ImageNet, 150 epochs, 8 GPUs x 256; or MobileNetV2.

python main.py --config configs/mobilenet_v1.py --workdir runs/mobilenet_v1
python main.py --config configs/mobilenet_v1.py:mobilenet_v2 --workdir runs/mobilenet_v2

Published with this recipe: 72.17 top-1, 90.70 top-5 for mobilenet_v1, 71.94 top-1, 90.59 top-5 for mobilenet_v2; not
reproduced here. On a laptop: configs/common.py.
"""

from configs import common

MODELS = ('mobilenet_v1', 'mobilenet_v2')


def get_config(model='mobilenet_v1'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    if model == 'mobilenet_v2':
        config.model.dropout = 0.0  # as published; in mobilenet_v1 it is none anyway
    config.epochs, config.batch_size = 150, 2048
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config

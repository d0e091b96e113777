"""MobileNetV3-Large on ImageNet, 360 epochs, 8 GPUs x 256; or -Small.

python main.py --config configs/mobilenet_v3.py --workdir runs/mobilenet_v3_large
python main.py --config configs/mobilenet_v3.py:mobilenet_v3_small --workdir runs/mobilenet_v3_small

Published with this recipe: 75.64 top-1, 92.61 top-5 for mobilenet_v3_large, 67.83 top-1, 87.78 top-5 for
mobilenet_v3_small; not reproduced here. On a laptop: configs/common.py.
"""

from configs import common

MODELS = ('mobilenet_v3_large', 'mobilenet_v3_small')


def get_config(model='mobilenet_v3_large'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 360, 2048
    config.schedule.base_batch_size = config.batch_size
    config.loss.smoothing = 0.1
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2.6, 3e-5
    config.optimizer.decay_bias_and_norm = False
    config.augment.color_jitter = 0.4
    return config

"""Octave-convolution ResNet-50, alpha .125, on ImageNet, 120 epochs, 8 GPUs x 128.

python main.py --config configs/oct_resnet50.py --workdir runs/oct_resnet50

Published by the authors with pre-activation and about this recipe: 78.2 top-1, 93.9 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'oct_resnet50'
    config.epochs, config.batch_size = 120, 1024
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config

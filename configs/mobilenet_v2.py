"""MobileNetV2 on ImageNet, 150 epochs, 8 GPUs x 256.

python main.py --config configs/mobilenet_v2.py --workdir runs/mobilenet_v2

Published with this recipe: 71.94 top-1, 90.59 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'mobilenet_v2'
    config.epochs, config.batch_size = 150, 2048
    config.optimizer.learning_rate = 0.4
    config.model.dropout = 0.0  # as published
    config.augment.color_jitter = 0.4
    return config

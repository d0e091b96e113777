"""ResNeSt-50 with the stem and shortcuts of ResNet-50 on ImageNet, 120 epochs, 8 GPUs x 128.

python main.py --config configs/resnest50.py --workdir runs/resnest50

Published with this recipe: 78.62 top-1, 94.28 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'resnest50'
    config.epochs, config.batch_size = 120, 1024
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config

"""RegNetY-6.4GF on ImageNet, 120 epochs, 8 GPUs x 128.

python main.py --config configs/regnety_064.py --workdir runs/regnety_064

Published with this recipe: 79.69 top-1, 94.82 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'regnety_064'
    config.epochs, config.batch_size = 120, 1024
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config

"""MobileNet on ImageNet, 150 epochs, 8 GPUs x 256.

python main.py --config configs/mobilenet_v1.py --workdir runs/mobilenet_v1

Published with this recipe: 72.17 top-1, 90.70 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'mobilenet_v1'
    config.epochs, config.batch_size = 150, 2048
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config

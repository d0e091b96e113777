"""MobileNetV3-Large on ImageNet, 360 epochs, 8 GPUs x 256.

python main.py --config configs/mobilenet_v3_large.py --workdir runs/mobilenet_v3_large

Published with this recipe: 75.64 top-1, 92.61 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6
--config.optimizer.learning_rate=0.02.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'mobilenet_v3_large'
    config.epochs, config.batch_size = 360, 2048
    config.loss.smoothing = 0.1
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2.6, 3e-5
    config.optimizer.decay_bias_and_norm = False
    config.augment.color_jitter = 0.4
    return config

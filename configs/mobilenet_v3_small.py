"""MobileNetV3-Small on ImageNet, 360 epochs, 8 GPUs x 256.

python main.py --config configs/mobilenet_v3_small.py --workdir runs/mobilenet_v3_small

Published with this recipe: 67.83 top-1, 87.78 top-5; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6
--config.optimizer.learning_rate=0.02.
"""

from configs import mobilenet_v3_large


def get_config():
    """mobilenet_v3_large's recipe with another model."""
    config = mobilenet_v3_large.get_config()
    config.model.name = 'mobilenet_v3_small'
    return config

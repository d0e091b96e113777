"""ResNet-50 as NVIDIA's examples for PyTorch train it, 90 epochs, 8 GPUs x 256; or 250 epochs, with mixup.

python main.py --config configs/nvidia_resnet50.py --workdir runs/resnet50_90
python main.py --config configs/nvidia_resnet50.py:250 --workdir runs/resnet50_250

Published, as means of many runs on 8 A100 in mixed precision: 77.12 top-1 after 90 epochs, 78.43 top-1 after 250. Not
reproduced here. On a laptop: configs/common.py.
"""

from configs import common

VARIANTS = {'90': {}, '250': {'epochs': 250, 'mix.mixup': 0.2}}


def get_config(variant='90'):
    """The recipe, of as many epochs."""
    config = common.get_config()
    config.model.name = 'resnet50'
    config.epochs, config.batch_size = 90, 2048
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 2.048
    config.optimizer.momentum, config.optimizer.nesterov = 0.875, False
    config.optimizer.weight_decay, config.optimizer.decay_bias_and_norm = 2.0**-15, False
    config.schedule.warmup_epochs = 8
    config.loss.smoothing = 0.1
    return common.varied(config, VARIANTS, variant)

"""ResNet-50 and others as torchvision trains its second weights, 600 epochs, 8 GPUs x 128.

python main.py --config configs/torchvision_600_epochs.py --workdir runs/resnet50_600
python main.py --config configs/torchvision_600_epochs.py:resnet101 --workdir runs/resnet101_600

Published by torchvision, of averaged weights and one crop of 224 pixels: 80.858 top-1, 95.434 top-5 for resnet50;
81.886 top-1, 95.780 top-5 for resnet101; 82.284 top-1, 96.002 top-5 for resnet152; 81.198 top-1, 95.340 top-5 for
resnext50_32x4d. Not reproduced here. On a laptop: configs/common.py.

Five things differ: torchvision averages weights at every 32nd step, here at each with the 32nd root of the decay; its
rate changes once an epoch; its warm-up begins at a hundredth of the rate and not at 0; it does decay biases; and its
TrivialAugment interpolates.
"""

from configs import common

MODELS = ('resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d')


def get_config(model='resnet50'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 600, 1024
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.nesterov = 0.5, False
    config.optimizer.weight_decay, config.optimizer.decay_bias_and_norm = 2e-5, False
    config.loss.smoothing = 0.1
    config.mix.mixup, config.mix.cutmix = 0.2, 1.0
    config.policy.name = 'trivialaugment'
    config.erase.name, config.erase.probability = 'random', 0.1
    config.erase.area, config.erase.aspect = (0.02, 0.33), (0.3, 3.3)
    config.augment.size, config.augment.repeats = 176, 4
    config.eval.resize = 232
    # What its script makes of a decay of .99998: the longer a run, the slower the average.
    config.ema_decay = (1 - (1 - 0.99998) * config.batch_size * 32 / config.epochs) ** (1 / 32)
    return config

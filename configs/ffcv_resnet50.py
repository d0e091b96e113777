"""ResNet-50 in 16 to 88 epochs as ffcv-imagenet trains it, 8 GPUs x 512: small images first, blurred before strides.

python main.py --config configs/ffcv_resnet50.py --workdir runs/resnet50_16
python main.py --config configs/ffcv_resnet50.py:88 --workdir runs/resnet50_88

Published, each the mean over an image and its mirror image at 256 pixels: 73.8 top-1, 90.8 top-5 after 16 epochs; 75.6
top-1, 92.1 top-5 after 24; 76.6 top-1, 92.7 top-5 after 32; 77.2 top-1, 93.2 top-5 after 40; 78.0 top-1, 93.7 top-5
after 56; 78.4 top-1, 94.1 top-5 after 88. Not reproduced here. On a laptop: those of configs/common.py and
--config.augment.first_size=24 --config.augment.ramp_epochs="(1, 2)".

Two things differ: blur-pool here has the places of its paper, theirs blurs before every strided convolution; and
evaluation here sees an image once.
"""

from configs import common

# Epochs -> those at which images begin to grow, and have grown.
RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}
VARIANTS = {str(epochs): {'epochs': epochs, 'augment.ramp_epochs': ramp} for epochs, ramp in RAMPS.items()}


def get_config(variant='16'):
    """The recipe, of as many epochs."""
    config = common.get_config()
    config.model.name, config.model.antialias = 'resnet50', True
    config.batch_size = 4096
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.nesterov = 1.7, False
    config.optimizer.decay_bias_and_norm = False
    config.schedule.name, config.schedule.warmup_epochs = 'linear', 2
    config.loss.smoothing = 0.1
    config.augment.first_size, config.augment.size = 160, 192
    config.eval.size, config.eval.resize = 256, 293  # of which 256 are 224 / 256
    return common.varied(config, VARIANTS, variant)

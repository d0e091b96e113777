"""Handwritten digits on a CPU, in about a minute: real images that need no download.

python main.py --config configs/digits.py --workdir runs/digits

scikit-learn's 1,797 digits of 8x8 pixels, every fifth of them held out. On a laptop: as it is.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.message = 'quick start'
    config.model.name, config.model.num_classes, config.model.dtype = 'resnet20_cifar', 10, 'float32'
    config.data.format, config.data.path, config.data.eval_split = 'digits', '', 'test'
    config.augment.size, config.augment.crop, config.augment.pad, config.augment.flip = 16, 'pad', 2, False
    config.eval.size, config.eval.resize = 16, 16
    config.normalize.mean, config.normalize.std = (0.305,) * 3, (0.376,) * 3
    config.epochs, config.batch_size, config.eval_batch_size = 20, 64, 120
    config.schedule.base_batch_size = config.batch_size
    config.schedule.warmup_epochs = 2
    config.optimizer.learning_rate = 0.1
    config.eval_epochs, config.log_steps, config.checkpoint_steps = 2, 20, 100
    return config

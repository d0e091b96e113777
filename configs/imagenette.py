"""ResNet-50-D on Imagenette at 128 pixels, 5, 20 or 80 epochs: the sizes and times of its leaderboard.

python main.py --config configs/imagenette.py --workdir runs/imagenette_5 --config.data.path=DIR
python main.py --config configs/imagenette.py:80 --workdir runs/imagenette_80 --config.data.path=DIR

DIR holds train-*.parquet and validation-*.parquet, the layout of the Hugging Face hub; the images may be of any size.
On the leaderboard, whose recipes are others: 85.77 top-1 after 5 epochs, 91.57 top-1 after 20, 93.55 top-1 after 80.
On a laptop: --config.model.name=resnet18d --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73.
"""

from configs import common

VARIANTS = {str(epochs): {'epochs': epochs} for epochs in (5, 20, 80)}


def get_config(variant='5'):
    """The recipe, of as many epochs."""
    config = common.get_config()
    config.model.name, config.model.num_classes, config.model.act = 'resnet50d', 10, 'mish'
    config.model.zero_gamma = True
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/imagenette160', 'validation'
    config.augment.size, config.augment.scale = 128, (0.35, 1.0)
    config.eval.size, config.eval.resize = 128, 146
    config.batch_size = 64
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.05, 5e-4
    config.optimizer.decay_bias_and_norm = False
    config.schedule.warmup_epochs = 1
    config.loss.smoothing = 0.1
    return common.varied(config, VARIANTS, variant)

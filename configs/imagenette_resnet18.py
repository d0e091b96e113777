"""ResNet-18 on Imagenette, ten easy classes of ImageNet, at 160 pixels.

python main.py --config configs/imagenette_resnet18.py --workdir runs/imagenette --config.data.path=DIR

DIR holds train-*.parquet and validation-*.parquet, the layout of the Hugging Face hub. No published result is known for
this recipe. On a laptop: --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=3.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name, config.model.num_classes = 'resnet18', 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/imagenette160', 'validation'
    config.augment.size, config.augment.scale = 128, (0.35, 1.0)
    config.eval.size, config.eval.resize = 160, 160
    config.epochs, config.batch_size = 50, 64
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.05, 5e-4
    config.loss.smoothing = 0.1
    return config

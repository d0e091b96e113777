"""ResNet-18 with ImageNet weights, fine-tuned to Imagenette in 5 epochs: what to copy for a data set of one's own.

python main.py --config configs/imagenette_finetune.py --workdir runs/finetune --config.data.path=DIR
    --config.init_from=resnet18.pth

DIR holds train-*.parquet and validation-*.parquet, the layout of the Hugging Face hub. init_from is a file of
torchvision's weights, hf:timm/resnet18.tv_in1k, or the folder of a run or an import. The head for ten classes is new
and learns ten times as fast as the rest; the stem, its norm too, stays as it is. No published result is known for this
recipe. On a laptop: --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73.
"""

from configs import imagenette_resnet18


def get_config():
    """The recipe."""
    config = imagenette_resnet18.get_config()
    config.init_from = 'weights/resnet18'
    config.freeze = ('conv1/*', 'bn1/*')
    config.optimizer.rate_factors = (('fc/*', 10.0),)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.005, 1e-4
    config.epochs, config.schedule.warmup_epochs = 5, 1
    return config

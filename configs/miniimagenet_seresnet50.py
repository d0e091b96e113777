"""SE-ResNet-50 on mini-ImageNet, 100 classes, 120 epochs: configs/seresnet50.py's recipe on fewer images.

python main.py --config configs/miniimagenet_seresnet50.py --workdir runs/miniimagenet_seresnet50 --config.data.path=DIR

DIR holds train.txt, val.txt and test.txt, lines of `path label`, and the images they name (50,000, 5,000 and 5,000).
Published on mini-ImageNet, ten crops: 16.36% error; not reproduced here; batch, rate and epochs are ours.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import seresnet50


def get_config():
    """The recipe."""
    config = seresnet50.get_config()
    config.model.name, config.model.num_classes = 'seresnet50', 100
    config.data.format, config.data.path = 'list', 'data/mini-imagenet'
    config.batch_size, config.optimizer.learning_rate = 128, 0.05
    return config

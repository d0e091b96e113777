"""ResNet-50 v2 on mini-ImageNet, 100 classes, 120 epochs: configs/resnet50v2.py's recipe on fewer images.

python main.py --config configs/miniimagenet_resnet50v2.py --workdir runs/miniimagenet_resnet50v2 --config.data.path=DIR

DIR holds train.txt, val.txt and test.txt, lines of `path label`, and the images they name (50,000, 5,000 and 5,000).
Published on mini-ImageNet, ten crops: 18.42% error; not reproduced here; batch, rate and epochs are ours.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import resnet50v2


def get_config():
    """The recipe."""
    config = resnet50v2.get_config()
    config.model.name, config.model.num_classes = 'resnet50v2', 100
    config.data.format, config.data.path = 'list', 'data/mini-imagenet'
    config.batch_size, config.optimizer.learning_rate = 128, 0.05
    return config

"""Trains and evaluates one model.

    python main.py --config configs/resnet50.py --workdir runs/resnet50
    python main.py --config configs/resnet50.py --workdir runs/resnet50 --config.batch_size=512

The same command again goes on from the newest checkpoint. Options: configs/common.py.
"""

from imagenet_jax.commands import train

if __name__ == '__main__':  # data workers import this file anew
    train.main()

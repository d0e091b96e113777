"""Trains and evaluates one model: python main.py --config configs/resnet50.py --workdir runs/resnet50"""

from imagenet_jax.commands import train

if __name__ == '__main__':  # data workers import this file anew
    train.main()

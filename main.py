"""Trains and evaluates one model: python main.py --config configs/resnet50.py --workdir runs/resnet50"""

from imagenet_jax.command_line import running

if __name__ == '__main__':  # data workers import this file anew
    running.take_huge_pages()
    running.run('train')

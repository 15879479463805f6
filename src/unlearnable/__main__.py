"""``python -m unlearnable``, and ``torchrun -m unlearnable`` for training on several devices."""

from unlearnable.cli import main

if __name__ == "__main__":
    main()

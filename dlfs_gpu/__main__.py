"""``python -m dlfs_gpu`` is the command ``dlfs-gpu``."""

from dlfs_gpu.cli import main

main()

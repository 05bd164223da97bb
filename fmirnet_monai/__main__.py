"""``python -m fmirnet_monai``, which is ``fmirnet``: see :py:mod:`fmirnet_monai.cli`."""

from fmirnet_monai.cli import main

if __name__ == "__main__":
    main()

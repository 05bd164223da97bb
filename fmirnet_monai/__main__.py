"""``python -m fmirnet_monai``: see :py:mod:`fmirnet_monai.cli`."""

from fmirnet_monai.cli import main

if __name__ == "__main__":
    main()

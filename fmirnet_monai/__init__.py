"""FMIRNet: fast multiscale unsupervised deformable image registration, on MONAI.

The package's face, as those of its rooms: ``__init__.pyi`` says where each name is, and it is imported when it is first
asked for (SPEC 1). So importing a package alone loads neither torch nor MONAI.
"""

import lazy_loader

from fmirnet_monai.program import serve_bundles

serve_bundles()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

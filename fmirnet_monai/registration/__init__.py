"""Two images of any size and geometry in, a transform and the warped image out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

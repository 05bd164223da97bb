"""Raw data sets to datalists of pairs: one reader per set, pairing and splits, the generated sample."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""What a registration or a run shows: page, figures, tables, and the handlers that write them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

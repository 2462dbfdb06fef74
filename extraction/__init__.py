"""How features are extracted with a selection: the fused feature, the selection file and the extractor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

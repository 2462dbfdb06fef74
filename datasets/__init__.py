"""Labelled images: readers, splits and checks, and the built-in rendered scenes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

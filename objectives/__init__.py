"""How a selection is scored: tasks, metrics, fast and reference probes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

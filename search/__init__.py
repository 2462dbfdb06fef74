"""How selections are searched: search space, samplers, study loop, warm starts, reranking."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The bank: features of the development images at sampled locations, on disk, so that trials never run a backbone.

One entry per candidate: a folder named by the hash of everything that shaped it but the images, with

- ``features.bin`` and ``features.index``: a record per image, float16 (points, channels), standardised and projected as
  `Standardiser` does, under the digest of image, prompt and points, each with a checksum; one mean over an image's
  points where the development set says so;
- ``statistics.safetensors``: the standardiser, fit on a seeded subset of the training images and frozen;
- ``entry.json``: the full key, which images the statistics are fit on, and the reason if the candidate cannot be used;
- ``studies/NAME``: an empty file for each study that used it;
- ``raw.bin`` and ``raw.index``: raw features of the images to fit on, until that is done.

Data sets that share images share their records: added images alone are extracted. Records are written image by image,
so a fill that was stopped goes on where it stopped, and a record whose checksum is off is extracted anew by itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

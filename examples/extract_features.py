"""Features of image files, by a selection that `diffsift demo` or `diffsift search` wrote.

    python examples/extract_features.py selection.json photo1.jpg photo2.png

Prints the shape of each image's feature map; what follows it is up to you.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from PIL import Image, ImageOps

from diffsift import FeatureExtractor

if len(sys.argv) < 3:
    sys.exit("usage: python extract_features.py SELECTION.json IMAGE...")
extractor = FeatureExtractor.from_selection(sys.argv[1])
for path in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    features = extractor(image[None])[0]  # (channels, rows, columns), on the model's device
    print(path, tuple(features.shape))

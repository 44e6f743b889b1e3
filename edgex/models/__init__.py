"""The self-explaining forward of a Vision Transformer, its evidence, and the adapters of timm and open_clip."""

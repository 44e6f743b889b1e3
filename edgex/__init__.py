"""edgex gives a trained Vision Transformer classifier a built-in heatmap and ships it to the edge."""

__version__ = "0.1.0"

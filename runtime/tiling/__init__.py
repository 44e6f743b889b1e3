"""High-resolution frames in parts: tiles and regions of interest, run as one batch and put together again.

| module | what is in it |
|---|---|
| tiles | `TiledResult`, `ShiftedResult`: results of a frame that was cut |
| cutting | which parts of a frame are run |
| stitching | one heatmap of the parts' heatmaps |
| roi | regions of interest: rectangles and polygons |
"""

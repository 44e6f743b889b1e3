"""Heatmaps as pictures for people: what is painted over a frame, and what is written into it.

| module | what is in it |
|---|---|
| options | `Drawing`: how results are drawn, one value for all that writes pictures; their captions |
| overlay | a heatmap over a picture, in one of the styles |
| upsampling | from the grid of patches to pixels |
| colormaps | evidence as colours |
| layer | blending, in place |
| contours | lines around evidence |
| seen | what of the frame the model saw, and its border |
| plates, captions | text on plates; fonts that have its characters |
"""

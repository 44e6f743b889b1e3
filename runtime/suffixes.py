"""What files of pictures and videos are called. Imports nothing, so that the command line starts fast."""

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

"""What files of pictures and videos are called. Imports nothing, so that the command line starts fast."""

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm"}
"""Of URLs that name a whole video: it ends where a live stream would have broken."""

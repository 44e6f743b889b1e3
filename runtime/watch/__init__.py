"""A session over a source of pictures: cameras, videos and folders in; pictures, videos and a page out."""

"""Where pictures come from: cameras, streams, videos, folders and pipes.

| module | what is in it |
|---|---|
| source, open_source | what a source is; which one a name means |
| folder, followed_folder, pipe, video, http_source | the sources |
| video_ending | whether a recording ends where its header says |
| url | what may be said of a URL that may hold a password |
"""

"""A session over a source of pictures: cameras, videos and folders in; pictures, videos, JSON, alarms and a page out.

| module | what is in it |
|---|---|
| stream | `Stream`: which picture is next, which are dropped, when a broken source is opened again |
| metrics | `StreamMetrics`: frame rate, latency, drops |
| together | several streams that share a session |
| sources/ | where pictures come from |
| sinks | results as pictures, video, JSON lines |
| recording | `VideoWriter` |
| alarms/ | which pictures raise an alarm, and who is told |
| page/ | results in the browser |
"""

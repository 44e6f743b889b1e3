"""A session over a source of pictures: cameras, videos and folders in; pictures, videos, JSON and a page out.

| module | what is in it |
|---|---|
| stream | `Stream`: which picture is next, which are dropped, when a broken source is opened again |
| metrics | `StreamMetrics`: frame rate, latency, drops |
| together | several streams that share a session |
| source, open_source | what a source is; which one a name means |
| folder, followed_folder, pipe, video, http_source | the sources |
| ending | whether a recording ends where its header says |
| url | what may be said of a URL that may hold a password |
| recording | `VideoWriter` |
| sinks | results as pictures, video, JSON lines |
| alarms, rules | `Alarms`: which pictures raise one, and how often; what a rule is |
| snapshots | pictures and JSON of alarms |
| delivery, webhook, mqtt | alarms to receivers: the queue with its attempts; over HTTP; over MQTT |
| page, page_feed, page_events | results in the browser |
| page_server, page_access | the web server under it; who may see it |
| feedback | verdicts of people on results, as JSON lines |
"""

"""Results of streams in a browser.

| module | what is in it |
|---|---|
| page, feed, events | the page's requests; one stream's frames; alarms and unsure frames |
| server, access | the web server under it; who may see it |
| feedback | verdicts of people on results, as JSON lines |
| page.html, page.css, page*.js, token.html | what the browser loads |
"""

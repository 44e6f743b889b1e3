"""`edgex report`: one page about a run of `edgex watch`, from the JSON lines that it wrote.

| module | what is in it |
|---|---|
| reading | the lines: which are results, what they add up to, which pictures are shown |
| pictures | the picture of a line, with its heatmap, as a data URI |
| charts | scores and latency over the run as SVG |
| page | the page: `write_report` |

The page is one file without scripts and without anything from elsewhere. Whatever a run's lines hold is escaped.
"""

from __future__ import annotations

from edgex.report.page import write_report

__all__ = ["write_report"]

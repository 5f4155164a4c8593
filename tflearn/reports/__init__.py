"""What came out: `report.json` first, then everything drawn from it.

`report.html` is one file without external requests; figures also lie under `plots/`.
"""

from tflearn.reports.html import write_html, write_report
from tflearn.reports.report import Report, StageReport

__all__ = ["Report", "StageReport", "write_html", "write_report"]

"""Tables that can be read on a phone: each cell knows the heading of its column.

`site.css` shows a row as a card on a narrow screen, with these headings beside the cells. Tables of
many columns, which hold figures, scroll inside their own box instead.
"""

import re
from html import escape, unescape
from typing import Any

# A table of at most so many columns becomes cards.
MOST_COLUMNS = 6

_TABLE = re.compile(r'<table class="([^"]*)">(.*?)</table>', re.DOTALL)
_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td\b([^>]*)>(.*?)</td>", re.DOTALL)
_CODE = re.compile(r"(?<=<span class=\"pre\">)[^<]*")
_BREAK = re.compile(r"[(=._](?=\w)|,(?=\S)")  # where a line of code may end
_HEADING = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)


def label_cells(html: str) -> str:
    """Return a page's HTML with a class for each table, and `data-label` at its cells."""
    return _TABLE.sub(_labelled, html)


def _labelled(table: re.Match[str]) -> str:
    classes, content = table.groups()
    headings = [
        unescape(re.sub(r"<[^>]+>", "", text)).strip() for text in _HEADING.findall(content)
    ]
    if "<thead>" not in content or len(headings) < 3:
        return table[0]
    if len(headings) > MOST_COLUMNS:
        return f'<table class="{classes} wide">{content}</table>'

    def row(match: re.Match[str]) -> str:
        labels = iter(headings)
        return _CELL.sub(lambda cell: _cell(cell, next(labels, "")), match[0])

    return f'<table class="{classes} cards">{_ROW.sub(row, content)}</table>'


def _cell(cell: re.Match[str], label: str) -> str:
    """Return a cell with its label; an empty one has none, and a card leaves it out."""
    attributes, content = cell.groups()
    if not re.sub(r"<[^>]+>", "", content).strip():
        return f'<td data-empty=""{attributes}>{content}</td>'
    content = _CODE.sub(lambda code: _BREAK.sub(r"\g<0><wbr>", code[0]), content)
    return f'<td data-label="{escape(label)}"{attributes}>{content}</td>'


def on_page(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any):
    """Label the tables of a page that is about to be written."""
    if "body" in context:
        context["body"] = label_cells(context["body"])

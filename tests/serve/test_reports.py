"""The HTML page: it shows names as plain text, and loads nothing from other servers."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from segline.serve import reports


def test_page_names_the_version_and_links_only_to_this_server(ask: Callable[..., Any]) -> None:
    answer = ask("GET /")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = answer.body.decode()
    assert "cells <small>version 1 @champion</small>" in text
    assert 'style="background: rgb(240, 228, 66)"></span>cell' in text
    links = re.findall(r"""(?:src|href|action)="([^"]+)""", text)
    assert links == ["data:,", "invocations?output=overlay", "#", "#", "openapi.json"]
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_names_are_shown_as_text_not_markup(held: Any) -> None:
    tags = {"classes": '{"0": "background", "1": "<b>cell</b>"}'}
    held.serving = replace(held.serving, name="<script>", tags=tags)
    text = reports.page(held)
    assert "<b>cell</b>" not in text and "&lt;b&gt;cell" in text
    assert text.count("<script>") == 1


def test_page_of_a_version_without_tags(held: Any) -> None:
    held.serving = replace(held.serving, tags={})
    assert "<h1>cells" in reports.page(held)

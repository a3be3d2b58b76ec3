"""Every bound of the page, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much and how long. Visitors of a small site are strangers."""

    max_body_bytes: int = 20 << 20  # of one form with its files
    max_waiting_bytes: int = 80 << 20  # of forms that are still coming
    body_timeout_s: int = 60  # until a form has come
    max_pixels: int = 25_000_000  # of a picture, before it is decoded
    max_decoding: int = 2  # pictures decoded at once
    max_rows: int = 1000  # of a table
    max_fields: int = 48  # columns that have a field of their own in the form
    max_tensors: int = 64  # inputs that have the general form
    max_values: int = 5 << 20  # of all such inputs together
    max_written: int = 500_000  # numbers of one such input as text, which takes a processor a second
    max_texts: int = 100_000  # of one such input
    max_text_bytes: int = 4 << 20  # of one such input as text, as of any field
    max_running: int = 32  # questions under way at once, those that wait among them
    max_running_each: int = 2  # of one visitor
    max_kept_each: int = 4  # answers of one visitor
    max_kept_bytes: int = 128 << 20  # of all answers
    kept_s: int = 15 * 60  # seconds that an answer is kept
    max_wait_s: int = 10 * 60  # seconds that a question waits for units
    patience_s: int = 8  # seconds until a page says that the answer is not there yet
    max_response_bytes: int = 80 << 20  # of an encapsulated answer
    per_minute: int = 30  # questions of one visitor's address, on an open page

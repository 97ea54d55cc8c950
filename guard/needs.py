"""What a value that was refused would have to be, in the words of all errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

# By the type of pydantic's error; in braces what its context names.
_NEEDS: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "a number from {ge} on",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number up to {le}",
    "less_than": "a number below {lt}",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "path_type": "a path",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
}


def what_is_needed(error: ErrorDetails) -> str:
    """Such as ``need a whole number``; of a fault that has no such words, and of our own, its message."""
    needed = _NEEDS.get(error["type"])
    if needed is None:
        return error["msg"].removeprefix("Value error, ")
    context: dict[str, Any] = error.get("ctx", {})
    return f"need {needed.format_map(context)}"

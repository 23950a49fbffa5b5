"""Which SQL functions follow from their arguments alone.

Volatile functions cannot be listed, since anybody may define one; so the pure ones are. A function is *pure* here where
the same arguments give the same result for as long as no captured table is written and the session's settings (time
zone, locale) stay: `lower`, but also `to_char`.

Functions of dates are pure only of values that are dates already: a text may read 'now'. PostgreSQL's take a text for
a date in one case alone, a literal, which is looked at where it stands. SQLite's take any text, so those of
`DATE_FUNCTIONS` are pure of a date column only.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DATE_FUNCTIONS", "PURE_FUNCTIONS", "is_clock_word"]

# fmt: off
PURE_FUNCTIONS: Final = frozenset(
    {
        # Aggregates and windows.
        "aggregate_strings", "any", "any_value", "array_agg", "avg", "bit_and", "bit_or", "bit_xor", "bool_and",
        "bool_or", "corr", "count", "covar_pop", "covar_samp", "cube", "cume_dist", "dense_rank", "every",
        "first_value", "group_concat", "grouping", "grouping sets", "grouping_sets", "json_agg", "json_group_array",
        "json_group_object", "json_object_agg", "jsonb_agg", "jsonb_object_agg", "lag", "last_value", "lead", "max",
        "min", "mode", "nth_value", "ntile", "percent_rank", "percentile_cont", "percentile_disc", "range_agg",
        "rank", "rollup", "row_number", "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "total",
        "var_pop", "var_samp", "variance",
        # Text.
        "ascii", "btrim", "char", "char_length", "character_length", "chr", "concat", "concat_ws", "decode",
        "encode", "format", "glob", "hex", "initcap", "instr", "left", "length", "like", "lower", "lpad", "ltrim",
        "md5", "octet_length", "overlay", "position", "printf", "quote", "regexp_count", "regexp_instr",
        "regexp_like", "regexp_match", "regexp_matches", "regexp_replace", "regexp_split_to_array",
        "regexp_split_to_table", "regexp_substr", "repeat", "replace", "reverse", "right", "rpad", "rtrim",
        "split_part", "starts_with", "string_to_array", "string_to_table", "strpos", "substr", "substring",
        "translate", "trim", "unicode", "upper",
        # Full text.
        "phraseto_tsquery", "plainto_tsquery", "setweight", "to_tsquery", "to_tsvector", "ts_headline", "ts_rank",
        "ts_rank_cd", "websearch_to_tsquery",
        # Numbers.
        "abs", "cbrt", "ceil", "ceiling", "degrees", "div", "exp", "floor", "gcd", "lcm", "ln", "log", "log10",
        "log2", "mod", "pi", "pow", "power", "radians", "round", "sign", "sqrt", "trunc", "width_bucket",
        # Dates, on PostgreSQL.
        "date_bin", "date_part", "date_trunc", "extract", "isfinite", "justify_days", "justify_hours",
        "justify_interval", "make_date", "make_interval", "make_time", "make_timestamp", "make_timestamptz",
        "timezone", "to_char", "to_date", "to_number", "to_timestamp",
        # Choice and types.
        "coalesce", "greatest", "ifnull", "iif", "least", "likelihood", "likely", "nullif", "pg_typeof", "row",
        "typeof", "unlikely",
        # JSON.
        "->", "->>", "json", "json_array", "json_array_elements", "json_array_elements_text", "json_array_length",
        "json_build_array", "json_build_object", "json_each", "json_each_text", "json_extract", "json_extract_path",
        "json_extract_path_text", "json_insert", "json_object", "json_object_keys", "json_patch", "json_quote",
        "json_remove", "json_replace", "json_set", "json_strip_nulls", "json_tree", "json_type", "json_typeof",
        "json_valid", "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_array_length",
        "jsonb_build_array", "jsonb_build_object", "jsonb_each", "jsonb_each_text", "jsonb_extract_path",
        "jsonb_extract_path_text", "jsonb_insert", "jsonb_object", "jsonb_object_keys", "jsonb_path_exists",
        "jsonb_path_match", "jsonb_path_query", "jsonb_path_query_array", "jsonb_path_query_first", "jsonb_pretty",
        "jsonb_set", "jsonb_strip_nulls", "jsonb_typeof", "row_to_json", "to_json", "to_jsonb",
        # Arrays and ranges.
        "array_append", "array_cat", "array_dims", "array_length", "array_lower", "array_ndims", "array_position",
        "array_positions", "array_prepend", "array_remove", "array_replace", "array_to_json", "array_to_string",
        "array_upper", "cardinality", "daterange", "generate_series", "generate_subscripts", "int4range",
        "int8range", "isempty", "lower_inc", "lower_inf", "numrange", "range_merge", "tsrange", "tstzrange",
        "unnest", "upper_inc", "upper_inf",
    }
)
"""Pure in every dialect that has them."""
# fmt: on

DATE_FUNCTIONS: Final = {"date": 0, "datetime": 0, "julianday": 0, "strftime": 1, "time": 0, "unixepoch": 0}
"""`{function: the place of the argument that must be a date column}`."""

_CLOCK_WORD: Final = re.compile(r"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])", re.I)


def is_clock_word(value: object) -> bool:
    """Tell whether PostgreSQL may read `value`, or one of its items, as a date that is another one every day.

    >>> is_clock_word("Today 12:00"), is_clock_word(["2024-01-31"]), is_clock_word("unknown")
    (True, False, False)
    """
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(is_clock_word, value))
    return isinstance(value, str) and _CLOCK_WORD.search(value) is not None

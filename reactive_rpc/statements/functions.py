"""Which SQL functions follow from their arguments alone.

Volatile functions cannot be listed, since anybody may define one; so the pure ones are. A function is *pure* here where
the same arguments give the same result for as long as no captured table is written and the session's settings (time
zone, locale) stay: `lower`, but also `to_char`.

They are listed by database: `hex` is SQLite's own, and on PostgreSQL somebody's. There a function may also be
*overloaded* by one of the same name: what the database's users define is in no list, see `Schema.redefines`.

Functions of dates are pure only of values that are dates already: a text may read 'now'. PostgreSQL's take a text for
a date in one case alone, a literal, which is looked at where it stands. SQLite's take any text, so those of
`date_functions` are pure of a date column only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["date_functions", "is_clock_word", "looked_at_functions", "pure_functions"]

# fmt: off
_EVERYWHERE: Final = frozenset({
    # Aggregates and windows; SQLAlchemy spells the first as each database does.
    "aggregate_strings", "avg", "count", "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "max",
    "min", "nth_value", "ntile", "percent_rank", "rank", "row_number", "sum",
    # Text.
    "concat", "concat_ws", "length", "lower", "ltrim", "replace", "rtrim", "substr", "substring", "trim", "upper",
    # Numbers.
    "abs", "ceil", "ceiling", "degrees", "exp", "floor", "ln", "log", "log10", "mod", "pi", "pow", "power", "radians",
    "round", "sign", "sqrt",
    # Choice.
    "coalesce", "nullif",
})

_ON_SQLITE: Final = frozenset({
    "->", "->>", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "char", "cos", "cosh", "format", "glob",
    "group_concat", "hex", "if", "ifnull", "iif", "instr", "json", "json_array", "json_array_length", "json_each",
    "json_error_position", "json_extract", "json_group_array", "json_group_object", "json_insert", "json_object",
    "json_patch", "json_pretty", "json_quote", "json_remove", "json_replace", "json_set", "json_tree", "json_type",
    "json_valid", "jsonb", "jsonb_array", "jsonb_extract", "jsonb_group_array", "jsonb_group_object", "jsonb_insert",
    "jsonb_object", "jsonb_patch", "jsonb_remove", "jsonb_replace", "jsonb_set", "like", "likelihood", "likely", "log2",
    "octet_length", "printf", "quote", "sin", "sinh", "string_agg", "tan", "tanh", "total", "trunc", "typeof", "unhex",
    "unicode", "unlikely", "zeroblob",
})

_ON_POSTGRESQL: Final = frozenset({
    # Aggregates and grouping.
    "any", "any_value", "array_agg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "covar_pop",
    "covar_samp", "cube", "every", "grouping", "grouping sets", "grouping_sets", "json_agg", "json_agg_strict",
    "json_object_agg", "json_object_agg_strict", "json_object_agg_unique", "json_object_agg_unique_strict", "jsonb_agg",
    "jsonb_agg_strict", "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict", "mode", "percentile_cont", "percentile_disc", "range_agg", "range_intersect_agg",
    "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy",
    "regr_syy", "rollup", "stddev", "stddev_pop", "stddev_samp", "string_agg", "var_pop", "var_samp", "variance",
    # Text.
    "ascii", "btrim", "casefold", "char_length", "character_length", "chr", "convert_from", "convert_to", "decode",
    "encode", "format", "initcap", "is_normalized", "left", "like", "lpad", "md5", "normalize", "octet_length",
    "overlay", "parse_ident", "position", "quote_ident", "quote_literal", "quote_nullable", "regexp_count",
    "regexp_instr", "regexp_like", "regexp_match", "regexp_matches", "regexp_replace", "regexp_split_to_array",
    "regexp_split_to_table", "regexp_substr", "repeat", "reverse", "right", "rpad", "sha224", "sha256", "sha384",
    "sha512", "split_part", "starts_with", "string_to_array", "string_to_table", "strpos", "textcat", "textlen",
    "to_ascii", "translate", "unistr",
    # Full text.
    "array_to_tsvector", "json_to_tsvector", "jsonb_to_tsvector", "numnode", "phraseto_tsquery", "plainto_tsquery",
    "querytree", "setweight", "strip", "to_tsquery", "to_tsvector", "ts_delete", "ts_filter", "ts_headline", "ts_rank",
    "ts_rank_cd", "tsvector_to_array", "websearch_to_tsquery",
    # Numbers.
    "acos", "acosd", "acosh", "asin", "asind", "asinh", "atan", "atan2", "atan2d", "atand", "atanh", "cbrt", "cos",
    "cosd", "cosh", "cot", "cotd", "div", "erf", "erfc", "factorial", "gcd", "lcm", "min_scale", "scale", "sin", "sind",
    "sinh", "tan", "tand", "tanh", "to_bin", "to_hex", "to_oct", "trim_scale", "trunc", "width_bucket",
    # Bits.
    "bit_count", "bit_length", "get_bit", "get_byte", "set_bit", "set_byte",
    # Dates.
    "date_add", "date_bin", "date_part", "date_subtract", "date_trunc", "extract", "isfinite", "justify_days",
    "justify_hours", "justify_interval", "make_date", "make_interval", "make_time", "make_timestamp",
    "make_timestamptz", "overlaps", "timezone", "to_char", "to_date", "to_number", "to_timestamp",
    # Choice and types.
    "greatest", "least", "num_nonnulls", "num_nulls", "pg_typeof", "row",
    # JSON.
    "json_array", "json_array_elements", "json_array_elements_text", "json_array_length", "json_build_array",
    "json_build_object", "json_each", "json_each_text", "json_extract_path", "json_extract_path_text", "json_object",
    "json_object_keys", "json_strip_nulls", "json_typeof", "jsonb_array_elements", "jsonb_array_elements_text",
    "jsonb_array_length", "jsonb_build_array", "jsonb_build_object", "jsonb_concat", "jsonb_contained",
    "jsonb_contains", "jsonb_delete", "jsonb_delete_path", "jsonb_each", "jsonb_each_text", "jsonb_exists",
    "jsonb_exists_all", "jsonb_exists_any", "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_insert",
    "jsonb_object", "jsonb_object_keys", "jsonb_path_exists", "jsonb_path_exists_tz", "jsonb_path_match",
    "jsonb_path_match_tz", "jsonb_path_query", "jsonb_path_query_array", "jsonb_path_query_array_tz",
    "jsonb_path_query_first", "jsonb_path_query_first_tz", "jsonb_path_query_tz", "jsonb_pretty", "jsonb_set",
    "jsonb_set_lax", "jsonb_strip_nulls", "jsonb_typeof", "row_to_json", "to_json", "to_jsonb",
    # Arrays and ranges.
    "array_append", "array_cat", "array_dims", "array_fill", "array_length", "array_lower", "array_ndims",
    "array_position", "array_positions", "array_prepend", "array_remove", "array_replace", "array_reverse",
    "array_sort", "array_to_json", "array_to_string", "array_upper", "cardinality", "datemultirange", "daterange",
    "generate_series", "generate_subscripts", "int4multirange", "int4range", "int8multirange", "int8range", "isempty",
    "lower_inc", "lower_inf", "multirange", "nummultirange", "numrange", "range_merge", "trim_array", "tsmultirange",
    "tsrange", "tstzmultirange", "tstzrange", "unnest", "upper_inc", "upper_inf",
    # Networks and shapes.
    "abbrev", "area", "box", "broadcast", "center", "circle", "diameter", "family", "height", "host", "hostmask",
    "inet_merge", "inet_same_family", "isclosed", "masklen", "netmask", "network", "npoints", "point", "polygon",
    "radius", "set_masklen", "slope", "width",
})
# fmt: on

_PURE: Final[Mapping[str, frozenset[str]]] = {
    "sqlite": _EVERYWHERE | _ON_SQLITE,
    "postgresql": _EVERYWHERE | _ON_POSTGRESQL,
}
_LOOKED_AT: Final[Mapping[str, frozenset[str]]] = {
    "postgresql": frozenset({"age", "json_to_record", "json_to_recordset", "jsonb_to_record", "jsonb_to_recordset"}),
}
_OF_DATES: Final[Mapping[str, Mapping[str, int]]] = {
    "sqlite": {"date": 0, "datetime": 0, "julianday": 0, "strftime": 1, "time": 0, "unixepoch": 0},
    "postgresql": {"date": 0, "time": 0},
}


def pure_functions(database: str) -> frozenset[str]:
    """Return the functions that are pure on a database, in lower case.

    Args:
        database: by its name in SQLAlchemy; if it is not known, those that nearly all have.
    """
    return _PURE.get(database, _EVERYWHERE)


def looked_at_functions(database: str) -> frozenset[str]:
    """Return the functions that are pure in some calls alone, for example `age()` of two dates."""
    return _LOOKED_AT.get(database, frozenset())


def date_functions(database: str) -> Mapping[str, int]:
    """Return `{function: the place of the argument that must be a date column}`."""
    return _OF_DATES.get(database, {})


_QUOTING: Final = re.compile(r'[\\"]')
_CLOCK_WORD: Final = re.compile(r"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])", re.I)


def is_clock_word(value: object) -> bool:
    """Tell whether PostgreSQL may read `value`, or one of its items, as a date that is another one every day.

    In the text of an array or a range, characters may be quoted and escaped.

    >>> is_clock_word("Today 12:00"), is_clock_word(["2024"]), is_clock_word('{"n\\\\ow"}'), is_clock_word("unknown")
    (True, False, True, False)
    """
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(is_clock_word, value))
    return isinstance(value, str) and _CLOCK_WORD.search(_QUOTING.sub("", value)) is not None

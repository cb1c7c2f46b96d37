//! Tests of one page against a map, and of what verification sees.

//! Derive macros of `terrane`.

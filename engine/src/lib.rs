//! Terrane.

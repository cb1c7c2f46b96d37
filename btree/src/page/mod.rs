//! Pages: what lies in one, and how it is looked at.

pub mod view;

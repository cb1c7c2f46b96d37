//! What the database knows of its tables.

mod rows;
pub mod schema;

#[cfg(test)]
mod tests;

//! Pages, buffer pool, trees and checkpoints for Terrane: bytes and epochs, no transactions.

pub mod page;

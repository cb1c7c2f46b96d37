//! The epoch cut as a model test on the real store: random work with eviction, merges, overflow,
//! failing I/O and abandoned checkpoints; every image plus its redo is the log's state.

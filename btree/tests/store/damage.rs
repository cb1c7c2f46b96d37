//! Bad bytes on disk: typed errors, the previous image, never a panic.

//! Too little memory, a full device.

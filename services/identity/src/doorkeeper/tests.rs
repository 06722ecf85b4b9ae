//! The doorkeeper, in one process.

//! inventory-core

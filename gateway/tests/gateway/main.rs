//! A real gateway on a real port, with inventories and identities that do what each test says.

mod fake_identity;
mod fake_inventory;
mod frames;
mod setup;

mod clinics;
mod edge;
mod load;
mod reads;
mod routing;
mod web;

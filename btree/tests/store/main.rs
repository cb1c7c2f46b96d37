//! The store on the simulated disk: images against models, crashes, damage, pressure.
//!
//! One binary, because each costs a link. `rig` is the world that the others stand in.
#![cfg(not(loom))]

mod crash;
mod cut;
mod damage;
mod pressure;
mod rig;

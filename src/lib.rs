//! Measure, predict and decide: what a machine does with local language models.
//!
//! ```text
//! scenarios/*.toml → Scenario → Case → Job ═pipe═▶ runners/* ═pipe═▶ Event → Record → results/*/records.csv
//!                                                                                        │  (a file is the joint)
//!                             compare | fit | capacity | cost → Report → reports/*  ◀────┘
//! ```

pub mod capacity;
pub mod cases;
pub mod catalog;
pub mod cli;
pub mod cmd;
pub mod compare;
pub mod cost;
pub mod fit;
pub mod host;
pub mod metrics;
pub mod mock_server;
pub mod model;
pub mod record;
pub mod report;
pub mod run;
pub mod runner;
pub mod scenario;
pub mod stats;
pub mod units;
pub mod watch;

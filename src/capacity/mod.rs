//! How many devices for N users under an SLO: a discrete-event simulation of serving engines,
//! driven by step times that were measured or predicted.

mod asking;
mod demand;
mod engine;
mod fit;
mod growth;
mod idle;
mod least_squares;
mod ledger;
mod outcome;
mod pieces;
mod predict;
mod replica;
mod simulate;
mod size;
mod slots;
mod step;
mod steps;

pub use demand::{Demand, Profile, Who};
pub use engine::{Cache, Engine};
pub use fit::{Pace, StepFit, fit, pace};
pub use growth::{Break, Cause, Growth, Missed, exceeded};
pub use outcome::{Bin, Outcome, Overload, Times};
pub use pieces::{Batches, MICRO_BATCH, Piece, pieces};
pub use predict::{Predicted, predict, predict_serving};
pub use simulate::{Fleet, Routing, Span, simulate};
pub use size::{Objective, Size, Tried, in_parallel};
pub use step::{Curve, PromptPart, Run, StepTime};
pub use steps::{COLD, Room, Seen};

pub use crate::workload;

#[cfg(test)]
mod tests;

//! Does it fit, how fast, and with what interval: predictions from shapes, data sheets and
//! published measurements.

pub mod answer;
pub mod calibrate;
pub mod claims;
pub mod constants;
pub mod evidence;
pub mod factors;
pub mod file;
pub mod machine;
pub mod memory;
pub mod packed;
pub mod posynomial;
pub mod site;
pub mod speed;
pub mod split;
pub mod table;
pub mod vllm;
pub mod work;

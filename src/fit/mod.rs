//! Does it fit, how fast, and with what interval: predictions from shapes, data sheets and
//! published measurements.

pub mod answer;
pub mod basis;
pub mod calibrate;
pub mod claims;
pub mod constants;
pub mod evidence;
pub mod factors;
pub mod file;
pub mod local;
pub mod loops;
pub mod machine;
pub mod measured;
pub mod memory;
pub mod own;
pub mod packed;
pub mod peers;
pub mod posynomial;
pub mod serving;
pub mod site;
pub mod speed;
pub mod split;
pub mod table;
pub mod vllm;
pub mod work;

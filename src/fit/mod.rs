//! Does it fit, how fast, and with what interval: predictions from shapes, data sheets and
//! published measurements.

pub mod calibrate;
pub mod evidence;
pub mod posynomial;
pub mod speed;
pub mod work;

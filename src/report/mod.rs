//! What a report says, whatever it is rendered as.

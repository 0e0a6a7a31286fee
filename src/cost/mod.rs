//! What owning costs, when it pays back, against which cloud API.

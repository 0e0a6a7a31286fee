//! Every flag and its help; no logic.
